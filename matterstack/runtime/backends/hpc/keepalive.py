"""Bytes while a remote command is busy and says nothing: whoever hears none for long gives the connection up."""

from __future__ import annotations

from typing import Final

_EVERY_S: Final = 15  # well below any wait for an answer


def keep_alive(sign: str) -> str:
    """Return the shell that runs the command ``sign`` now and then, until `STOP` or the end of the script."""
    # The sleep is ended with the rest, and holds no pipe open that somebody reads to its end.
    return (
        "{ trap 'kill $ms_sleep; exit' TERM; while :; do "
        f"sleep {_EVERY_S} </dev/null >/dev/null & ms_sleep=$!; wait $ms_sleep; kill -0 $$ && {sign} || exit; "
        "done; } 2>/dev/null & ms_alive=$!"
    )


STOP: Final = "kill $ms_alive 2>/dev/null; wait $ms_alive; true"
