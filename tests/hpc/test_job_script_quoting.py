"""Hostile text is inert (G13): exactly the given words, environment and directory arrive, by real shells."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from job_place import PROBE, SHELLS, Place, probe_command, probed

from matterstack import Task
from matterstack.runtime.backends.hpc.options import SlurmOptions

# Characters and pieces that mean something to a shell, to sbatch or to file systems, beside any others.
PIECES = st.sampled_from(
    [
        *("'", '"', "\\", "`", "$", "$(id)", "${HOME}", "!", "#", "\n", "\t", " ", "  ", "*", "?", "[a-z]", "~", ";"),
        *("&", "|", "<", ">", "(", ")", "{", "}", "=", "%", "%j", "\n#SBATCH --uid=0\n", "#SBATCH --wrap=id", "EOF"),
        *("--", "-", "-n", "\r", "\x01", "\x7f", "\x1b[31m", "é", "😀", "\u2028", "\xa0", "ms_dir", "$ms_m", "{base}"),
        *("{", "}}", "{0}", "%s", "\\n", "\\0", "'\\''", "\n)\n", "\n}\n", "; exit 9", "|| exit", "$IFS", "../", "/"),
    ]
)
CHARACTERS = st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))
TEXT = st.lists(PIECES | st.text(CHARACTERS, max_size=4), max_size=6).map("".join)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True).filter(
    # Names that the probe's own shell or interpreter changes.
    lambda name: (
        name not in ("_", "PWD", "OLDPWD", "SHLVL", "PATH", "LC_CTYPE", "LD_PRELOAD") and not name.startswith("MALLOC")
    )
)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
PATH = {b"PATH": os.environb[b"PATH"]}
NAME_MAX = 60  # bytes of a directory's name
ROOTS = TEXT.map(lambda text: text.replace("/", "_")).filter(
    lambda text: 0 < len(text.encode()) <= NAME_MAX and text not in (".", "..")
)
HARMLESS = TEXT.filter(lambda text: ">" not in text)  # of what is really run: it makes no files anywhere
many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
shells = st.sampled_from(SHELLS)


class World:
    """A directory of its own for each example, with the probe outside of the workspace."""

    def __init__(self, root="root", **options):
        self.base = Path(tempfile.mkdtemp())
        (self.base / "probe.py").write_text(PROBE)
        self.place = Place(self.base / root, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.place.close()
        shutil.rmtree(self.base)

    def command(self, *words):
        return shlex.join(probe_command(self.base / "probe.py", self.base / "seen", words))

    def seen(self):
        return probed(self.base / "seen")


@many
@given(shells, ROOTS, IDS, st.lists(TEXT, max_size=4), st.dictionaries(NAMES, TEXT, max_size=4), TEXT)
@example("dash", "-rf", "a", ["", "-n"], {"IFS": "/"}, "x")
@example("bash", "a\nb ", "a", ["\n", "a\n\n"], {"BASH_ENV": "/nowhere", "ENV": "$(id)"}, "\n")
@example("bash", "it's \\ %j", "a", [], {"SHELLOPTS": "xtrace", "UID": "7", "IFS": "e"}, "'")
@example("dash", "~", "a", [], {"OPTARG": "x", "PS4": "$(id)", "PS1": "`id`"}, "\\")
def test_exactly_the_given_words_environment_and_directory_arrive(shell, root, task_id, words, env, secret):
    with World(root) as world:
        names = ["A_SECRET"] if "A_SECRET" not in env else []
        environ = {"A_SECRET": secret}
        job = world.place.lone(world.command(*words), task_id, env=env, secrets=names, environ=environ)
        code, said = job.run(shell)
        assert (code, said) == (0, ""), job.stderr
        argv, cwd, found = world.seen()
        assert argv == [word.encode() for word in words]
        assert cwd == os.fsencode(job.directory)
        wanted = {name.encode(): value.encode() for name, value in (env | dict.fromkeys(names, secret)).items()}
        # Of some names the machine's own /bin/sh, which the command gets, makes something else.
        plain = subprocess.run(["/bin/sh", "-c", "exec env -0"], env=wanted | PATH, capture_output=True, check=True)
        kept = dict(pair.partition(b"=")[::2] for pair in plain.stdout.split(b"\0"))
        assert {name: found.get(name) for name in wanted} == {name: kept.get(name) for name in wanted}
        assert found[b"MATTERSTACK_TASK"] == task_id.encode()
        assert not [name for name in found if name.startswith(b"ms_")]
        assert sorted(path.name for path in world.base.iterdir()) == sorted(["probe.py", "seen", Path(root).name])


@many
@given(shells, HARMLESS)
@example("dash", "echo one\n\n\n")
@example("bash", "cat <<'EOF'\n$x\nEOF\n")
@example("dash", "echo 'open")
@example("bash", "exit 3 # \\")
@example("dash", "true\\")
@example("dash", "echo a\n.\n")
@example("bash", 'printf %s "$0" "$@"')
def test_any_text_is_run_as_sh_runs_it(shell, text):
    """What is said and how it ends are those of ``/bin/sh -c`` here."""
    text = f"PATH=/nowhere\n{text}"
    with World() as world:
        job = world.place.lone(text)
        cage = world.base / "cage"
        cage.mkdir()
        plain = subprocess.run(
            ["/bin/sh", "-c", text], cwd=cage, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        code, _ = job.run(shell)
        assert code == (128 - plain.returncode if plain.returncode < 0 else plain.returncode)
        assert job.exit.exit_code == code
        assert job.exit.flags == frozenset()
        if "$" not in text and "`" not in text:  # what depends on process ids or on the directory may differ
            assert job.stdout.encode() == plain.stdout


def _prologue(text):
    return _taken({"prologue": [text]})


def _taken(mapping):
    try:
        SlurmOptions.of(mapping)
    except (TypeError, ValueError):
        return False
    return True


VALUES = TEXT.filter(lambda text: _taken({"comment": text}))
LINES = TEXT.filter(_prologue)


@many
@given(
    st.dictionaries(st.sampled_from(["account", "qos", "constraint", "comment", "mail-user"]), VALUES, max_size=4),
    st.lists(LINES, max_size=3),
    st.lists(LINES, max_size=3),
    st.none() | TEXT.filter(bool),
    st.booleans(),
)
def test_no_directive_is_ever_made_from_a_user_s_text(chosen, modules, prologue, image, array):
    """A directive counts up to the first command; before that, each line is one whole option of ours."""
    options = {**chosen, "modules": modules, "prologue": prologue}
    text = Place(Path("/unused"), **options).text(Task("true", "a", image=image), array=array)
    lines = text.split("\n")
    assert lines[0] == "#!/bin/sh"
    header = [line for line in _before_first_command(lines) if line.startswith("#SBATCH")]
    names = [re.match(r"#SBATCH --([a-z-]+)", line)[1] for line in header]
    assert set(names) == {
        *("job-name", "output", "cpus-per-task", "no-requeue", "export", "signal"),
        *chosen,
    }
    assert len(names) == len(set(names))
    for name, value in chosen.items():
        (line,) = (line for line in header if line.startswith(f"#SBATCH --{name}="))
        assert _as_sbatch_reads(line.removeprefix("#SBATCH")) == [f"--{name}={value}"]


def _before_first_command(lines):
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            return
        yield line


def _as_sbatch_reads(line):
    """Return the words of an option line by the rules in Slurm's source, ``_get_next_opt_str`` of sbatch."""
    words, word, quote, escaped = [], None, "", False
    for char in line:
        if escaped:
            word, escaped = (word or "") + char, False
        elif char == "\\":
            word, escaped = word or "", True
        elif quote:
            word, quote = (word, "") if char == quote else ((word or "") + char, quote)
        elif char in "'\"":
            word, quote = word or "", char
        elif char in " \t\n\v\f\r":
            words, word = ([*words, word], None) if word is not None else (words, None)
        elif char == "#":
            break
        else:
            word = (word or "") + char
    assert not quote
    assert not escaped
    return [*words, word] if word is not None else words


@many
@given(
    shells,
    st.lists(HARMLESS.filter(_prologue), min_size=1, max_size=3),
    st.lists(HARMLESS.filter(_prologue), max_size=2),
)
def test_whatever_a_prologue_is_there_is_an_end_and_no_false_success(shell, prologue, modules):
    """It may break its own set-up; then the command was not started and that is recorded."""
    guard = "PATH=/nowhere; true"  # before anything that is drawn, so that it can call nothing
    with World(prologue=prologue, modules=[guard, *modules]) as world:
        job = world.place.lone("echo ran >>log", env={"PATH": os.environ["PATH"]})
        script = world.place.root / f".matterstack/submissions/{job.token}/job.sh"
        subprocess.run([shutil.which(shell), "-n", script], check=True)
        code, _ = job.run(shell)
        assert job.exit.exit_code == code
        ran = (job.directory / "log").exists()
        assert ran == (code == 0)
        assert code == 0 or job.exit.flags == {"setup"} or code in (126, 127)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_large_environment_arrives(shell):
    env = {f"N{number}": "é'" * 3000 for number in range(40)}
    with World() as world:
        job = world.place.lone(world.command(), env=env)
        assert job.run(shell) == (0, "")
        found = world.seen()[2]
        assert {name: found[name.encode()].decode() for name in env} == env
