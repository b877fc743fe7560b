import json
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from matterstack import Task, Workflow, run_workflow
from matterstack.config.profiles import Profiles, open_backend, resolve, settings, settings_for
from matterstack.config.slurm_profile import SlurmProfile
from matterstack.errors import ConfigError, UnknownName
from matterstack.runtime.backends.hpc.backend import SlurmBackend
from matterstack.runtime.backends.hpc.waits import Waits

ROOT = Path(__file__).resolve().parents[2]

EXAMPLE = """\
profiles:
  hpc_prod:
    backend: slurm
    ssh:
      hostname: perlmutter.nersc.gov
      username: user123
      key_filename: ~/.ssh/id_rsa
      port: 22
      known_hosts: ~/.ssh/known_hosts
    workspace_root: /global/cscratch1/sd/user123/matterstack_runs
    slurm: {account: m1234, partition: regular, modules: ["module load python/3.9", "module load vasp/6.3"]}
"""


@pytest.fixture(autouse=True)
def here(project):
    return project


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def slurm(here, lines="", root="/scratch/runs"):
    """Write a Slurm profile ``a`` with more lines, indented as they are; return it."""
    text = f"profiles:\n  a:\n    backend: slurm\n    workspace_root: {root}\n{textwrap.indent(lines, '    ')}\n"
    write(here / "matterstack.yaml", text)
    return Profiles().choose("a")


def test_the_example_of_the_design_resolves(here):
    write(here / "matterstack.yaml", EXAMPLE)
    found = resolve(Profiles().choose("hpc_prod"))
    assert found == {
        "name": "hpc_prod",
        "backend": "slurm",
        "ssh": {
            "hostname": "perlmutter.nersc.gov",
            "username": "user123",
            "key_filename": "~/.ssh/id_rsa",
            "port": 22,
            "known_hosts": "~/.ssh/known_hosts",
            "connect_timeout_s": 20,
            "keepalive_s": 30,
            "agent": True,
            "transport": "paramiko",
            "ssh_config": "~/.ssh/config",
        },
        "workspace_root": "/global/cscratch1/sd/user123/matterstack_runs",
        "slurm": {
            "account": "m1234",
            "partition": "regular",
            "modules": ["module load python/3.9", "module load vasp/6.3"],
        },
        "results_root": str(here / "results"),
        "retrieve": "declared",
        "waits": msgspec.structs.asdict(Waits()),
        "max_array": 1000,
    }


@pytest.mark.parametrize("lines", ["", "ssh: {hostname: login, proxy_jump: gate}\nretrieve: all\nwaits: {grace_s: 3}"])
def test_what_is_resolved_is_what_the_backend_says_of_itself_and_makes_it_again(here, lines):
    found = settings(slurm(here, lines))
    assert isinstance(found.backend, SlurmBackend)
    assert {"name": "a", **found.backend.settings()} == found.profile
    again = open_backend(json.loads(json.dumps(found.profile)))
    assert again.settings() == found.backend.settings()


def test_without_ssh_it_is_for_the_login_node_itself(here):
    found = settings(slurm(here))
    assert "ssh" not in found.profile
    assert found.backend.transport.name == "this machine"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("./back", "{project}/back"),
        ("../back", "{project}/../back"),
        ("~/back", "{project}/../home/back"),
        ("/back", "/back"),
    ],
)
def test_results_come_to_where_the_file_says(here, monkeypatch, written, expected):
    profile = slurm(here, f"results_root: {written}")
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    place = Path(resolve(profile)["results_root"])
    assert place == Path(expected.format(project=here)).resolve()
    assert settings(profile).backend.results == place


@pytest.mark.parametrize(
    ("written", "expected"), [("keys/id", "{project}/keys/id"), ("~/.ssh/id", "~/.ssh/id"), ("/k/id", "/k/id")]
)
def test_files_for_ssh_start_from_the_profiles_file_too(here, monkeypatch, written, expected):
    profile = slurm(here, f"ssh: {{hostname: h, key_filename: {written}, known_hosts: {written}}}")
    monkeypatch.chdir("/")
    ssh = resolve(profile)["ssh"]
    assert ssh["key_filename"] == ssh["known_hosts"] == expected.format(project=here)


def test_settings_of_slurm_may_be_options_of_sbatch_and_are_kept_as_they_are_meant(here):
    profile = slurm(here, "slurm: {nodes: 2, mail-type: END, exclusive: true, modules: [vasp/6.3], requeue: true}")
    assert resolve(profile)["slurm"] == {
        "nodes": "2",
        "mail-type": "END",
        "exclusive": True,
        "modules": ["module load vasp/6.3"],
        "requeue": True,
    }


@pytest.mark.parametrize("backend", ["local", "slurm"])
@pytest.mark.parametrize("retry", ["never", "if-not-started", "infrastructure", "always"])
def test_a_profile_may_say_what_its_tasks_are_retried_for(here, backend, retry):
    write(here / "matterstack.yaml", f"profiles: {{a: {{backend: {backend}, workspace_root: /w, retry: {retry}}}}}")
    found = settings(Profiles().choose("a"))
    assert found.profile["retry"] == retry
    open_backend(found.profile)


@pytest.mark.parametrize(
    "value",
    [
        "{'backend': 'slurm', 'ssh': {'hostname': 'h', 'key_filename': Path('k')}, 'workspace_root': Path('/w')}",
        "{'backend': 'slurm', 'ssh': SSHConfig('h', key_filename='k'), 'workspace_root': '/w'}",
        "{'backend': 'slurm', 'ssh': SSHConfig('h', key_filename=Path('k')), 'workspace_root': '/w/'}",
    ],
)
def test_a_python_file_may_hold_the_same_keys(here, value):
    head = "from pathlib import Path\nfrom matterstack.runtime.transports.ssh_config import SSHConfig\n"
    write(here / "config/profiles.py", f"{head}profiles = {{'a': {value}}}\n")
    found = settings(Profiles().choose("a"))
    assert isinstance(found.backend, SlurmBackend)
    assert (found.profile["ssh"]["hostname"], found.profile["workspace_root"]) == ("h", "/w")
    assert found.profile["ssh"]["key_filename"] == str(here / "k")


def test_a_python_file_may_hold_a_backend_which_the_journal_can_make_again(here):
    write(
        here / "config/profiles.py",
        """\
        from matterstack.runtime.backends.hpc.backend import SlurmBackend
        from matterstack.runtime.transports.ssh_config import SSHConfig
        profiles = {"a": SlurmBackend(SSHConfig("h"), "/w", {"account": "x"}, retrieve="none")}
        """,
    )
    found = settings(Profiles().choose("a"))
    assert (found.profile["name"], found.profile["slurm"]) == ("a", {"account": "x"})
    assert open_backend(found.profile).settings() == found.backend.settings()


def test_of_a_python_and_a_yaml_file_the_python_file_counts(here):
    write(here / "config/profiles.py", "profiles = {'a': {'backend': 'slurm', 'workspace_root': '/from/python'}}\n")
    write(here / "config/profiles.yaml", "profiles: {a: {backend: slurm, workspace_root: /from/yaml}}\n")
    assert resolve(Profiles().choose("a"))["workspace_root"] == "/from/python"


# Lines of profile `a`, which begin on line 5; the line of the mistake; words of the message.
BAD = [
    ("root: /x", 5, "profiles.a: unknown key 'root'"),
    ("retrive: all", 5, "profiles.a: unknown key 'retrive'. Did you mean 'retrieve'?"),
    ("max_concurrent_tasks: 4", 5, "profiles.a: unknown key 'max_concurrent_tasks'"),
    ("ssh: login.example.org", 5, "profiles.a.ssh: expected a mapping of keys to values, got text"),
    ("ssh:", 5, "profiles.a.ssh: expected a mapping of keys to values, got nothing"),
    ("ssh:\n  username: u", 5, "profiles.a.ssh: missing key 'hostname'"),
    ("ssh:\n  hostname: h\n  usename: u", 7, "profiles.a.ssh: unknown key 'usename'. Did you mean 'username'?"),
    ("ssh:\n  hostname: h\n\n  port: '22'", 8, "profiles.a.ssh.port: expected a whole number or nothing, got text"),
    ("ssh:\n  hostname: h\n  port: 70000", 7, "profiles.a.ssh.port: must be from 1 to 65535, not 70000"),
    ("ssh:\n  hostname: u@h", 6, "profiles.a.ssh.hostname: must be a host only, not 'u@h'"),
    ("ssh:\n  hostname: '-oProxyCommand=x'", 6, "profiles.a.ssh.hostname: must be the name or address of a host"),
    ("ssh:\n  hostname: h\n  proxy_jump: a b", 7, "profiles.a.ssh.proxy_jump: must be [user@]host[:port]"),
    ("ssh:\n  hostname: h\n  agent: 1", 7, "profiles.a.ssh.agent: expected true or false, got a whole number"),
    ("ssh:\n  hostname: h\n  transport: opnssh", 7, "ssh.transport: there is no 'opnssh'. Did you mean 'openssh'?"),
    ("ssh:\n  hostname: h\n  transport: ftp", 7, "ssh.transport: there is no 'ftp'. Known: openssh, paramiko"),
    ("ssh:\n  hostname: h\n  connect_timeout_s: 0", 7, "profiles.a.ssh.connect_timeout_s: must be above 0"),
    ("slurm: m1234", 5, "profiles.a.slurm: expected a mapping of keys to values, got text"),
    ("slurm:", 5, "profiles.a.slurm: expected a mapping of keys to values, got nothing"),
    ("slurm:\n  account: m\n  partion: x", 7, "profiles.a.slurm: unknown key 'partion'. Did you mean 'partition'?"),
    ("slurm:\n  account: m\n  output: x", 7, "profiles.a.slurm: output: cannot be set"),
    ("slurm:\n  modules: vasp/6.3", 6, "profiles.a.slurm: modules: must be a list of lines"),
    ("slurm:\n  modules: [a]\n  account: [m]", 7, "profiles.a.slurm: account: must be a text"),
    ("slurm:\n  requeue: 1", 6, "profiles.a.slurm: requeue: must be true or false"),
    ('slurm:\n  account: "m\\n#SBATCH --uid=0"', 6, "profiles.a.slurm: account: must be a text without line breaks"),
    ("retrieve: some", 5, "profiles.a.retrieve: there is no 'some'. Did you mean 'none'?"),
    ("retrieve: false", 5, "profiles.a.retrieve: "),
    ("waits: 5", 5, "profiles.a.waits: expected a mapping of keys to values, got a whole number"),
    ("waits:\n  grace: 5", 6, "profiles.a.waits: unknown key 'grace'. Did you mean 'grace_s'?"),
    ("waits:\n  poll_max_s: 9\n  grace_s: soon", 7, "profiles.a.waits.grace_s: expected a number, got text"),
    ("waits:\n  grace_s: 0", 6, "profiles.a.waits.grace_s: must be a number of seconds above 0, not 0"),
    ("waits:\n  grace_s: .nan", 6, "profiles.a.waits.grace_s: must be a number of seconds above 0, not nan"),
    ("waits:\n  absence_s: .inf", 6, "profiles.a.waits.absence_s: must be a number of seconds above 0, not inf"),
    ("waits:\n  poll_min_s: 70", 5, "profiles.a.waits: poll_min_s, 70, is above poll_max_s, 60"),
    ("max_array: 0", 5, "profiles.a.max_array: must be at least 1, not 0"),
    ("max_array: many", 5, "profiles.a.max_array: expected a whole number, got text"),
    ("results_root: [x]", 5, "profiles.a.results_root: expected text, got a list"),
    ("retry: sometimes", 5, "profiles.a.retry: 'sometimes' is not a way to retry"),
    ("retry: true", 5, "profiles.a.retry: expected text or nothing, got true or false"),
]


@pytest.mark.parametrize(("lines", "line", "words"), BAD)
def test_a_mistake_is_told_with_file_line_and_key(here, lines, line, words):
    profile = slurm(here, lines)
    with pytest.raises(ConfigError) as caught:
        resolve(profile)
    assert str(caught.value).startswith(f"{here / 'matterstack.yaml'}:{line}: ")
    assert words in str(caught.value)
    assert "Nothing was started" in str(caught.value)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("./runs", "must be an absolute path on the cluster, not './runs': what it starts from"),
        ("runs", "must be an absolute path on the cluster"),
        ("~/runs", "neither ~ nor variables are looked up on the cluster"),
        ("$SCRATCH/runs", "neither ~ nor variables are looked up on the cluster"),
        ("''", "must be an absolute path on the cluster"),
        ("/scratch/../etc", "must have no '..'"),
        ('"/scratch/a\\nb"', "must have no line breaks or control characters"),
        ("/scratch/100%", "must have no '%', unlike '/scratch/100%': Slurm reads it as part of a pattern"),
        (r"/scratch/a\\b", "no job could start; name a directory without it"),
        ("[/scratch]", "expected text, got a list"),
    ],
)
def test_a_workspace_that_is_no_absolute_path_is_refused_with_the_reason(here, root, words):
    profile = slurm(here, root=root)
    with pytest.raises(ConfigError, match=r"matterstack\.yaml:4: profiles\.a\.workspace_root: ") as caught:
        resolve(profile)
    assert words in str(caught.value)


def test_a_workspace_must_be_named(here):
    write(here / "matterstack.yaml", "profiles:\n  a:\n    backend: slurm\n")
    with pytest.raises(ConfigError, match=r"matterstack\.yaml:2: profiles\.a: missing key 'workspace_root'"):
        resolve(Profiles().choose("a"))


def test_keys_of_slurm_are_refused_in_a_local_profile(here):
    write(here / "matterstack.yaml", "profiles:\n  a:\n    backend: local\n    slurm: {account: m}\n")
    with pytest.raises(ConfigError, match=r":4: profiles\.a: unknown key 'slurm'"):
        resolve(Profiles().choose("a"))


@pytest.mark.parametrize(
    "change",
    [{"ssh": {"hostname": "h", "new": 1}}, {"slurm": {"account": 1.5}}, {"waits": {"x_s": 1}}, {"retrieve": 1}],
)
def test_a_profile_recorded_by_another_version_is_refused_in_plain_words(here, change):
    recorded = resolve(slurm(here)) | change
    with pytest.raises(ConfigError, match=r"recorded by another version of MatterStack: .* name the profile with"):
        open_backend(recorded)


def test_every_key_can_be_written_as_it_is_shown(here):
    more = "retry: always\nmax_array: 5\nbudget_core_hours: 9\non: {task_failed: x}"
    profile = slurm(here, f"ssh: {{hostname: h}}\nslurm: {{account: m}}\n{more}")
    resolved = resolve(profile)
    names = {field.name for field in msgspec.structs.fields(SlurmProfile)}
    assert set(resolved) == names | {"name"}


# ---- several profiles ----------------------------------------------------------------------------


TWO = """\
default: one
profiles:
  one: {backend: local, workspace_root: /one}
  two: {backend: slurm, workspace_root: /two}
  bad: {backend: slurm, workspace_root: two}
"""


def test_several_profiles_are_opened_by_name(here):
    write(here / "matterstack.yaml", TWO)
    found = settings_for(Profiles(), ["two", "one", "two"])
    assert {name: one.profile["workspace_root"] for name, one in found.items()} == {"two": "/two", "one": "/one"}


def test_an_unknown_one_among_several_is_told_before_any_is_opened(here):
    write(here / "matterstack.yaml", TWO)
    with pytest.raises(UnknownName, match=r"no profile 'tow'\. Did you mean 'two'\?"):
        settings_for(Profiles(), ["bad", "tow"])


@pytest.mark.parametrize(
    ("name", "error"), [("tow", "no profile 'tow'. Did you mean 'two'?"), ("bad", "must be an absolute path")]
)
def test_a_task_whose_profile_cannot_be_used_lets_nothing_start(here, name, error):
    write(here / "matterstack.yaml", TWO.replace("/one", "./one"))
    workflow = Workflow("w", [Task("true", "a"), Task("true", "b", profile=name)])
    with pytest.raises((UnknownName, ConfigError)) as caught:
        run_workflow(workflow)
    assert error in str(caught.value)
    assert sorted(path.name for path in here.iterdir()) == ["matterstack.yaml"]


def test_a_local_run_imports_nothing_of_slurm_or_ssh(here):
    write(here / "matterstack.yaml", TWO.replace("/one", "./one"))
    code = """
        import sys
        from matterstack import Task, Workflow, run_workflow
        assert run_workflow(Workflow("w", [Task("true", "a")]), "one").ok
        print([m for m in sys.modules if m == "paramiko" or ".hpc" in m or ".transports" in m or "slurm_profile" in m])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"


def test_opening_a_slurm_profile_does_not_load_paramiko(here):
    write(here / "matterstack.yaml", EXAMPLE)
    code = (
        "import sys; from matterstack.config.profiles import *; settings(Profiles().choose('hpc_prod')); "
        "print('paramiko' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "False"
