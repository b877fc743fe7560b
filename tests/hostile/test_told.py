"""What is said of hostile input, and what it comes to; the corpus only says that nothing breaks."""

import pytest

from matterstack.config.profiles import Profiles, resolve
from matterstack.config.workflow_file import load_workflow
from matterstack.errors import ConfigError
from matterstack.runtime.backends.hpc.complaints import read_complaint
from matterstack.runtime.backends.hpc.job_script import directives
from matterstack.runtime.backends.hpc.layout import JobRef, job_ref, read_exit
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.backends.hpc.replies import Doubt, read_reply

TASK = "tasks:\n- task_id: a\n  command: b\n"


@pytest.fixture
def workflow(tmp_path):
    def load(text):
        path = tmp_path / "w.yaml"
        path.write_text(text)
        return load_workflow(path)

    return load


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2024-02-30", "'2024-02-30' makes no sense as timestamp; put it in quotes if it is text"),
        ("!!int abc", "'abc' makes no sense as int"),
        ("9" * 5000, f"'{'9' * 40}' makes no sense as int"),
        ("!!set ab", "expected a mapping node, but found scalar"),
    ],
)
def test_a_word_that_yaml_cannot_take_is_told_with_its_line(workflow, value, words):
    with pytest.raises(ConfigError, match=r"w\.yaml:4: not valid YAML") as caught:
        workflow(f"{TASK}  image: {value}\n")
    assert words in str(caught.value)


def test_a_text_may_be_longer_than_the_name_of_a_file(workflow):
    assert workflow(f"{TASK}  files: {{x: {'a' * 5000}}}\n")["a"].files == {"x": "a" * 5000}


def test_a_path_with_nul_is_refused(workflow):
    with pytest.raises(ConfigError, match="a path cannot have NUL"):
        workflow(f'{TASK}  files: {{x: {{path: "a\\0b"}}}}\n')


def test_aliases_may_repeat_but_not_without_bounds(workflow):
    shared = "  env: &x {A: b}\n"
    more = "".join(f"- {{task_id: t{number}, command: b, env: *x}}\n" for number in range(5000))
    assert workflow(TASK + shared + more)["t4999"].env == {"A": "b"}
    lists = ["&a0 [x]", *(f"&a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9))]
    with pytest.raises(ConfigError, match="stand for too many values"):
        workflow(f"tasks: [{', '.join(lists)}]\n")
    deep = ["&a0 [x]", *(f"&a{n + 1} [*a{n}]" for n in range(200))]
    with pytest.raises(ConfigError, match="too deep"):
        workflow(f"tasks: [{', '.join(deep)}]\n")


@pytest.mark.parametrize("key", ["workspace_root", "results_root"])
def test_a_home_that_nobody_has_is_told(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    kind = "local" if key == "workspace_root" else "slurm, workspace_root: /w"
    (tmp_path / "p.yaml").write_text(f"profiles: {{h: {{backend: {kind}, {key}: ~nobody-at-all/a}}}}")
    with pytest.raises(ConfigError, match=f"p.yaml:1: profiles.h.{key}: nobody has the home directory of '~nobody"):
        resolve(Profiles(tmp_path / "p.yaml").choose("h"))


def test_more_than_there_is_becomes_the_most_that_slurm_takes(workflow):
    task = workflow(f"{TASK}  memory_gb: 1.0e+308\n  time_limit_minutes: 1.0e+308\n")["a"]
    assert {f"--mem={2**53}M", "--time=1491308-02:06:00"} <= set(directives(task, SlurmOptions()))


def test_a_job_id_is_ours_only_as_we_write_it():
    for text in ("12@run/a/1", "12_3;c1@_alone/relax-Al/2"):
        assert str(job_ref(text)) == text
    assert job_ref("12_3;c1@_alone/a/2") == JobRef("12_3;c1", "_alone/a/2")
    for text in ("12@../../1", "12@/a/b", "x@run/a/1", "@run/a/1", "12@run/a/1/2", "12@run/a/x", "5_[1-3]@run/a/1"):
        assert job_ref(text) is None


@pytest.mark.parametrize("number", ["-1", "1_0", "nan", "inf", "1e9", "\u0663", "9" * 5000])
@pytest.mark.parametrize("place", [3, 4, 5, 6])
def test_a_record_has_numbers_as_a_shell_writes_them(number, place):
    words = ["ms1", "ms-t", "12", "0", "1", "1795867107.123", "1795867108", "n1", "-", "."]
    assert read_exit(" ".join(words)).exit_code == 1
    words[place] = number
    assert read_exit(" ".join(words)) is None


def test_a_backslash_before_a_digit_that_is_not_octal_stays_a_digit():
    assert read_complaint(b"find: 'a\\9\\101': Permission denied") == (
        ["a9A", "a\\9\\101", "'a\\9\\101'"],
        "Permission denied",
    )


def test_words_of_a_limit_need_not_be_near_each_other_for_ever():
    said = read_reply(1, "", f"qos{'x' * 5000}limit")
    assert isinstance(said, Doubt)
