"""``profiles check`` over a real sshd."""

import importlib.util
import json
import shutil
import signal

import pytest
from cli_project import ROOT, until
from cli_site import Site
from msgspec.structs import asdict

from matterstack.runtime.backends.finding import Verdict
from matterstack.runtime.backends.hpc import checking
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.transports.local import LocalTransport


def load_sshd():
    """Return the module that the tests of the transports have beside them."""
    spec = importlib.util.spec_from_file_location("sshd_for_profiles", ROOT / "tests/transports/sshd.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sshd = load_sshd()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    if sshd.sshd_path() is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd on this machine: install openssh-server")
    directory = tmp_path_factory.mktemp("keys")
    for name in ("host", "other_host", "user", "stranger"):
        sshd.make_key(directory / name)
    return directory


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


@pytest.fixture
def check(project, tmp_path, keys, site):
    """Check a profile at a server with these settings; returns its findings, first the verdict."""
    servers = []

    def run(*settings, code=0, known=True, **options):
        server = sshd.Sshd(tmp_path / f"sshd{len(servers)}", keys, f'SetEnv PATH="{site.path}"', *settings)
        servers.append(server)
        if not known:
            server.known_hosts.write_text("")
        ssh = {key: value for key, value in asdict(server.config(**options)).items() if value is not None}
        profile = {"backend": "slurm", "workspace_root": str(tmp_path / "work"), "ssh": ssh}
        project.write("matterstack.yaml", json.dumps({"profiles": {"far": profile}}))
        found = project.json("profiles", "check", "far", code=code)
        return {one["what"]: (one["verdict"], one["detail"]) for one in found["findings"]}

    yield run
    for server in servers:
        server.stop()


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_site_behind_ssh_is_reported(check, transport):
    found = check(transport=transport)
    assert list(found)[:4] == ["host key", "login", "shell noise", "clock"]
    assert {one for one, (verdict, _) in found.items() if verdict == "FAILED"} == set()
    assert found["login"][1].startswith(f"{sshd.USER} on ")
    assert found["shell noise"] == ("ok", "none")
    assert found["controller"][0] == "ok"
    assert found["tar"][0] == "ok"


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_an_unknown_host_key_fails_with_what_would_accept_it(check, transport):
    found = check(code=1, known=False, transport=transport)
    assert list(found) == ["host key"]
    verdict, detail = found["host key"]
    assert verdict == "FAILED"
    assert "ssh-keyscan" in detail


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_refused_login_fails_after_the_host_key(check, keys, transport):
    found = check(code=1, key_filename=str(keys / "stranger"), transport=transport)
    assert [(what, verdict) for what, (verdict, _) in found.items()] == [("host key", "ok"), ("login", "FAILED")]
    assert "refused" in found["login"][1]


def test_a_key_file_that_is_not_there_fails_at_the_login(check):
    found = check(code=1, key_filename="/nowhere/key")
    assert found == {"login": ("FAILED", "the key file /nowhere/key does not exist; correct key_filename.")}


def test_noise_of_the_shell_is_a_warning_and_harms_nothing(check):
    found = check('ForceCommand echo Welcome to the cluster; eval "$SSH_ORIGINAL_COMMAND"')
    assert found["shell noise"][0] == "warning"
    assert "'Welcome to the cluster'" in found["shell noise"][1]
    assert found["controller"][0] == "ok"


def test_an_account_without_a_shell_fails_at_the_login_with_its_words(check):
    found = check("ForceCommand echo This account is currently not available.; exit 1", code=1)
    assert [(what, verdict) for what, (verdict, _) in found.items()] == [("login", "FAILED")]
    assert "exit code 1): This account is currently not available." in found["login"][1]


# Kills the shell that asks, as a node that goes down does.
DOWN = "#!/bin/sh\nkill -9 $(ps -o ppid= -p $PPID)\n"


def test_a_connection_that_ends_in_the_middle_fails(check, site):
    site.command("squeue", DOWN)
    verdict, detail = check(code=1)["connection"]
    assert verdict == "FAILED"
    assert "before it ended" in detail


def test_an_answer_that_is_cut_off_fails(site, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", site.path)
    site.command("squeue", DOWN)
    *_, last = checking.check_cluster(LocalTransport(), str(tmp_path / "w"), SlurmOptions())
    assert (last.what, last.verdict) == ("answers", Verdict.FAILED)


def test_a_command_that_hangs_is_given_up_and_the_rest_is_told(site, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", site.path)
    monkeypatch.setattr(checking, "_EACH_S", 5)
    site.command("squeue", "#!/bin/sh\nexec sleep 600\n")
    found = {one.what: one for one in checking.check_cluster(LocalTransport(), str(tmp_path / "w"), SlurmOptions())}
    assert found["controller"].verdict is Verdict.FAILED
    assert found["controller"].detail == "squeue got no answer: it took too long"
    assert "tar" in found


def test_a_check_can_be_interrupted(project, site, tmp_path):
    project.env["PATH"] = site.path
    site.command("squeue", f"#!/bin/sh\n: >{tmp_path}/asked\nexec sleep 600\n")
    project.write("matterstack.yaml", "profiles: {a: {backend: slurm, workspace_root: /w}}")
    process = project.start("profiles", "check", "a")
    until((tmp_path / "asked").exists, "squeue to be asked")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
