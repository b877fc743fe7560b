"""A run with a budget: what is submitted until it is used up, and after it was raised."""

from __future__ import annotations

import pytest
from campaigns import check_journal, events, states

from matterstack import Task, Workflow, api, run_workflow
from matterstack.errors import RunError
from matterstack.history import History
from matterstack.runtime.run import Options
from matterstack.runtime.settings import Settings

TINY = 1e-9


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "j.db"


def counted(tmp_path, count, then="true"):
    return [Task(f"echo line >>{tmp_path}/ran; {then}", f"t{i}") for i in range(count)]


def ran(tmp_path):
    path = tmp_path / "ran"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def used_up(local, journal, tmp_path):
    """A run of four whose budget was used up while the first ran."""
    gate, told = tmp_path / "gate", []

    def observe(now):
        if "the budget of" in now.trouble and now.running:
            told.append(now)
            gate.touch()

    workflow = Workflow("run", counted(tmp_path, 4, f"while [ ! -e {gate} ]; do sleep 0.02; done"))
    backend = local(slots=1)
    result = run_workflow(workflow, backend=backend, journal=journal, budget_core_hours=TINY, progress=observe)
    assert told
    return result


def test_a_used_up_budget_lets_tasks_go_on_and_submits_nothing_more(used_up, journal, tmp_path):
    assert states(used_up) == {"t0": "COMPLETED", "t1": "PENDING", "t2": "PENDING", "t3": "PENDING"}
    assert not used_up.ok
    assert used_up.budget.stopped
    assert used_up.budget.used > used_up.budget.limit == TINY
    assert ran(tmp_path) == 1
    with History(journal) as history:
        stopped = list(history.events("run"))[-1]
        assert (stopped.type, stopped.data["why"]) == ("RunStopped", "budget")
        assert "core hours is reached" in stopped.data["detail"]
    check_journal(journal)


def test_resuming_within_the_same_budget_submits_nothing(used_up, journal, local, tmp_path):
    before = len(events(journal, "run", "SubmitRequested"))
    again = api.resume("run", backend=local(slots=1), journal=journal, options=Options(budget=TINY))
    assert len(events(journal, "run", "SubmitRequested")) == before
    assert again.budget.stopped
    assert ran(tmp_path) == 1


def test_resuming_takes_the_budget_as_it_was_recorded(tmp_path, journal):
    (tmp_path / "matterstack.yaml").write_text("profiles: {local: {backend: local, budget_core_hours: 0}}")
    first = run_workflow(Workflow("run", counted(tmp_path, 1)), journal=journal)
    assert (first.budget.limit, first.budget.stopped) == (0, True)
    (tmp_path / "matterstack.yaml").unlink()
    assert api.resume("run", journal=journal).budget.stopped
    assert api.resume("run", journal=journal, options=Options(budget=1)).ok
    with History(journal) as history:
        assert history.status("run").profile["budget_core_hours"] == 1


def test_a_raised_budget_goes_on_and_runs_nothing_twice(used_up, journal, local, tmp_path):
    result = api.resume("run", backend=local(slots=2), journal=journal, options=Options(budget=1000))
    assert result.ok
    assert not result.budget.stopped
    assert ran(tmp_path) == 4
    check_journal(journal)


def test_what_was_used_before_counts_in_a_later_controller(used_up, journal, local):
    more = used_up.budget.used * 0.9
    again = api.resume("run", backend=local(slots=1), journal=journal, options=Options(budget=more))
    assert again.budget.stopped
    assert again.budget.used == used_up.budget.used


def test_a_run_that_ends_as_its_budget_does_is_finished(local, journal, tmp_path):
    gate = tmp_path / "gate"

    def observe(now):
        if now.trouble:
            gate.touch()

    workflow = Workflow("run", [Task(f"while [ ! -e {gate} ]; do sleep 0.02; done", "t")])
    result = run_workflow(workflow, backend=local(), journal=journal, budget_core_hours=TINY, progress=observe)
    assert result.ok
    assert not result.budget.stopped


def test_a_run_without_a_budget_has_none(local, journal, tmp_path):
    assert run_workflow(Workflow("run", counted(tmp_path, 2)), backend=local(), journal=journal).budget is None


@pytest.mark.parametrize("budget", [-1, float("nan"), float("inf"), "ten", True])
def test_what_is_no_budget_is_refused_and_starts_nothing(local, journal, tmp_path, budget):
    with pytest.raises(RunError, match=r"the budget must be a number of core hours.*Nothing was started"):
        run_workflow(Workflow("run", counted(tmp_path, 1)), backend=local(), journal=journal, budget_core_hours=budget)
    assert not journal.exists()
    assert not ran(tmp_path)


def test_of_several_profiles_the_smallest_budget_counts_unless_one_is_given(tmp_path, journal):
    profiles = "{a: {backend: local, budget_core_hours: 5}, b: {backend: local, budget_core_hours: 3}}"
    (tmp_path / "matterstack.yaml").write_text(f"profiles: {profiles}")
    workflow = Workflow("run", [Task("true", "one"), Task("true", "two", profile="b")])
    assert run_workflow(workflow, "a", journal=journal).budget.limit == 3
    result = run_workflow(workflow, "a", journal=journal, budget_core_hours=7, rerun=["one"])
    assert result.budget.limit == 7
    assert result.ok


def test_a_given_budget_stands_in_the_profile_that_is_recorded(local):
    profile = {"name": "a", "budget_core_hours": 1}
    settings = Settings(local(), profile, {"b": Settings(local(), profile)}).with_budget(2)
    assert [one.profile["budget_core_hours"] for one in settings.each()] == [2, None]
    assert profile["budget_core_hours"] == 1
