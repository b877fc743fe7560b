import json
import os

import pytest
from cli_site import Site

WORKFLOW = (
    ("a", "echo a > x", {"cores": 2, "time_limit_minutes": 30, "outputs": ["x"]}),
    ("b", "echo b > x", {"cores": 2, "time_limit_minutes": 30, "env": {"NAME": "it's"}}),
    ("c", "cat x", {"files": {"x": {"task": "a", "output": "x"}}, "image": "a.sif"}),
    ("d", "cat y", {"files": {"y": "hello"}, "dependencies": ["c"], "profile": "laptop"}),
)
PROFILES = """\
default: hpc
profiles:
  laptop: {backend: local, workspace_root: ./runs, max_concurrent_tasks: 2}
  hpc:
    backend: slurm
    ssh: {hostname: 127.0.0.1, port: 9, username: me}
    workspace_root: /scratch/me
    slurm: {account: m1234, modules: [vasp/6.3]}
  bad:
    backend: slurm
    workspace_root: here
"""


@pytest.fixture
def profiles(project):
    project.write("matterstack.yaml", PROFILES)
    return project


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


@pytest.fixture
def on_site(project, site):
    """A project with the profile ``here`` for the login node of a site, and ways to check it."""
    project.env["PATH"] = site.path

    def check(lines="", code=0):
        project.write(
            "matterstack.yaml",
            f"profiles: {{here: {{backend: slurm, workspace_root: {project.path}/work{lines}}}}}",
        )
        found = project.json("profiles", "check", "here", code=code)
        assert found["ok"] is (code == 0)
        assert not (project.path / "work").exists()
        return {one["what"]: (one["verdict"], one["detail"]) for one in found["findings"]}

    return check


# ---- list and show -------------------------------------------------------------------------------


def test_the_list_has_name_backend_place_and_file_of_each(profiles):
    lines = [line.split() for line in profiles.ms("profiles", "list").stdout.splitlines()]
    file = str(profiles.path / "matterstack.yaml")
    assert lines == [
        ["NAME", "BACKEND", "WHERE", "FILE"],
        ["bad", "slurm", "cannot", "be", "used,", "see", "`show`", file],
        ["hpc", "(default)", "slurm", "me@127.0.0.1:/scratch/me", file],
        ["laptop", "local", f"{profiles.path}/runs", file],
        ["local", "local", f"{profiles.path}/results", "built", "in"],
    ]


def test_the_list_in_json(profiles):
    rows = {row["name"]: row for row in profiles.json("profiles", "list")}
    assert [name for name, row in rows.items() if row["default"]] == ["hpc"]
    assert rows["local"]["file"] is None
    assert "must be an absolute path" in rows["bad"]["problem"]


def test_a_list_without_any_file_has_the_built_in_one(project):
    assert [row["name"] for row in project.json("profiles", "list")] == ["local"]


def test_the_built_in_one_has_its_results_beside_the_journal(project):
    below = project.path / "a/b"
    below.mkdir(parents=True)
    (project.path / ".matterstack").mkdir()
    (project.path / ".matterstack/journal.db").touch()
    assert f"{project.path}/results" in project.ms("profiles", "list", cwd=below).stdout


@pytest.mark.parametrize("name", ["hpc", "laptop"])
def test_what_is_shown_is_a_file_that_says_the_same(profiles, name):
    shown = profiles.ms("profiles", "show", name).stdout
    assert shown.startswith(f"# {profiles.path}/matterstack.yaml\n")
    given = profiles.write("elsewhere/shown.yaml", shown)
    again, first = profiles.json("profiles", "show", name, "--config", given), profiles.json("profiles", "show", name)
    assert again == {**first, "file": str(given)}


def test_without_a_name_the_one_is_shown_that_a_run_would_use(profiles):
    found = profiles.json("profiles", "show")
    assert (found["name"], found["workspace_root"]) == ("hpc", "/scratch/me")
    assert found["slurm"] == {"account": "m1234", "modules": ["module load vasp/6.3"]}


def test_a_backend_of_its_own_is_shown_as_what_it_is(project):
    project.write(
        "config/profiles.py",
        """\
        from matterstack import ComputeBackend
        class Mine(ComputeBackend):
            submit = poll = get_logs = cancel = None
        profiles = {"mine": Mine()}
        """,
    )
    assert "# a Mine object, which only that file can make" in project.ms("profiles", "show", "mine").stdout
    assert project.json("profiles", "list")[1]["backend"] == "Mine"
    assert "a Mine cannot be checked" in project.fails("profiles", "check", "mine")


@pytest.mark.parametrize("action", ["list", "show", "check"])
def test_an_unknown_profile_cannot_be_shown_or_checked(profiles, action):
    assert "no profile 'hcp'. Did you mean 'hpc'?" in profiles.fails("profiles", action, "hcp")


@pytest.mark.parametrize("action", ["show", "check"])
def test_a_mistake_in_the_profile_is_told_with_its_line(profiles, action):
    message = profiles.fails("profiles", action, "bad")
    assert f"{profiles.path}/matterstack.yaml:11: profiles.bad.workspace_root: must be an absolute path" in message


def test_an_unknown_action_is_refused(project):
    done = project.ms("profiles", "chek", code=2)
    assert "invalid choice: 'chek'" in done.stderr


# ---- check ---------------------------------------------------------------------------------------


def test_a_local_profile_is_checked_and_nothing_is_left_behind(profiles):
    done = profiles.ms("profiles", "check", "laptop")
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    assert [what for _, what in words] == ["workspace", "bash", "free"]
    assert {verdict for verdict, _ in words} <= {"ok", "warning"}
    assert f"{profiles.path}/runs, to be made in {profiles.path}" in done.stdout
    assert os.listdir(profiles.path) == ["matterstack.yaml"]


def test_a_local_workspace_that_cannot_be_made_fails(project):
    project.write("matterstack.yaml", "profiles: {a: {backend: local, workspace_root: ./matterstack.yaml/x}}")
    done = project.ms("profiles", "check", "a", code=1)
    assert done.stdout.startswith("FAILED   workspace ")
    assert "matterstack.yaml: Not a directory" in done.stdout


def test_a_host_that_is_not_reached_fails_and_says_why(profiles):
    done = profiles.ms("profiles", "check", "hpc", code=1)
    assert done.stdout.startswith("FAILED   connection ")
    assert "nothing listens on port 9 of 127.0.0.1" in done.stdout


def test_a_site_is_reported_line_by_line_and_nothing_is_left_behind(project, site, on_site):
    found = on_site()
    assert list(found) == [
        *("login", "shell noise", "clock", "Slurm commands", "Slurm version", "controller", "partitions"),
        *("partition", "accounting", "account", "QOS", "MaxArraySize", "MinJobAge", "workspace", "file system"),
        *("free space", "tar", "container runtime"),
    ]
    assert {what for what, (verdict, _) in found.items() if verdict == "FAILED"} == set()
    assert found["Slurm version"] == ("ok", "slurm-wlm 22.05.8")
    assert found["controller"] == ("ok", "answers; jobs of yours: 2")
    assert found["partition"][1].startswith("work (the default): 2 nodes")
    assert found["MaxArraySize"] == ("ok", "10,001")
    assert os.listdir(project.path) == ["matterstack.yaml"]
    printed = project.ms("profiles", "check", "here").stdout
    assert [line.split()[0] for line in printed.splitlines()] == [verdict for verdict, _ in found.values()]


SLURM = ", slurm: {{{}}}"


@pytest.mark.parametrize(
    ("lines", "what", "detail"),
    [
        (SLURM.format("partition: wrok"), "partition", "there is no 'wrok'. Did you mean 'work'?"),
        (SLURM.format('partition: "work,far"'), "partition", "there is no 'far'. Known: "),
        (SLURM.format("account: act"), "account", "you may not charge 'act'. Did you mean 'acct'?"),
        (SLURM.format("qos: nrmal"), "QOS", "not with this account: 'nrmal'. Did you mean 'normal'?"),
        (
            SLURM.format("modules: ['true || true', 'echo no such module; false']"),
            "modules",
            "did not work: no such module",
        ),
        (", max_array: 20000", "MaxArraySize", "10,001, below max_array 20,000; set `max_array: 10001`"),
    ],
)
def test_what_the_profile_asks_and_the_site_has_not_fails(on_site, lines, what, detail):
    verdict, found = on_site(lines, code=1)[what]
    assert verdict == "FAILED"
    assert detail in found


def test_modules_are_loaded_as_a_job_does_it_and_may_bring_the_container_runtime(on_site, tmp_path):
    runtime = tmp_path / "modules/apptainer"
    runtime.parent.mkdir()
    runtime.write_text("#!/bin/sh\n")
    runtime.chmod(0o755)
    found = on_site(SLURM.format(f"modules: ['PATH=$PATH:{runtime.parent}']"))
    assert found["modules"][0] == "ok"
    assert found["container runtime"] == ("ok", str(runtime))


DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


def test_a_controller_that_does_not_answer_fails(site, on_site):
    for name in ("squeue", "scontrol.config", "scontrol.partition"):
        site.says(name, "", DOWN, 1)
    found = on_site(code=1)
    assert found["controller"] == ("FAILED", f"squeue got no answer: {DOWN.strip()}")
    assert found["settings"][0] == "warning"
    assert "partition" not in found


def test_commands_that_do_not_run_fail(site, on_site):
    site.says("sbatch", "", "sbatch: fatal: Could not establish a configuration source\n", 1)
    assert on_site(code=1)["Slurm version"] == (
        "FAILED",
        "sbatch does not run: sbatch: fatal: Could not establish a configuration source",
    )


def test_a_partition_that_is_down_is_a_warning(site, on_site):
    site.change("scontrol.partition", "State=UP", "State=DOWN")
    assert on_site()["partition"] == ("warning", "work (the default): 2 nodes, jobs of any length; it is not up")


def test_a_site_without_a_default_partition_wants_one_named(site, on_site):
    site.change("scontrol.partition", "Default=YES", "Default=NO")
    assert on_site(code=1)["partition"][1] == "there is no default; name one as `partition` in `slurm`"
    assert on_site(SLURM.format("partition: urgent"))["partition"][1] == "urgent: 2 nodes, jobs up to 0:30 h"


def test_accounting_that_is_off_is_a_warning_and_nothing_is_asked_of_it(site, on_site):
    site.change("scontrol.config", "accounting_storage/slurmdbd", "accounting_storage/none")
    for name in ("sacct", "sacctmgr.assoc", "sacctmgr.qos"):
        site.says(name, "", "Slurm accounting storage is disabled\n", 1)
    found = on_site(SLURM.format("account: any"))
    assert found["accounting"] == ("warning", "off; how a job ended is told by its own record only")
    assert "account" not in found


def test_accounting_that_does_not_answer_is_a_warning(site, on_site):
    for name in ("sacct", "sacctmgr.assoc"):
        site.says(name, "", "sacct: error: Problem talking to the database: Connection refused\n", 1)
    found = on_site()
    assert found["accounting"][0] == found["account"][0] == "warning"
    assert "Connection refused" in found["accounting"][1]


def test_accounts_that_are_not_enforced_are_only_warned_of(site, on_site):
    site.change("scontrol.config", "= associations,limits,qos", "= none")
    assert on_site(SLURM.format("account: act, qos: nrmal"))["account"][0] == "warning"


def test_limits_are_told(site, on_site):
    site.says("sacctmgr.assoc", "acct||normal,long|||50\nacct|work|normal||10|\nother||normal||1|1\n")
    site.says("sacctmgr.qos", "normal|4||2-00:00:00\nlong||2|\nsecret|1|1|\n")
    found = on_site(SLURM.format("account: acct, qos: normal"))
    assert found["account"][1] == "acct: at most 10 running and 50 submitted jobs of yours at once; the rest waits here"
    assert (
        found["QOS"][1] == "normal: at most 4 running jobs of yours at once; the rest waits here, jobs up to 2 d 0:00 h"
    )
    assert on_site(SLURM.format("account: acct, qos: secret"), code=1)["QOS"][0] == "FAILED"


@pytest.mark.parametrize(("version", "verdict"), [("slurm 20.02.5", "warning"), ("slurm 25.05.1-1", "ok")])
def test_old_releases_of_slurm_are_a_warning(site, on_site, version, verdict):
    site.says("sbatch", f"{version}\n")
    assert on_site()["Slurm version"][0] == verdict


@pytest.mark.parametrize(
    ("size", "lines", "code"), [("1", "", 1), ("0", "", 1), ("1", SLURM.format("arrays: false"), 0), ("1000", "", 0)]
)
def test_arrays_must_fit_the_site(site, on_site, size, lines, code):
    site.change("scontrol.config", "= 10001", f"= {size}")
    assert on_site(lines, code=code)["MaxArraySize"][0] == ("FAILED" if code else "ok")


@pytest.mark.parametrize(("shift", "words"), [(-3600, "behind ours"), (3600, "ahead of ours"), (0, "as ours")])
def test_a_clock_that_differs_is_a_warning(site, on_site, shift, words):
    site.command("date", f'#!/bin/sh\nPATH=/usr/bin:/bin\nexec date -d "@$(($(date +%s) + {shift}))" "$@"\n')
    verdict, detail = on_site()["clock"]
    assert verdict == ("warning" if shift else "ok")
    assert words in detail


def test_a_workspace_without_links_or_below_a_file_fails(project, site, on_site):
    site.command("ln", "#!/bin/sh\necho 'ln: Operation not permitted' >&2\nexit 1\n")
    assert on_site(code=1)["workspace"] == (
        "FAILED",
        f"{project.path}/work cannot be used: ln: Operation not permitted",
    )
    site.command("ln", '#!/bin/sh\nexec cp "$@"\n')
    assert on_site(code=1)["workspace"][1].endswith("cannot be used: links to files do not count there")
    assert os.listdir(project.path) == ["matterstack.yaml"]


@pytest.mark.parametrize(
    ("free", "files", "verdict"), [(0, 50_000, "FAILED"), (9_000_000, 0, "FAILED"), (1000, 50_000, "warning")]
)
def test_a_full_file_system_is_told(site, on_site, free, files, verdict):
    row = "echo 'Filesystem x y z Use Mounted'; echo '/dev/a 90000000 1 {} 1% /'"
    site.command("df", f"#!/bin/sh\ncase $1 in -Pk) {row.format(free)};; *) {row.format(files)};; esac\n")
    assert on_site(code=1 if verdict == "FAILED" else 0)["free space"][0] == verdict


def test_a_tar_that_is_missing_fails(site, on_site):
    site.command("tar", "#!/bin/sh\necho 'tar: not today' >&2\nexit 1\n")
    assert on_site(code=1)["tar"] == ("FAILED", "does not run: tar: not today")


# ---- dry run -------------------------------------------------------------------------------------


def dry(project, *arguments):
    return project.json("run", "wf.yaml", "--dry-run", *arguments)["submissions"]


def test_a_dry_run_shows_every_script_and_option_and_leaves_no_trace(profiles):
    profiles.workflow(*WORKFLOW)
    before = sorted(os.listdir(profiles.path))
    array, lone, local = dry(profiles)
    assert sorted(os.listdir(profiles.path)) == before
    assert [one["profile"] for one in (array, lone, local)] == ["hpc", "hpc", "laptop"]
    assert (array["array"], [task["task"] for task in array["tasks"]]) == ("0-1", ["a", "b"])
    assert {"--account=m1234", "--cpus-per-task=2", "--time=0-00:30:00", "--no-requeue"} <= set(array["directives"])
    assert [f"#SBATCH {one}" for one in array["directives"]] == [
        line for line in array["script"].splitlines() if line.startswith("#SBATCH")
    ]
    assert "module load vasp/6.3 || exit" in array["script"].splitlines()
    assert [task["directory"] for task in array["tasks"]] == ["/scratch/me/demo/a/1", "/scratch/me/demo/b/1"]
    assert "MATTERSTACK_TASK=b" in array["tasks"][1]["environment"]
    assert (lone["array"], lone["tasks"][0]["files"]) == ("", {"x": "x of a"})
    assert "apptainer exec" in lone["script"]
    assert local == {
        "profile": "laptop",
        "backend": "local",
        "tasks": [{"task": "d", "command": "cat y", "files": {"y": "text of 5 characters"}}],
    }


def test_a_dry_run_in_words_is_a_script_with_titles(profiles):
    profiles.workflow(*WORKFLOW)
    text = profiles.ms("run", "wf.yaml", "--dry-run").stdout
    for part in ("== hpc: array of 2 tasks, elements 0-1\n#!/bin/sh\n#SBATCH --job-name=demo.ms-", "\necho b > x\n"):
        assert part in text
    assert "-- hpc: element 1, task b in /scratch/me/demo/b/1\n" in text
    assert text.endswith("demo: 4 tasks in 3 submissions. Nothing was submitted.\n")


def test_a_dry_run_with_a_local_profile_lists_the_commands_in_order(profiles):
    profiles.workflow(("last", "echo 2", {"dependencies": ["first"]}), ("first", "echo 1"))
    done = profiles.ms("run", "wf.yaml", "--dry-run", "--profile", "local").stdout
    assert done == (
        "-- local: task first\necho 1\n\n-- local: task last\necho 2\n\n"
        "demo: 2 tasks in 2 submissions. Nothing was submitted.\n"
    )


def test_a_dry_run_splits_arrays_as_the_profile_says(profiles):
    profiles.workflow(*((f"t{i}", "true") for i in range(5)))
    profiles.write(
        "matterstack.yaml", PROFILES.replace("workspace_root: /scratch/me", "workspace_root: /s\n    max_array: 2")
    )
    assert [one["array"] for one in dry(profiles)] == ["0-1", "0-1", ""]
    profiles.write("matterstack.yaml", PROFILES.replace("account: m1234", "arrays: false"))
    assert [one["array"] for one in dry(profiles)] == [""] * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "laptp"}, "no profile 'laptp'. Did you mean 'laptop'?"),
        ({"profile": "bad"}, "must be an absolute path on the cluster"),
        ({"profile": "../x"}, "profile: must be the name of a profile"),
        ({"dependencies": ["b"]}, "tasks wait for each other"),
        ({"files": {"x": {"path": "gone"}}}, "input file"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would_refuse(profiles, change, words):
    profiles.workflow(("a", "true", change), ("b", "true", {"dependencies": ["a"]}))
    assert words in profiles.fails("run", "wf.yaml", "--dry-run")
    assert not (profiles.path / ".matterstack").exists()


def test_a_dry_run_refuses_a_run_id_that_is_none(profiles):
    profiles.workflow(("a", "true"))
    assert "run id '-x'" in profiles.fails("run", "wf.yaml", "--dry-run", "--run=-x")


def test_one_campaign_may_use_two_profiles(project):
    project.write(
        "matterstack.yaml",
        "profiles: {one: {backend: local, workspace_root: ./one}, two: {backend: local, workspace_root: ./two}}",
    )
    project.workflow(
        ("a", "date > x", {"outputs": ["x"]}),
        ("b", "cat x", {"files": {"x": {"task": "a", "output": "x"}}, "profile": "two"}),
    )
    project.ms("run", "wf.yaml", "--profile", "one")
    assert (project.path / "one/demo/a/1/x").read_text() == (project.path / "two/demo/b/1/stdout.txt").read_text()


def test_the_list_can_be_read_by_json_line(profiles):
    assert json.loads(profiles.ms("profiles", "list", "hpc", "--json").stdout)[0]["name"] == "hpc"
