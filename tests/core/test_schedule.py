from hypothesis import given
from hypothesis import strategies as st

from matterstack.core.schedule import Schedule


@st.composite
def campaigns(draw):
    """A DAG, the tasks that tolerate failed dependencies, how each would end, and an order of luck."""
    n = draw(st.integers(1, 9))
    needs = {str(i): [str(j) for j in range(i) if draw(st.booleans())] for i in range(n)}
    tolerant = {t for t in needs if draw(st.booleans())}
    ok = {t: draw(st.booleans()) for t in needs}
    return needs, tolerant, ok, draw(st.randoms(use_true_random=False))


def expected_fates(needs, tolerant, ok):
    """How each task ends, from the definition alone: dependencies come first, as they are numbered."""
    fates = {}
    for task, ids in needs.items():
        blocked = task not in tolerant and any(fates[one] != "ok" for one in ids)
        fates[task] = "blocked" if blocked else ("ok" if ok[task] else "failed")
    return fates


@given(campaigns())
def test_tasks_start_and_fail_as_the_definition_says_in_any_order(campaign):
    needs, tolerant, ok, luck = campaign
    schedule = Schedule({task: ids for task, ids in needs.items() if ids}, tolerant)
    ready = [task for task in needs if schedule.is_ready(task)]
    assert ready == [task for task in needs if not needs[task]]
    fates = {}
    while ready:
        task = ready.pop(luck.randrange(len(ready)))
        assert task not in fates
        assert task in tolerant or all(fates[one] == "ok" for one in needs[task])
        assert all(one in fates for one in needs[task])
        fates[task] = "ok" if ok[task] else "failed"
        settled = [(task, ok[task])]
        while settled:
            source, went_well = settled.pop()
            for dependent, may_start in schedule.settle(source, ok=went_well):
                if may_start:
                    ready.append(dependent)
                else:
                    assert dependent not in fates
                    fates[dependent] = "blocked"
                    settled.append((dependent, False))
    assert fates == expected_fates(needs, tolerant, ok)


@given(campaigns())
def test_downstream_is_all_that_depends_directly_or_not(campaign):
    needs, _, _, luck = campaign
    schedule = Schedule(needs, ())
    chosen = {task for task in needs if luck.random() < 0.3}
    found = set()
    for task, ids in needs.items():
        if any(one in chosen or one in found for one in ids):
            found.add(task)
    assert schedule.downstream(chosen) == found


def test_a_task_that_failed_with_a_dependency_is_told_once():
    schedule = Schedule({"c": ["a", "b"]}, ())
    assert list(schedule.settle("a", ok=False)) == [("c", False)]
    assert list(schedule.settle("b", ok=False)) == []


def test_a_tolerant_task_waits_for_all_its_dependencies():
    schedule = Schedule({"c": ["a", "b"]}, {"c"})
    assert list(schedule.settle("a", ok=False)) == []
    assert list(schedule.settle("b", ok=True)) == [("c", True)]


def test_dependents_are_the_direct_ones():
    schedule = Schedule({"b": ["a"], "c": ["b"]}, ())
    assert list(schedule.dependents("a")) == ["b"]
    assert list(schedule.dependents("c")) == []


def test_settling_again_changes_nothing():
    schedule = Schedule({"c": ["a", "b"]}, ())
    assert list(schedule.settle("a", ok=True)) == []
    assert list(schedule.settle("a", ok=True)) == []
    assert list(schedule.settle("b", ok=True)) == [("c", True)]
