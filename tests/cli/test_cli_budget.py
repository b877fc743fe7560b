import pytest


@pytest.fixture
def limits(project):
    """A workflow of three tasks, one of which may be tried again and one of which has no limit."""
    project.workflow(
        ("a", "true", {"cores": 2, "time_limit_minutes": 30}),
        ("b", "exit 1", {"cores": 2, "time_limit_minutes": 60, "retry": "always", "max_attempts": 4}),
        ("c", "true", {"dependencies": ["b"]}),
    )
    return project


def test_an_estimate_before_anything_ran(limits):
    told = limits.ms("run", "wf.yaml", "--estimate").stdout
    assert told.splitlines() == [
        "TASK  CORES  MINUTES   ATTEMPTS  CORE HOURS",
        "c     1      no limit  1         no limit",
        "b     2      60        4         8",
        "a     2      30        1         1",
        "demo: at most 9 core hours for 2 tasks with a time limit.",
        "no limit: 1 task can use any number beside that: c",
        "Nothing was submitted.",
    ]
    assert {path.name for path in limits.path.iterdir()} == {"wf.yaml"}


def test_an_estimate_leaves_out_what_would_not_run_again(limits):
    limits.ms("run", "wf.yaml", code=1)
    before = limits.ms("history").stdout
    told = limits.json("run", "wf.yaml", "--estimate")
    assert (told["tasks"], told["over"], told["core_hours"]) == ([], 3, 0)
    told = limits.json("run", "wf.yaml", "--estimate", "--retry-failed")
    assert [one["task"] for one in told["tasks"]] == ["b", "c"], "what failed with it runs again as well"
    assert told["no_limit"] == ["c"]
    assert told["used_core_hours"] > 0
    told = limits.json("run", "wf.yaml", "--estimate", "--rerun", "a")
    assert [(one["task"], one["core_hours"]) for one in told["tasks"]] == [("a", 1)]
    assert limits.ms("history").stdout == before


def test_an_estimate_knows_what_the_workflow_changes(limits):
    limits.ms("run", "wf.yaml", code=1)
    limits.workflow(("a", "echo new", {"cores": 4, "time_limit_minutes": 30}), ("b", "true"))
    told = limits.json("run", "wf.yaml", "--estimate")
    assert [(one["task"], one["core_hours"]) for one in told["tasks"]] == [("a", 2), ("b", None)]


def test_an_estimate_takes_the_policy_and_the_budget_of_the_profile(limits):
    limits.write("matterstack.yaml", "profiles: {local: {backend: local, retry: always, budget_core_hours: 7}}")
    told = limits.json("run", "wf.yaml", "--estimate")
    assert [(one["task"], one["attempts"]) for one in told["tasks"]] == [("a", 3), ("b", 4), ("c", 3)]
    assert (told["budget_core_hours"], told["used_core_hours"]) == (7, 0)
    assert "0 of the budget of 12.0 core hours" in limits.ms("run", "wf.yaml", "--estimate", "--budget", 12).stdout


def test_an_estimate_refuses_what_a_run_would(limits):
    assert "no task 'd'" in limits.fails("run", "wf.yaml", "--estimate", "--rerun", "d")
    assert "no profile 'locl'" in limits.fails("run", "wf.yaml", "--estimate", "--profile", "locl")
    assert "run id '../x'" in limits.fails("run", "wf.yaml", "--estimate", "--run", "../x")


def test_a_used_up_budget_is_told_everywhere_and_a_higher_one_goes_on(limits):
    limits.workflow(("a", "true"), ("b", "true"))
    done = limits.ms("run", "wf.yaml", "--budget", "0", code=1)
    assert "Stopped: the budget of 0 core hours is reached" in done.stderr
    assert "`matterstack resume demo --budget N`" in done.stderr
    assert "[paused: the budget of 0 core hours is reached" in done.stderr
    assert done.stdout == "demo: 0 of 2 tasks COMPLETED, 2 PENDING\n"
    told = limits.ms("status").stdout
    assert "(its budget is used up; `matterstack resume demo --budget N`, N above that, goes on)" in told
    assert "budget      0 of 0 core hours are used" in told
    assert limits.json("status")["budget"] == {"limit": 0, "used": 0, "stopped": True}
    assert limits.json("resume", code=1)["budget"]["stopped"]
    assert limits.json("resume", "--budget", 1)["ok"]
    assert "budget" in limits.ms("status").stdout


@pytest.mark.parametrize("command", [("run", "wf.yaml"), ("resume",), ("retry", "demo")])
@pytest.mark.parametrize("budget", ["-1", "nan", "inf", "ten", ""])
def test_what_is_no_budget_is_refused(limits, command, budget):
    limits.ms("run", "wf.yaml", code=1)
    before = limits.ms("history").stdout
    told = limits.fails(*command, f"--budget={budget}")
    assert told.count("\n") == 1
    assert "must be a number of core hours" in told
    assert limits.ms("history").stdout == before


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "ten", "[1]", "true"])
def test_a_profile_without_sense_is_refused_with_its_line(limits, value):
    limits.write("matterstack.yaml", f"profiles:\n  local:\n    backend: local\n    budget_core_hours: {value}\n")
    told = limits.fails("run", "wf.yaml")
    assert "matterstack.yaml:4: profiles.local.budget_core_hours: " in told
    assert "Nothing was started." in told


def test_the_budget_of_a_run_that_is_driven_cannot_be_changed(limits):
    limits.workflow(("bad", "exit 1"), ("waits", "while [ ! -e ../../../../go ]; do sleep 0.02; done"))
    process = limits.start("run", "wf.yaml")
    limits.until_state("bad", "FAILED")
    assert "run 'demo' is driven by process" in limits.fails("retry", "demo", "--budget", 5)
    limits.write("go", "")
    process.communicate(timeout=30)
    assert process.returncode == 1
