"""What a way to a host must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from typing import Final

from msgspec import Struct

COMMAND_S: Final = 120.0

# The script's length, then the script, then what it reads itself, all on one standard input: so the user's login
# shell, be it tcsh or fish, sees nothing but these plain words.
BOOTSTRAP: Final = """sh -c 'read -r n && eval "$(head -c "$n")"'"""


class Reply(Struct, frozen=True):
    """What a remote command answered. ``stdout`` is empty where a sink took it."""

    code: int
    stdout: bytes
    stderr: bytes


class Transport(ABC):
    """The way to one host. All methods may be called from any thread; commands may run side by side.

    Raises of `run`:
        TransportError: The connection failed; its ``started`` says whether the script may have begun.
        AccessError: The host will not let us in before a person does something.
    """

    name: str
    """What messages call the host, e.g. ``user@login.example.org``."""

    @abstractmethod
    def run(
        self,
        script: str,
        *,
        payload: bytes | Iterable[bytes] = b"",
        sink: Callable[[bytes], None] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> Reply:
        """Return what ``script``, run by the host's POSIX ``sh``, answered.

        Args:
            script: Text for ``sh``, without NUL.
            payload: What the script reads on its standard input, sent as it is made.
            sink: Takes standard output piece by piece instead of `Reply.stdout`; its errors end the command.
            timeout_s: Longest time, in seconds, in which no byte moves in either direction.

        Raises:
            TransportError: Not reached, cut off or timed out. Nothing is known of what the script did
                where ``started`` is true.
            AccessError: Unknown or changed host key, refused login.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the next `run` opens another."""


def framed(script: str, payload: bytes | Iterable[bytes]) -> Generator[bytes]:
    """Yield the standard input for `BOOTSTRAP`: the script behind its length, then the payload."""
    text = script.encode()
    yield b"%d\n%s" % (len(text), text)
    if isinstance(payload, bytes):
        if payload:
            yield payload
    else:
        yield from payload
