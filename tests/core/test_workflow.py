from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matterstack.core.workflow import ID_MAX, RETRIES, OutputRef, Task, Workflow, find_cycle, id_problem
from matterstack.errors import SpecError, WorkflowError

BAD_IDS = ["", "../x", "a b", "é", "a\n", "\n", "a/b", ".hidden", "-x", "_x", "a\0", "x" * 300, "x" * (ID_MAX + 1)]


@pytest.mark.parametrize("bad", [*BAD_IDS, None, 5, b"a"])
def test_an_id_that_is_no_name_of_a_directory_is_refused(bad):
    with pytest.raises(SpecError, match="must be 1 to 128 characters out of") as caught:
        Task("true", bad)
    assert caught.value.field == "task_id"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bad", [*BAD_IDS[1:], 5])
def test_a_workflow_name_keeps_the_rule_of_ids(bad):
    with pytest.raises(WorkflowError, match="must be 1 to 128 characters out of"):
        Workflow(bad)


@pytest.mark.parametrize("good", ["a", "A-1_b.c", "0", "x" * ID_MAX, "CON", "a..b"])
def test_a_plain_id_is_taken(good):
    assert Task("true", good).task_id == good
    assert Workflow(good).name == good
    assert id_problem(good) is None


BAD_FIELDS = [
    ("command", "", "non-empty"),
    ("command", " \n\t", "non-empty"),
    ("command", "echo \0", "without NUL"),
    ("command", "echo \ud800", "non-empty text"),
    ("command", None, "non-empty"),
    ("command", ["ls"], "non-empty"),
    ("files", None, "must map names to contents, not be NoneType"),
    ("files", ["a"], "must map names to contents, not be list"),
    ("files", {"a": 5}, "'a' must be text, a Path or another task's output, not int"),
    ("files", {"a": b"bytes"}, "not bytes"),
    ("files", {"a": "\ud800"}, "'a' has characters that UTF-8 cannot say"),
    ("files", {"": "x"}, "non-empty"),
    ("files", {5: "x"}, "file name 5 must be a non-empty text"),
    ("files", {"a\0b": "x"}, "without NUL"),
    ("files", {"\ud800": "x"}, "non-empty text"),
    ("files", {"/etc/passwd": "x"}, "must stay inside the task's directory"),
    ("files", {"../x": "x"}, "must stay inside the task's directory"),
    ("files", {"a/../../x": "x"}, "must stay inside the task's directory"),
    ("files", {".": "x"}, "must stay inside the task's directory"),
    ("files", {"./a": "x"}, "must be written 'a'"),
    ("files", {"a/": "x"}, "must be written 'a'"),
    ("files", {"a//b": "x"}, "must be written 'a/b'"),
    ("files", {"a" * 256: "x"}, "longer than file systems take"),
    ("files", {"é" * 128: "x"}, "longer than file systems take"),
    ("files", {"a/" * 600 + "a": "x"}, "longer than file systems take"),
    ("files", {"stdout.txt": "x"}, "taken by MatterStack's own record"),
    ("files", {"stderr.txt": "x"}, "taken by MatterStack's own record"),
    ("files", {"stdout.txt/x": "x"}, "taken by MatterStack's own record"),
    ("files", {".matterstack.record": "x"}, "taken by MatterStack's own record"),
    ("files", {"a": "x", "a/b": "y"}, "'a' cannot be a file and the directory of 'a/b'"),
    ("files", {"x": OutputRef("up", "../../secret")}, "'x': file name '../../secret' must stay inside"),
    ("env", None, "must map names to values, not be NoneType"),
    ("env", ["A=1"], "must map names to values, not be list"),
    ("env", {"A-B": "1"}, "'A-B' is not a name a shell can export"),
    ("env", {"": "1"}, "not a name a shell can export"),
    ("env", {"A\n": "1"}, "not a name a shell can export"),
    ("env", {"1A": "1"}, "not a name a shell can export"),
    ("env", {5: "1"}, "5 is not a name a shell can export"),
    ("env", {"A": 1}, "the value of A must be text without NUL characters, not 1"),
    ("env", {"A": "\0"}, "the value of A must be text without NUL characters"),
    ("dependencies", "a", "must be a list of tasks or task ids, not a single one"),
    ("dependencies", Task("true", "other"), "not a single one"),
    ("dependencies", None, "must be a list"),
    ("dependencies", 5, "must be a list"),
    ("dependencies", [5], "must be tasks or task ids, not int"),
    ("cores", 0, "whole number of at least 1, not 0"),
    ("cores", -1, "not -1"),
    ("cores", 1.0, "not 1.0"),
    ("cores", "2", "not '2'"),
    ("cores", True, "not True"),
    ("cores", None, "not None"),
    ("gpus", -1, "whole number of at least 0, not -1"),
    ("gpus", 0.5, "not 0.5"),
    ("gpus", False, "not False"),
    ("memory_gb", 0, "number of GB above 0, not 0"),
    ("memory_gb", -2.5, "not -2.5"),
    ("memory_gb", float("nan"), "not nan"),
    ("memory_gb", float("inf"), "not inf"),
    ("memory_gb", "4", "not '4'"),
    ("memory_gb", True, "not True"),
    ("time_limit_minutes", 0, "number of minutes above 0, not 0"),
    ("time_limit_minutes", -1, "not -1"),
    ("time_limit_minutes", float("inf"), "not inf"),
    ("time_limit_minutes", "1h", "not '1h'"),
    ("image", "", "name of a container image, not ''"),
    ("image", 5, "name of a container image, not 5"),
    ("allow_failure", "no", "True or False, not 'no'"),
    ("allow_failure", 0, "True or False, not 0"),
    ("allow_dependency_failure", None, "True or False, not None"),
    ("outputs", "*.json", "must be a list of non-empty texts"),
    ("outputs", [""], "must be a list of non-empty texts"),
    ("outputs", 5, "must be a list of non-empty texts"),
    ("outputs", [5], "must be a list of non-empty texts"),
    ("outputs", ["/abs/*"], "must stay inside the task's directory"),
    ("outputs", ["../*"], "must stay inside the task's directory"),
    ("secrets", "TOKEN", "must be a list of non-empty texts"),
    ("secrets", None, "must be a list of non-empty texts"),
    ("secrets", ["A B"], "'A B' is not a name a shell can export"),
    ("retry", "sometimes", "'sometimes' is not a way to retry. Known: always"),
    ("retry", "if-not-startd", "Did you mean 'if-not-started'?"),
    ("retry", None, "None is not a way to retry"),
    ("profile", "a b", "the name of a profile, not 'a b'"),
    ("profile", None, "the name of a profile, not None"),
    ("max_attempts", 0, "whole number of at least 1, not 0"),
    ("max_attempts", 1.5, "not 1.5"),
]


@pytest.mark.parametrize(("field", "value", "words"), BAD_FIELDS)
def test_a_bad_value_is_refused_by_an_error_that_names_task_and_field(field, value, words):
    with pytest.raises(SpecError) as caught:
        Task(**{"command": "true", "task_id": "relax", field: value})
    assert str(caught.value).startswith(f"task 'relax': {field}: ")
    assert words in str(caught.value)
    assert (caught.value.task_id, caught.value.field) == ("relax", field)


def test_every_field_is_tried_with_bad_values():
    tried = {field for field, _, _ in BAD_FIELDS} | {"task_id"}
    assert tried == set(Task.__struct_fields__)


def test_every_way_to_retry_is_taken():
    assert [Task("true", "a", retry=way).retry for way in RETRIES] == list(RETRIES)


@given(command=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip))
def test_any_printable_command_is_taken_as_it_is(command):
    assert Task(command, "a").command == command


@given(text=st.text(), name=st.text())
def test_any_text_is_either_taken_or_refused_with_a_spec_error(text, name):
    for field in ({"command": text}, {"task_id": text}, {"files": {name: text}}, {"env": {name: text}}):
        ((name_of_field, value),) = field.items()
        try:
            task = Task(**{"command": "true", "task_id": "a", **field})
        except SpecError as error:
            named = error.field
        else:
            named = name_of_field
            assert getattr(task, name_of_field) == value
        assert named == name_of_field


def test_a_task_cannot_be_changed():
    task = Task("true", "a")
    with pytest.raises(AttributeError):
        task.command = "false"


def test_a_task_keeps_what_its_caller_later_does_to_a_list():
    names, outputs = ["b"], ["*.json"]
    task = Task("true", "a", dependencies=names, outputs=outputs)
    names.append("c")
    outputs.clear()
    assert list(task.needs()) == ["b"]
    assert task.outputs == ("*.json",)


def test_output_of_a_task_makes_a_dependency():
    upstream = Task("date > now", "first")
    task = Task("cat now", "second", files={"now": upstream.output("now")})
    assert list(task.needs()) == ["first"]
    assert Workflow("w", [upstream, task]).dependencies() == {"second": ["first"]}


def test_dependencies_come_once_and_in_the_order_they_were_named():
    first, second = Task("true", "first"), Task("true", "second")
    files = {"a": first.output("a"), "b": second.output("b"), "c": first.output("c"), "d": Path("d"), "e": "text"}
    task = Task("true", "t", files=files, dependencies=[second, "third", "second"])
    assert list(task.needs()) == ["second", "third", "first"]
    assert list(Task("true", "t", dependencies=["a", "b", "a"]).needs()) == ["a", "b"]


@pytest.mark.parametrize("bad", ["", "/etc/passwd", "../x", "a\0", None, "./x"])
def test_an_output_outside_the_task_is_refused(bad):
    with pytest.raises(SpecError) as caught:
        Task("true", "a").output(bad)
    assert caught.value.field == "output"


def test_what_a_task_printed_may_be_another_tasks_input():
    assert Task("date", "a").output("stdout.txt") == OutputRef("a", "stdout.txt")


def test_a_second_task_of_an_id_is_refused_and_the_first_stays():
    workflow = Workflow("w", [Task("true", "a")])
    with pytest.raises(WorkflowError, match="two tasks have the id 'a'"):
        workflow.add(Task("false", "a"))
    assert workflow["a"].command == "true"
    assert len(workflow) == 1


def test_only_tasks_can_be_added():
    with pytest.raises(WorkflowError, match="takes Task objects, not str"):
        Workflow("w", ["true"])


def test_a_workflow_keeps_the_order_of_its_tasks():
    workflow = Workflow("w", [Task("true", name) for name in "cab"])
    assert [task.task_id for task in workflow] == ["c", "a", "b"]
    assert "a" in workflow
    assert "d" not in workflow


def test_an_unknown_dependency_is_refused_with_the_nearest_name():
    workflow = Workflow("w", [Task("true", "relax-Al"), Task("true", "fit", dependencies=["relax-Ai"])])
    with pytest.raises(WorkflowError) as caught:
        workflow.dependencies()
    assert "task 'fit' depends on 'relax-Ai', which is not in the workflow" in str(caught.value)
    assert "Did you mean 'relax-Al'?" in str(caught.value)


def test_a_self_dependency_is_a_cycle():
    with pytest.raises(WorkflowError, match="tasks wait for each other: a -> a"):
        Workflow("w", [Task("true", "a", dependencies=["a"])]).dependencies()


def test_a_cycle_is_named_in_order():
    tasks = [
        Task("true", "start"),
        Task("true", "c", dependencies=["start", "b"]),
        Task("true", "b", dependencies=["a"]),
        Task("true", "a", files={"x": OutputRef("c", "x")}),
        Task("true", "end", dependencies=["a"]),
    ]
    with pytest.raises(WorkflowError, match="c -> b -> a -> c"):
        Workflow("w", tasks).dependencies()


def test_a_long_chain_and_a_long_cycle_need_no_recursion():
    n = 20_000
    chain = {f"t{i}": [f"t{i + 1}"] for i in range(n)}
    assert find_cycle(chain) == []
    chain[f"t{n}"] = ["t0"]
    cycle = find_cycle(chain)
    assert cycle == [*(f"t{i}" for i in range(n + 1)), "t0"]


def test_tasks_that_wait_for_none_are_left_out_of_the_dependencies():
    workflow = Workflow("w", [Task("true", "a"), Task("true", "b", dependencies=["a"])])
    assert workflow.dependencies() == {"b": ["a"]}


nodes = st.integers(0, 7).map(str)
graphs = st.dictionaries(nodes, st.lists(nodes, unique=True, max_size=4), max_size=8)


@given(graphs)
def test_a_cycle_is_found_where_there_is_one_and_only_there(needs):
    try:
        TopologicalSorter(needs).prepare()
        expected = False
    except CycleError:
        expected = True
    cycle = find_cycle(needs)
    assert bool(cycle) == expected
    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle[1:])) == len(cycle) - 1
        assert all(following in needs[here] for here, following in pairwise(cycle))
