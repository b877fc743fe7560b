"""What docs/slurm.md shows happens, on a real Slurm; only host, directory and account are others than on the page."""

from __future__ import annotations

import json
import re

import pytest
from test_docs import DOCS, blocks, looks_like, promised, run_python, save_files, shell

__all__ = ["shell"]  # a fixture

PAGE = DOCS / "slurm.md"
LOGIN = 'SSHConfig("login.example.org", username="me")'


@pytest.fixture
def here(shell, cluster, tmp_path):  # the fixture of that name
    """Run commands beside the page's files, in which the cluster of the tests stands for the example's."""
    save_files(PAGE, shell)
    profiles = shell.path / "matterstack.yaml"
    text = profiles.read_text()
    for old, new in {
        "{hostname: login.example.org, username: me}": json.dumps(cluster.ssh_config_kwargs()),
        "/scratch/me/runs": str(tmp_path / "runs"),
        "m1234": "acct",
    }.items():
        assert old in text
        text = text.replace(old, new)
    profiles.write_text(text)
    return shell


@pytest.mark.timeout(300)
def test_every_command_prints_what_the_page_shows(here):
    shown = re.split(r"^\$ ", "".join(blocks(PAGE, "console")), flags=re.MULTILINE)[1:]
    assert len(shown) > 4
    for step in shown:
        command, _, expected = step.partition("\n")
        if "UsageRecorded" in expected:
            wait_for_accounting(here, command)
        done = here(command)
        assert looks_like(expected).fullmatch(done.stdout.strip()), f"$ {command}\n{done.stdout}{done.stderr}"


def wait_for_accounting(here, command):
    """Accounting may be later than a run waits for it; the next controller asks again."""
    for _ in range(30):
        if "UsageRecorded" in here(command).stdout:
            return
        here("matterstack resume")


@pytest.mark.timeout(300)
def test_the_backend_alone(here, cluster, tmp_path):
    (code,) = [one for one in blocks(PAGE, "python") if "print(" in one and LOGIN in one]
    settings = f"SSHConfig(**{cluster.ssh_config_kwargs()!r})"
    real = code.replace(LOGIN, settings).replace("/scratch/me/runs", str(tmp_path / "alone")).replace("m1234", "acct")
    assert run_python(here, real) == promised(code)


@pytest.mark.timeout(300)
def test_a_cluster_and_a_laptop(here):
    (text,) = [one for one in blocks(PAGE, "yaml") if one.startswith("tasks:")]
    (here.path / "both.yaml").write_text(text)
    assert here("matterstack run both.yaml").stdout == "both: 2 of 2 tasks COMPLETED\n"
    assert here("matterstack logs both report").stdout == "lattice constant 3.61\n"


@pytest.mark.timeout(300)
def test_the_profile_in_python(here, cluster, tmp_path):
    (code,) = [one for one in blocks(PAGE, "python") if one.count("profiles = {")]
    settings = f"SSHConfig(**{cluster.ssh_config_kwargs()!r})"
    real = code.replace(LOGIN, settings).replace("/scratch/me/runs", str(tmp_path / "runs")).replace("m1234", "acct")
    (here.path / "config").mkdir()
    (here.path / "config/profiles.py").write_text(real.replace(', "modules": ["vasp/6.3"]', ""))
    assert here("matterstack run volumes.py --profile cluster").stdout == "volumes: 4 of 4 tasks COMPLETED\n"
