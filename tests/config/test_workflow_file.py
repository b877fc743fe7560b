import sys
import textwrap
from pathlib import Path

import pytest

from matterstack.config.workflow_file import load_workflow
from matterstack.core.workflow import OutputRef, Task, Workflow
from matterstack.errors import ConfigError, WorkflowError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def failure(path, expected=ConfigError):
    with pytest.raises(expected) as caught:
        load_workflow(path).dependencies()
    assert "Nothing was started" in str(caught.value)
    return str(caught.value)


def test_every_field_can_be_written_in_yaml(tmp_path):
    path = write(
        tmp_path / "scan.yaml",
        """\
        name: scan
        tasks:
          - task_id: first
            command: date > now
            outputs: [now]
          - task_id: second
            command: |
              cat now
              echo "it's $A"
            files:
              now: {task: first, output: now}
              in/script.py: {path: ../script.py}
              note.txt: some text
            env: {A: one, N: 4}
            dependencies: [first]
            cores: 2
            memory_gb: 1.5
            gpus: 1
            time_limit_minutes: 10
            image: python.sif
            allow_failure: true
            allow_dependency_failure: true
            outputs: ["*.json"]
            secrets: [TOKEN]
            retry: infrastructure
            max_attempts: 5
            profile: hpc_prod
        """,
    )
    workflow = load_workflow(path)
    assert workflow.name == "scan"
    assert list(workflow) == [
        Task("date > now", "first", outputs=["now"]),
        Task(
            'cat now\necho "it\'s $A"\n',
            "second",
            files={
                "now": OutputRef("first", "now"),
                "in/script.py": tmp_path / "../script.py",
                "note.txt": "some text",
            },
            env={"A": "one", "N": "4"},
            dependencies=["first"],
            cores=2,
            memory_gb=1.5,
            gpus=1,
            time_limit_minutes=10,
            image="python.sif",
            allow_failure=True,
            allow_dependency_failure=True,
            outputs=["*.json"],
            secrets=["TOKEN"],
            retry="infrastructure",
            max_attempts=5,
            profile="hpc_prod",
        ),
    ]


@pytest.mark.parametrize("name", ["scan.yaml", "scan.yml", "scan.py"])
def test_a_workflow_without_a_name_is_called_as_its_file(tmp_path, name):
    text = "from matterstack import Workflow\nworkflow = Workflow()\n" if name.endswith("py") else "tasks: []\n"
    assert load_workflow(write(tmp_path / name, text)).name == "scan"


def test_a_python_file_defines_workflow(tmp_path):
    path = write(
        tmp_path / "scan.py",
        """\
        from matterstack import Task, Workflow
        other = Workflow("other")
        workflow = Workflow("mine", [Task("true", "a")])
        """,
    )
    workflow = load_workflow(path)
    assert isinstance(workflow, Workflow)
    assert (workflow.name, list(workflow.tasks)) == ("mine", ["a"])


def test_an_only_workflow_may_have_another_name(tmp_path):
    path = write(tmp_path / "a.py", "from matterstack import Workflow\nw = same = Workflow('only')\n")
    assert load_workflow(path).name == "only"


def test_a_python_file_can_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path / "beside_this_workflow.py", "NAME = 'from-beside'\n")
    path = write(
        tmp_path / "a.py",
        "from matterstack import Workflow\nimport beside_this_workflow as b\nworkflow = Workflow(b.NAME)\n",
    )
    assert load_workflow(path).name == "from-beside"


def test_a_python_file_is_not_run_as_main(tmp_path):
    path = write(
        tmp_path / "a.py",
        "from matterstack import Workflow\nworkflow = Workflow('a')\nif __name__ == '__main__':\n    1 / 0\n",
    )
    assert load_workflow(path).name == "a"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.py", "there is no such file"),
        ("missing.yaml", "there is no such file"),
        ("folder.py", "is a directory, not a file"),
        ("folder.yaml", "is a directory, not a file"),
        ("data.txt", "a workflow is a .py, .yaml or .yml file"),
        ("data", "a workflow is a .py, .yaml or .yml file"),
        ("latin.py", "is not text in UTF-8"),
        ("latin.yaml", "is not text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, words):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif name.startswith("latin"):
        (tmp_path / name).write_bytes(b"# caf\xe9\n")
    message = failure(tmp_path / name)
    assert message.startswith(str(tmp_path / name))
    assert words in message


BAD_PYTHON = [
    ("this is no Python", ":1: not valid Python: invalid syntax"),
    ("x = 1\ndef f(:\n", ":2: not valid Python"),
    ("x = 1\n\nraise RuntimeError('no luck')\n", ":3: RuntimeError: no luck"),
    ("def f():\n    return {}['key']\n\nf()\n", ":2: KeyError: 'key'"),
    ("import no_such_module_anywhere\n", ":1: ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    ("x = 1\n", "defines no workflow named 'workflow'"),
    ("workflow = 5\n", "defines no workflow named 'workflow'"),
    ("from matterstack import Workflow as W\na, b = W('a'), W('b')\n", "defines several workflows, none of them named"),
    ("import sys\nsys.exit('bye')\n", "called exit('bye') while it was read"),
    ("from matterstack import Task\n\nTask('true', 'a b')\n", ":3: task 'a b': task_id: must be 1 to 128"),
    ("from matterstack import Task\nTask('true', 'a', cores=0)\n", ":2: task 'a': cores: must be a whole number"),
    (
        "from matterstack import Task as T, Workflow\nworkflow = Workflow('w', [T('a', 'a'), T('b', 'a')])\n",
        ":2: two tasks have the id 'a'",
    ),
]


@pytest.mark.parametrize(("text", "words"), BAD_PYTHON)
def test_a_mistake_in_a_python_file_is_told_with_its_line(tmp_path, text, words):
    path = write(tmp_path / "w.py", text)
    with pytest.raises(ConfigError) as caught:
        load_workflow(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


ONE = "  - {task_id: a, command: x}\n"
BAD_YAML = [
    ("", 1, "expected a mapping of keys to values, got nothing"),
    ("- a\n", 1, "expected a mapping of keys to values, got a list"),
    ("just words\n", 1, "expected a mapping of keys to values, got text"),
    ("name: x\n", 1, "missing key 'tasks'"),
    ("name: x\ntasks: 5\n", 2, "tasks: expected a list, got a whole number"),
    ("tasks: []\nname: 5\n", 2, "name: expected text, got a whole number"),
    ("tasks: []\nnames: x\n", 2, "unknown key 'names'. Did you mean 'name'?"),
    ("name: a b\ntasks: []\n", 1, "workflow name 'a b' must be 1 to 128"),
    (f"tasks:\n{ONE}  - words\n", 3, "tasks[1]: expected a mapping of keys to values, got text"),
    (f"tasks:\n{ONE}  - {{task_id: b}}\n", 3, "tasks[1]: missing key 'command'"),
    (f"tasks:\n{ONE}  - {{command: b}}\n", 3, "tasks[1]: missing key 'task_id'"),
    ("tasks:\n  - task_id: a\n    comand: x\n", 3, "tasks[0]: unknown key 'comand'. Did you mean 'command'?"),
    ("tasks:\n  - task_id: a\n    command: 5\n", 3, "tasks[0].command: expected text, got a whole number"),
    (
        "tasks:\n  - task_id: a\n    command: x\n    cores: two\n",
        4,
        "tasks[0].cores: expected a whole number, got text",
    ),
    (
        "tasks:\n  - task_id: a\n    command: x\n    cores: 0\n",
        2,
        "task 'a': cores: must be a whole number of at least 1",
    ),
    (
        "tasks:\n  - task_id: a\n    command: x\n    dependencies: b\n",
        4,
        "tasks[0].dependencies: expected a list, got text",
    ),
    (
        "tasks:\n  - task_id: a\n    command: x\n    dependencies:\n      - 5\n",
        5,
        "tasks[0].dependencies[0]: expected text",
    ),
    (
        "tasks:\n  - task_id: a\n    command: x\n    env: {V: 3.10}\n",
        4,
        "tasks[0].env: expected a whole number or text",
    ),
    ("tasks:\n  - task_id: a\n    command: x\n    env: {V: yes}\n", 4, "got true or false"),
    ("tasks:\n  - task_id: a\n    command: x\n    allow_failure: 1\n", 4, "expected true or false, got a whole number"),
    (
        "tasks:\n  - task_id: a\n    command: x\n    files:\n      f: 5\n",
        5,
        "tasks[0].files.f: expected text, {path: FILE}",
    ),
    (
        "tasks:\n  - task_id: a\n    command: x\n    files:\n      f: {pth: y}\n",
        5,
        "unknown key 'pth'. Did you mean 'path'?",
    ),
    ("tasks:\n  - task_id: a\n    command: x\n    files:\n      f: {task: y}\n", 5, "or {task: ID, output: FILE}"),
    ("tasks:\n  - task_id: a\n    command: x\n    files:\n      f: {task: y, output: ../z}\n", 2, "must stay inside"),
    ("tasks:\n  - task_id: ../x\n    command: x\n", 2, "tasks[0]: task '../x': task_id: must be 1 to 128"),
    ("tasks:\n  - task_id: é\n    command: x\n", 2, "tasks[0]: task 'é': task_id: must be 1 to 128"),
    (f"tasks:\n{ONE}{ONE}", 3, "tasks[1]: two tasks have the id 'a'"),
    ("tasks:\n  - task_id: a\n    command: x\n    command: y\n", 4, "the key 'command' stands twice"),
    ("tasks:\n  - task_id: a\n  command: [\n", 3, "not valid YAML"),
    ("tasks: [\n", 2, "not valid YAML"),
    ("tasks: &a [*a]\n", 1, "tasks[0]: expected a mapping of keys to values, got a list"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_YAML)
def test_a_mistake_in_yaml_is_told_with_line_path_and_what_was_expected(tmp_path, text, line, words):
    path = tmp_path / "w.yaml"
    path.write_text(text)
    message = failure(path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_control_characters_in_yaml_are_refused(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("name: \x01\n")
    assert "not valid YAML" in failure(path)


def test_yaml_cannot_run_anything(tmp_path):
    path = write(tmp_path / "w.yaml", f"tasks: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    failure(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [
        ({"a": "c", "b": "a", "c": "b"}, "tasks wait for each other: a -> c -> b -> a"),
        ({"a": "a", "b": "a", "c": "b"}, "tasks wait for each other: a -> a"),
        ({"a": "", "b": "relax-Ai", "relax-Al": ""}, "task 'b' depends on 'relax-Ai', which is not in the workflow"),
    ],
)
def test_cycles_and_unknown_dependencies_are_named(tmp_path, dependencies, words):
    lines = [f"  - {{task_id: {one}, command: x, dependencies: [{of}]}}\n" for one, of in dependencies.items()]
    assert words in failure(write(tmp_path / "w.yaml", "tasks:\n" + "".join(lines)), WorkflowError)


def test_files_of_yaml_start_from_its_directory(tmp_path, monkeypatch):
    path = write(
        tmp_path / "sub/w.yaml", "tasks: [{task_id: a, command: x, files: {s: {path: s.py}, t: {path: /abs/t}}}]\n"
    )
    monkeypatch.chdir(tmp_path)
    for given in (path, Path("sub/w.yaml")):
        files = load_workflow(given)["a"].files
        assert files["s"].absolute() == tmp_path / "sub/s.py"
        assert files["t"] == Path("/abs/t")


def test_text_that_names_a_file_is_asked_about(tmp_path):
    (tmp_path / "POSCAR").write_text("Al\n")
    path = tmp_path / "w.yaml"
    path.write_text("tasks: [{task_id: a, command: 'true', files: {POSCAR: POSCAR}}]\n")
    with pytest.raises(ConfigError, match=r"w.yaml:1: .*'POSCAR' is a file: write {path: POSCAR}"):
        load_workflow(path)
