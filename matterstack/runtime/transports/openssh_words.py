"""What ``ssh`` says when it fails, as errors of ours."""

from __future__ import annotations

import re
from typing import Final

from matterstack.errors import AccessError, LoginRefused, TransportError
from matterstack.runtime.transports.ssh_config import SSHConfig

NOT_SHARED: Final = "matterstack-no-shared-connection"
"""Printed where a command found no shared connection to ride on, and therefore did not begin."""

SESSION_REFUSED: Final = "Session open refused by peer"

_CHANGED: Final = ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key for ")
_UNKNOWN: Final = ("Host key verification failed", "host key is known for")
_REFUSED: Final = ("Permission denied (", "Too many authentication failures", "No more authentication methods")
_UNUSABLE: Final = ("Bad configuration option", "terminating, ", "Can't open user config file", "Bad owner or perm")
_OFFENDING: Final = re.compile(r"Offending .*key in (\S.*):(\d+)")
_NOISE: Final = re.compile(
    r"[@\s]*|mux_client_.*|ControlSocket .*|kex_exchange_identification: .*closed by remote host.*"
)


def failure(config: SSHConfig, words: str, *, started: bool) -> TransportError | AccessError:
    """Return the error that ``ssh``, which ended with code 255, means by its words.

    Args:
        config: Where it was to go.
        words: Its standard error.
        started: Whether the command may have begun, as far as the caller knows.
    """
    last = _last_line(words)
    if started:
        return TransportError(config.name, f"ssh failed while the command was under way: {last}", started=True)
    if any(word in words for word in _UNUSABLE):
        return AccessError(config.name, f"ssh cannot use its settings: {last}", f"mend {config.ssh_config}.")
    if _CHANGED[0] in words:
        found = _OFFENDING.search(words)
        where = f"{found[1]}, line {found[2]}" if found else config.known_hosts
        remedy = (
            "somebody may be listening in between; ask the site whether its key was replaced, and only then remove "
            "that line and accept the new key."
        )
        return AccessError(config.name, f"its host key has changed: it is not the key in {where}", remedy)
    if any(word in words for word in _UNKNOWN):
        scan = f"ssh-keyscan -p {config.port or 22} {config.hostname}"
        remedy = (
            f"compare the fingerprint that `{scan} | ssh-keygen -lf -` shows with the one that the site publishes, "
            f"then accept the key with `{scan} >> {config.known_hosts}`."
        )
        return AccessError(config.name, f"its host key is not in {config.known_hosts}", remedy)
    if any(word in words for word in _REFUSED):
        remedy = f"see that `ssh {config.name}` logs in without a question, or share an open connection by ControlPath."
        return LoginRefused(config.name, f"the login was refused: {last}", remedy)
    return TransportError(config.name, last, started=False)


def _last_line(words: str) -> str:
    """Return the line that says most: the last one that is not mere framing."""
    lines = [line.strip() for line in words.splitlines() if not _NOISE.fullmatch(line.strip())]
    return lines[-1] if lines else words.strip() or "ssh failed and did not say why"
