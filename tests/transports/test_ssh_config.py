import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from matterstack.runtime.transports.local import LocalTransport
from matterstack.runtime.transports.openssh import OpenSSHTransport
from matterstack.runtime.transports.ssh import SSHTransport
from matterstack.runtime.transports.ssh_config import Jump, SSHConfig, jumps_of, open_transport


def test_only_the_host_is_needed():
    config = SSHConfig(hostname="perlmutter.nersc.gov")
    assert (config.port, config.username, config.known_hosts) == (None, None, "~/.ssh/known_hosts")
    assert config.name == "perlmutter.nersc.gov"
    assert SSHConfig("h", username="u").name == "u@h"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"hostname": ""}, ValueError, "hostname: must be a non-empty text"),
        ({"hostname": 7}, TypeError, "hostname: must be a text, not 7"),
        ({"hostname": None}, TypeError, "hostname: must be a text"),
        ({"hostname": "user@host"}, ValueError, "hostname: .* the user goes into username"),
        ({"hostname": "-oProxyCommand=evil"}, ValueError, "hostname: must be the name"),
        ({"hostname": "a b"}, ValueError, "hostname: must be the name"),
        ({"hostname": "a\nHost b"}, ValueError, "hostname: .* control characters"),
        ({"username": "-l"}, ValueError, "username: must be the name"),
        ({"username": "a b"}, ValueError, "username: must be the name"),
        ({"username": ""}, ValueError, "username"),
        ({"key_filename": 5}, TypeError, "key_filename: must be a text"),
        ({"known_hosts": None}, TypeError, "known_hosts: must be a text"),
        ({"known_hosts": "a\0b"}, ValueError, "known_hosts"),
        ({"port": "22"}, TypeError, "port: must be a whole number, not '22'"),
        ({"port": True}, TypeError, "port: must be a whole number"),
        ({"port": 0}, ValueError, "port: must be from 1 to 65535, not 0"),
        ({"port": 65536}, ValueError, "port: must be from 1 to 65535"),
        ({"connect_timeout_s": 0}, ValueError, "connect_timeout_s: must be above 0"),
        ({"connect_timeout_s": "20"}, TypeError, "connect_timeout_s: must be a number of seconds"),
        ({"keepalive_s": -1}, ValueError, "keepalive_s: must be above 0"),
        ({"keepalive_s": float("nan")}, ValueError, "keepalive_s: must be above 0"),
        ({"agent": "yes"}, TypeError, "agent: must be true or false, not 'yes'"),
        ({"transport": "telnet"}, ValueError, "transport: must be 'paramiko' or 'openssh', not 'telnet'"),
        ({"proxy_jump": "a b"}, ValueError, "proxy_jump: must be"),
        ({"proxy_jump": "gate:99999"}, ValueError, "proxy_jump: must be from 1 to 65535"),
        ({"proxy_jump": "-oX"}, ValueError, "proxy_jump: must be"),
        ({"proxy_jump": "a,,b"}, ValueError, "proxy_jump: must be"),
    ],
)
def test_what_cannot_be_meant_is_told_by_its_field(options, error, words):
    with pytest.raises(error, match=words):
        SSHConfig(**{"hostname": "host", **options})


def test_a_profile_decodes_into_it_and_an_unknown_field_does_not():
    config = msgspec.convert({"hostname": "h", "port": 2222, "connect_timeout_s": 5}, SSHConfig)
    assert (config.port, config.connect_timeout_s) == (2222, 5)
    with pytest.raises(msgspec.ValidationError, match="usernam"):
        msgspec.convert({"hostname": "h", "usernam": "u"}, SSHConfig)
    with pytest.raises(msgspec.ValidationError, match="port: must be from 1 to 65535"):
        msgspec.convert({"hostname": "h", "port": 0}, SSHConfig)


def test_paths_may_be_path_objects():
    config = SSHConfig("h", key_filename=Path("/k/id"), known_hosts=Path("/k/hosts"), ssh_config=Path("/k/config"))
    assert (config.key_filename, config.known_hosts, config.ssh_config) == ("/k/id", "/k/hosts", "/k/config")


def test_hosts_to_go_through():
    assert jumps_of(None) == jumps_of("none") == ()
    assert jumps_of("gate") == (Jump("gate"),)
    assert jumps_of("me@gate:2222, [::1]:22,ssh://b") == (Jump("gate", "me", 2222), Jump("::1", None, 22), Jump("b"))


def test_the_transport_asked_for(tmp_path):
    assert isinstance(open_transport(None), LocalTransport)
    assert isinstance(open_transport(SSHConfig("h")), SSHTransport)
    assert isinstance(open_transport(SSHConfig("h", transport="openssh")), OpenSSHTransport)
    assert not list((tmp_path / "home").iterdir())


def test_paramiko_is_loaded_when_a_host_is_first_used():
    code = (
        "import sys; from matterstack.runtime.transports.ssh_config import *;"
        "open_transport(SSHConfig('h')); assert 'paramiko' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
