"""Whether a host is the one that we know."""

from __future__ import annotations

import paramiko

from matterstack.errors import AccessError
from matterstack.runtime.transports.known_hosts import fingerprint, look_up
from matterstack.runtime.transports.ssh.destination import Destination


def check_host_key(destination: Destination, key: paramiko.PKey) -> None:
    """Do nothing where the host's key is known.

    Raises:
        AccessError: It is unknown, revoked, or another than the known one. Nobody was told who we are.
    """
    kind, shown = key.get_name(), key.get_base64()
    print_ = f"{kind} {fingerprint(shown)}"
    entries = look_up(destination.known_hosts, destination.known_as, destination.port)
    if any(entry.marker == "@revoked" and entry.key == shown for entry in entries):
        problem = f"its key {print_} is revoked"
        raise AccessError(destination.name, problem, "ask the site's administrators.")
    known = [entry for entry in entries if not entry.marker]
    if any((entry.kind, entry.key) == (kind, shown) for entry in known):
        return
    if known:
        raise _changed(destination, print_, f"{known[0].file}, line {known[0].line}")
    hint = ""
    if any(entry.marker == "@cert-authority" for entry in entries):
        hint = " (the certificate authority in that file counts only with transport: openssh)"
    file = destination.known_hosts[0] if destination.known_hosts else "~/.ssh/known_hosts"
    scan = f"ssh-keyscan -p {destination.port} {destination.host} >> {file}"
    raise AccessError(
        destination.name,
        f"its host key {print_} is not in {file}{hint}",
        f"compare this fingerprint with the one that the site publishes, then accept the key with `{scan}`.",
    )


def _changed(destination: Destination, print_: str, where: str) -> AccessError:
    problem = f"its host key has changed: it shows {print_}, which is not the key in {where}"
    remedy = (
        "somebody may be listening in between; ask the site whether its key was replaced, and only then remove "
        "that line and accept the new key."
    )
    return AccessError(destination.name, problem, remedy)
