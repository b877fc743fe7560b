"""A profile's Slurm settings: what they may be, and what is told where they may not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matterstack.runtime.backends.hpc import SlurmBackend, SlurmOptions
from matterstack.runtime.backends.hpc.sbatch_names import FREE, OWNED

KNOWN = ("account", "partition", "qos", "constraint", "gres", "nodes", "ntasks")


def test_settings_of_a_profile():
    options = SlurmOptions.of(
        {
            "account": "m1234",
            "nodes": 2,
            "modules": ["module load python/3.9", "vasp/6.3", "ml purge"],
            "prologue": ["ulimit -s unlimited"],
            "container": "singularity",
            "requeue": True,
            "arrays": False,
            "mail-type": "END",
            "mail_user": "me@example.org",
            "--nice": 100,
            "exclusive": True,
        }
    )
    assert options == SlurmOptions(
        account="m1234",
        nodes="2",
        modules=("module load python/3.9", "module load vasp/6.3", "ml purge"),
        prologue=("ulimit -s unlimited",),
        container="singularity",
        requeue=True,
        arrays=False,
        extra={"mail-type": "END", "mail-user": "me@example.org", "nice": "100", "exclusive": True},
    )


def test_the_defaults():
    options = SlurmOptions.of({})
    assert options == SlurmOptions()
    assert (options.container, options.requeue, options.arrays) == ("apptainer", False, True)
    assert options.to_mapping() == {}


REFUSED = [
    ("m1234", TypeError, "must be a mapping such as {'account': 'm1234'}"),
    ({"partion": "x"}, ValueError, "unknown key 'partion'. Did you mean 'partition'?"),
    ({"part": "x"}, ValueError, "unknown key 'part'. Did you mean 'partition'?"),
    ({"acount": "x"}, ValueError, "unknown key 'acount'. Did you mean 'account'?"),
    ({"module": ["x"]}, ValueError, "unknown key 'module'. Did you mean 'modules'?"),
    ({"mail-tpye": "END"}, ValueError, "unknown key 'mail-tpye'. Did you mean 'mail-type'?"),
    ({"cpus_per_tasks": 2}, ValueError, "unknown key 'cpus_per_tasks'. Did you mean 'cpus-per-task'?"),
    ({"time": 10}, ValueError, "time: cannot be set, give the task a time_limit_minutes"),
    ({"job_name": "x"}, ValueError, "job_name: cannot be set, jobs are found by their name"),
    ({"outp": "x"}, ValueError, "outp: cannot be set (sbatch takes it for --output), a task's output"),
    ({"Account": "x"}, ValueError, "'Account' is no setting, and no long name of an option of sbatch such as"),
    ({"x y": "x"}, ValueError, "'x y' is no setting"),
    ({"-a": "x"}, ValueError, "'-a' is no setting"),
    ({"": "x"}, ValueError, "'' is no setting"),
    ({"comment\n#SBATCH --uid": "0"}, ValueError, "is no setting"),
    ({"comment=x --uid": "0"}, ValueError, "is no setting"),
    ({"a-": "x"}, ValueError, "'a-' is no setting"),
    ({"é": "x"}, ValueError, "'é' is no setting"),
    ({1: "x"}, ValueError, "1 is no setting"),
    ({"extra": {"a": 1}}, TypeError, "extra: must be a text, a number or true"),
    ({"account": ["m"]}, TypeError, "account: must be a text such as 'm1234', not ['m']"),
    ({"nodes": True}, TypeError, "nodes: must be a text such as '1', not True"),
    ({"account": None}, TypeError, "account: must be a text such as 'm1234', not None"),
    ({"account": ""}, ValueError, "account: must be a text without line breaks"),
    ({"account": " "}, ValueError, "account: must be a text without line breaks"),
    ({"account": "a\n#SBATCH --uid=0"}, ValueError, "account: must be a text without line breaks"),
    ({"comment": "a\rb"}, ValueError, "comment: must be a text without line breaks"),
    ({"comment": "a\0b"}, ValueError, "comment: must be a text without line breaks"),
    ({"comment": "a\x85b"}, ValueError, "comment: must be a text without line breaks"),
    ({"comment": "a\u2028b"}, ValueError, "comment: must be a text without line breaks"),
    ({"comment": "a\ud800b"}, ValueError, "comment: must be a text without line breaks"),
    ({"mail-type": ["END"]}, TypeError, "mail-type: must be a text, a number or true, not ['END']"),
    ({"exclusive": False}, ValueError, "exclusive: leave it out instead of false"),
    ({"mail-type": "END", "mail_type": "FAIL"}, ValueError, "mail_type: is given twice, as --mail-type"),
    ({"modules": "vasp"}, TypeError, "modules: must be a list of lines such as ['module load python/3.9'], not 'vasp'"),
    ({"modules": {"a": 1}}, TypeError, "modules: must be a list of lines"),
    ({"modules": 3}, TypeError, "modules: must be a list of lines"),
    ({"modules": [3]}, TypeError, "modules: must be a list of lines such as 'module load python/3.9', not 3"),
    ({"prologue": [""]}, TypeError, "prologue: must be a list of lines such as 'ulimit -s unlimited', not ''"),
    ({"prologue": ["a\0"]}, ValueError, "prologue: must have no NUL, carriage return"),
    ({"prologue": ["a\r\n"]}, ValueError, "prologue: must have no NUL, carriage return"),
    ({"modules": ["a\udcff"]}, ValueError, "modules: must have no NUL, carriage return"),
    ({"requeue": "yes"}, TypeError, "requeue: must be true or false, not 'yes'"),
    ({"arrays": 1}, TypeError, "arrays: must be true or false, not 1"),
    ({"container": "docker"}, ValueError, "container: must be one of apptainer, singularity, not 'docker'"),
]


@pytest.mark.parametrize(("settings", "kind", "words"), REFUSED)
def test_what_makes_no_sense_is_told(settings, kind, words):
    with pytest.raises(kind) as raised:
        SlurmOptions.of(settings)
    assert type(raised.value) is kind
    assert words in str(raised.value)


@pytest.mark.parametrize("name", sorted(FREE))
def test_every_option_of_sbatch_that_is_not_ours_may_be_set(name):
    assert SlurmOptions.of({name: "x"}).extra == {name: "x"}


@pytest.mark.parametrize("name", ["bbq-size", "x11-tunnel", "scratch", "site-key", "cloud-flavour"])
def test_a_site_may_have_options_of_its_own(name):
    assert SlurmOptions.of({name: "x"}).extra == {name: "x"}


@pytest.mark.parametrize("name", sorted(OWNED))
def test_no_way_to_write_an_option_of_ours_gets_through(name):
    """Sbatch takes any beginning of a name that no other has."""
    for length in range(1, len(name) + 1):
        begin = name[:length]
        if begin in FREE or begin.endswith("-"):
            continue
        for written in (begin, begin.replace("-", "_"), f"--{begin}"):
            with pytest.raises(ValueError, match=r"cannot be set|is no setting"):
                SlurmOptions.of({written: "x"})


def test_no_name_is_both_ours_and_free():
    assert not set(OWNED) & FREE
    assert not set(KNOWN) & (set(OWNED) | FREE)


plain = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1).filter(str.strip)
line = st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=("Cs",)), min_size=1).filter(str.strip)
settings = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(KNOWN, plain | st.integers()),
        **dict.fromkeys(("modules", "prologue"), st.lists(line)),
        **dict.fromkeys(("requeue", "arrays"), st.booleans()),
        **dict.fromkeys(("mail-type", "wckey"), plain | st.integers() | st.just(True)),
    },
)


@given(settings)
def test_settings_that_were_written_down_are_the_same_again(chosen):
    options = SlurmOptions.of(chosen)
    kept = json.loads(json.dumps(options.to_mapping()))
    assert SlurmOptions.of(kept) == options
    assert SlurmOptions.of(kept).to_mapping() == kept


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.booleans() | st.lists(st.text())))
def test_any_mapping_is_taken_or_told(chosen):
    try:
        options = SlurmOptions.of(chosen)
    except (TypeError, ValueError):
        return
    assert set(options.extra).isdisjoint(OWNED)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("/w/100%", "workspace_root must have no '%', unlike '/w/100%': .* name a directory without it"),
        ("/w/a\\b", r"workspace_root must have no '.*': Slurm reads it as part of a pattern"),
        ("/w/a\nb", "workspace_root must have no line breaks or control characters"),
        ("w", "workspace_root must be an absolute path"),
    ],
)
def test_a_workspace_that_slurm_cannot_find_its_way_into_is_refused(root, words):
    with pytest.raises(ValueError, match=words):
        SlurmBackend(None, root)


@pytest.mark.parametrize("root", ["/w/work space's", "/w/a*b?[c]", '/w/$HOME;"&|', "/w/é日本"])
def test_a_workspace_may_be_called_anything_else(root):
    assert SlurmBackend(None, root).root == root
