"""Commands, environments and secrets, as a real shell reads what we wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

from fuzz.files import place
from matterstack.core.workflow import Task
from matterstack.errors import SpecError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.job_script import attempt_files, secrets_file

_SHELLS: Final = [found for name in ("dash", "bash") if (found := shutil.which(name))]
_SECRETS: Final = ("A_SECRET", "IFS_")
_SAY: Final = """
. ./env && . ./secrets || exit 9
printf '%s\\0' "$ms_given" "$ms_command" "$MATTERSTACK_RUN" "$MATTERSTACK_TASK" "$A_SECRET" "$IFS_" "$@" end
"""


def shell(data: bytes) -> None:
    """Exactly the given texts arrive. ``data``, between NULs: which shell, two secrets, a command, values of env."""
    which, *parts = data.split(b"\0")
    secrets = [os.fsdecode(part) for part in (*parts, b"", b"")[:2]]
    command, *values = (part.decode("utf-8", "ignore") for part in ([*parts[2:], b"true"]))
    env = {f"N{number}": value for number, value in enumerate(values)}
    try:
        task = Task(command, "a", env=env, secrets=_SECRETS)
    except SpecError:
        assert not command.strip()
        return
    files = attempt_files(Submission(task, "run", 1, "ms-token"))
    files["secrets"] = secrets_file(task, dict(zip(_SECRETS, secrets, strict=True)))
    cage = place() / "shell"
    shutil.rmtree(cage, ignore_errors=True)
    cage.mkdir()
    for name, content in files.items():
        (cage / name).write_bytes(content)
    said = subprocess.run(
        [_SHELLS[len(which) % len(_SHELLS)], "-c", _SAY],
        cwd=cage,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8" if len(which) & 2 else "C"},
        capture_output=True,
        check=False,
    )
    given = ["file", ""] if "command" in files else ["argument", command]
    expected = [*given, "run", "a", *secrets, *(f"{name}={value}" for name, value in env.items()), "end"]
    assert (said.returncode, said.stderr) == (0, b"")
    assert said.stdout.split(b"\0") == [*map(os.fsencode, expected), b""]
    assert files.get("command", command.encode()) == command.encode()
    assert {path.name for path in cage.iterdir()} == set(files)
