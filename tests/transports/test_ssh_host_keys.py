"""Unknown and changed host keys stop the connection (G16)."""

import re
import subprocess

import pytest
from sshd import HOST, make_key

from matterstack.errors import AccessError
from matterstack.runtime.transports.known_hosts import fingerprint, look_up

KINDS = ("paramiko", "openssh")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def refusal(transport):
    with pytest.raises(AccessError) as caught:
        transport.run("echo never")
    return str(caught.value)


def test_an_unknown_host_is_refused_and_can_be_accepted_as_told(kind, start_sshd, connect):
    server = start_sshd()
    server.known_hosts.unlink()
    transport = connect(server.config(transport=kind))
    words = refusal(transport)
    line = server.known_as(f"[{HOST}]:{server.port}")
    assert f"not in {server.known_hosts}" in words
    assert "publishes" in words
    assert f"ssh-keyscan -p {server.port} {HOST} >> {server.known_hosts}" in words
    if kind == "paramiko":
        assert fingerprint(line.split()[2]) in words
    assert "Accepted" not in server.log()

    scan = words.rpartition("`ssh-keyscan")[2].partition("`")[0]
    subprocess.run(f"ssh-keyscan -t ed25519 {scan}", shell=True, check=True, stderr=subprocess.DEVNULL)
    transport.close()
    assert transport.run("echo in").stdout == b"in\n"


def test_a_changed_key_is_refused_with_file_and_line(kind, start_sshd, connect):
    server = start_sshd()
    stranger = server.known_as(f"[{HOST}]:{server.port}", key="other_host")
    server.known_hosts.write_text(f"# my hosts\n{server.known_as('elsewhere')}{stranger}")
    words = refusal(connect(server.config(transport=kind)))
    assert "has changed" in words
    assert f"{server.known_hosts}, line 3" in words
    assert "somebody may be listening" in words
    assert "Accepted" not in server.log()


def test_a_key_of_another_kind_does_not_pass_for_an_unknown_one(start_sshd, connect, tmp_path):
    server = start_sshd()
    kept = make_key(tmp_path / "kept", "ecdsa").with_suffix(".pub").read_text().split()[:2]
    server.known_hosts.write_text(f"[{HOST}]:{server.port} {' '.join(kept)}\n")
    assert "has changed" in refusal(connect(server.config()))


@pytest.mark.parametrize("kind_of_key", ["rsa", "ecdsa", "ed25519"])
def test_the_known_one_of_several_keys_is_asked_for(kind, kind_of_key, start_sshd, connect, tmp_path):
    names = {name: make_key(tmp_path / name, name) for name in ("rsa", "ecdsa", "ed25519")}
    server = start_sshd(*(f"HostKey {path}" for path in names.values()))
    known = (tmp_path / f"{kind_of_key}.pub").read_text().split()[:2]
    server.known_hosts.write_text(f"[{HOST}]:{server.port} {' '.join(known)}\n")
    assert connect(server.config(transport=kind)).run("echo in").stdout == b"in\n"


@pytest.mark.parametrize("names", ["hashed", "[127.0.0.*]:*", "other,[127.0.0.1]:{port}", "127.0.0.1"])
def test_names_in_every_notation_are_known(kind, names, start_sshd, connect):
    server = start_sshd()
    if names == "hashed":
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", server.known_hosts], check=True, capture_output=True)
        assert HOST not in server.known_hosts.read_text()
    else:
        server.known_hosts.write_text(server.known_as(names.format(port=server.port)))
    assert connect(server.config(transport=kind)).run("echo in").stdout == b"in\n"


def test_revoked_and_excluded_keys_are_refused(kind, start_sshd, connect):
    server = start_sshd()
    name = f"[{HOST}]:{server.port}"
    server.known_hosts.write_text(server.known_as(name) + "@revoked " + server.known_as(name))
    assert "key" in refusal(connect(server.config(transport=kind)))
    server.known_hosts.write_text(server.known_as(f"!{name},!{HOST},*"))
    assert "key" in refusal(connect(server.config(transport=kind)))


def test_an_alias_stands_for_the_host(start_sshd, connect, kind):
    server = start_sshd()
    server.known_hosts.write_text(server.known_as("cluster"))
    (server.directory / "ssh_config").write_text("HostKeyAlias cluster\n")
    assert connect(server.config(transport=kind)).run("echo in").stdout == b"in\n"


NAMES = (
    *("host", "HOST", "host.example.org", "[host]:2222", "*.example.org", "h?st", "!host,*", "*,!host", "other"),
    *("host,other", "[*]:2222", "[host]:*", "|1|broken", "|1|a|b|c", "10.0.0.1", "::1", "[::1]:2222", "h[o]st"),
)


@pytest.mark.parametrize("host", ["host", "host.example.org", "10.0.0.1", "::1"])
@pytest.mark.parametrize("port", [22, 2222])
def test_names_match_as_for_ssh_keygen(host, port, tmp_path, keys):
    """`ssh-keygen -F` has no fallback to the name without a port, so what it finds is what has to be found first."""
    key = " ".join((keys / "host.pub").read_text().split()[:2])
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"{names} {key}\n" for names in NAMES) + "\n# host x\nhost\n@revoked host " + key + "\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], capture_output=True, check=False)
    for _ in range(2):
        name = host if port == 22 else f"[{host}]:{port}"
        answer = subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, text=True, check=False)
        wanted = [int(line) for line in re.findall(r" found: line (\d+)", answer.stdout)]
        found = [known.line for known in look_up([str(file)], host, port)]
        assert found == (wanted or [known.line for known in look_up([str(file)], host, 22)])
        file = tmp_path / "known_hosts.old"
        if not file.exists():
            break


def test_a_file_that_is_not_there_knows_nobody(tmp_path):
    assert look_up([str(tmp_path / "none"), str(tmp_path / "none" / "below")], "host", 22) == []


def test_fingerprints_are_those_of_ssh_keygen(keys):
    key = (keys / "host.pub").read_text().split()[1]
    told = subprocess.run(["ssh-keygen", "-lf", keys / "host.pub"], capture_output=True, text=True, check=True).stdout
    assert fingerprint(key) == told.split()[1]
