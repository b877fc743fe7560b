"""Slurm's commands as a site with the recorded answers of a real one gives them, for what only asks."""

import json
import os
import stat
from pathlib import Path

RECORDED = Path(__file__).parents[1] / "hpc/recordings/slurm-22.05.8.json"

COMMAND = """#!/bin/sh
# The name of the answer is that of the command and of the first word that tells what is asked.
answer={directory}/$(basename "$0")
for word in config partition assoc qos; do
  case " $* " in *" $word "*) answer=$answer.$word; break ;; esac
done
cat "$answer"
[ ! -f "$answer.errors" ] || cat "$answer.errors" >&2
exit "$(cat "$answer.code")"
"""


class Site:
    """Commands in ``bin``; `says` changes what one answers."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.bin = directory, directory / "bin"
        self.bin.mkdir(parents=True)
        recorded = {one["id"]: one["stdout"] for one in json.loads(RECORDED.read_text())["recordings"]}
        for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct", "sacctmgr"):
            self.command(name, COMMAND.format(directory=directory))
        self.says("sbatch", "slurm-wlm 22.05.8\n")
        for name, answer in (("config", "settings"), ("partition", "partitions")):
            self.says(f"scontrol.{name}", recorded[answer])
        for name, answer in (("assoc", "limits"), ("qos", "qos")):
            self.says(f"sacctmgr.{name}", recorded[answer])
        self.says("squeue", "7\n8_1\n")
        self.says("sacct", "")

    def says(self, name: str, text: str, errors: str = "", code: int = 0) -> None:
        (self.directory / name).write_text(text)
        (self.directory / f"{name}.errors").write_text(errors)
        (self.directory / f"{name}.code").write_text(str(code))

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.directory / name).read_text()
        assert old in text
        (self.directory / name).write_text(text.replace(old, new))

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def path(self) -> str:
        """PATH with its commands first."""
        return f"{self.bin}:{os.environ['PATH']}"
