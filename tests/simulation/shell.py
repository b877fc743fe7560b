"""The login node's ``sh``, for the scripts that we send and no others: each command a step, with time between."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from typing import TYPE_CHECKING

from matterstack.runtime.backends.hpc.barring import BAR
from matterstack.runtime.backends.hpc.layout import SUBMISSIONS
from matterstack.runtime.backends.hpc.look_up import CLAIMS
from matterstack.runtime.backends.hpc.monitoring import _LEFT, _RECORDS
from matterstack.runtime.backends.hpc.slurm import ENVIRONMENT, queue_command
from matterstack.runtime.backends.hpc.staging_script import CONTENTS, UNPACK, UPSTREAM
from matterstack.runtime.backends.hpc.submit_script import FUNCTIONS
from matterstack.runtime.backends.hpc.tar import TarReader
from simulation.files import DiskFull
from simulation.slurm import LIMIT, NO_CONTACT, OURS, TIMED_OUT
from simulation.timeline import EPOCH

if TYPE_CHECKING:
    from simulation.world import World

Steps = Generator[float, None, None]
BLOCKS = {
    FUNCTIONS: "@functions",
    BAR: "@bar",
    _RECORDS: "@records",
    _LEFT: "@left",
    CLAIMS: "@claims",
    UNPACK: "@unpack",
    CONTENTS: "@contents",
    UPSTREAM: "@upstream",
}
_NONCE = re.compile(r"say\(\) \{ printf '%s %s\\n' (\S+) ")
_REFUSALS = ("submission failed: Invalid", "submission failed: Requested", "error: invalid")
_SBATCH_S = 200.0


class Exit(Exception):
    """The script ends here."""


class StageFailed(Exit):
    """The inner shell of staging ended; the outer one goes on."""


class UnknownScript(AssertionError):
    """The simulator has not learnt this command."""


class Shell:
    """A script that is run. ``out``: what it has printed. It lives on when nobody listens any more.

    Args:
        world: Everything.
        script: As `Remote.ask` sends it.
        payload: Its standard input.
        sent_at: When the client sent it.
    """

    def __init__(self, world: World, script: str, payload: bytes, sent_at: float) -> None:
        self.world, self.files, self.slurm, self.chance = world, world.files, world.slurm, world.chance
        self.sent_at = sent_at
        prelude, _, body = script.partition(f"{ENVIRONMENT}\n")
        nonce = _NONCE.search(prelude)
        if nonce is None or not body.endswith("\nsay end\n"):
            raise UnknownScript(script)
        self._nonce = nonce[1]
        self._lines = self._parse(body.removesuffix("say end\n"))
        self._payload = payload
        self.out: list[str] = []
        self.done = False
        self.killed = False
        self.failed = False
        self.kind = ""
        self.lazy = False  # it takes long pauses
        self.said_at = world.timeline.now
        self._steps = self._run()
        self._stopped = False
        self._started: set[str] = set()

    @staticmethod
    def _parse(body: str) -> list[str]:
        for block, mark in BLOCKS.items():
            body = body.replace(block, f"\n{mark}\n")
        return [line for line in body.split("\n") if line]

    def begin(self) -> None:
        """Let it run, step by step."""
        self.world.timeline.after(0.0, self._step)

    def run_through(self) -> str:
        """Return what it prints when nothing comes between."""
        for _ in self._steps:
            pass
        return "".join(self.out)

    def _step(self) -> None:
        if self.killed:
            return
        try:
            pause_s = next(self._steps)
        except StopIteration:
            self.done = True
            return
        except Exception as error:
            self.world.timeline.violate(f"the simulator broke: {error!r}")
            raise
        if self.lazy and self.chance.random() < 0.1:
            pause_s += self.chance.uniform(0, 600)
        self.world.timeline.after(pause_s, self._step)

    def _say(self, *words: object) -> None:
        self.out.append(f"{self._nonce} {' '.join(map(str, words))}\n")
        self.said_at = self.world.timeline.now

    def _run(self) -> Steps:
        try:
            for line in self._lines:
                yield 0.002
                yield from self._command(line)
        except StageFailed:  # the shell in brackets, which is the last command
            pass
        except Exit:
            self.failed = True
            return
        self._say("end")

    def _input(self) -> list[str]:
        return self._payload.decode().splitlines()

    def _command(self, line: str) -> Steps:  # noqa: C901, PLR0912  # a case a command
        word = line.split(maxsplit=1)[0]
        match word:
            case "@functions" | "@bar" | "@contents" | "@upstream" | "(" | ")" | "fresh" | "shelve" | "put" | "swept":
                pass
            case "try_one":
                self.kind = "try"
                yield from self._try_one(*line.split()[1:])
            case "bar":
                self._bar(*shlex.split(line)[1:])
            case "true":
                yield from self._fence(line)
            case "kill" | "{" if "ms_alive" in line:  # signs of life beside a slow command, which change nothing
                pass
            case "@records":
                yield from self._records()
            case "@left":
                yield from self._left()
            case "@claims":
                yield from self._claims()
            case "[":
                self._mark(line)
            case "scancel" | "{":
                yield from self._scancel(line)
            case "@unpack":
                self.kind = "stage"
                yield from self._unpack()
            case "bring":
                pass
            case "say":
                yield from self._said(line)
            case _ if line.startswith("new="):
                pass
            case _:
                raise UnknownScript(line)

    def _said(self, line: str) -> Steps:
        if line.startswith("say queue; "):
            if queue_command() not in line:
                raise UnknownScript(line)
            yield from self._ask("queue", self._squeue)
        elif line.startswith("say usage; "):
            yield from self._ask("usage", lambda: self._sacct(line))
        elif line.startswith("say accounting; "):
            yield from self._ask("accounting", lambda: self._sacct(line))
        else:
            self._say(*shlex.split(line)[1:])

    # ---- Slurm's commands ---------------------------------------------------------------------------

    def _ask(self, what, command) -> Steps:
        self._say(what)
        out, code, err = yield from command()
        self.out.append(out)
        self._say("code", code)
        self.out.append(err)

    def _squeue(self):
        if self.slurm.silent == "hung":
            yield 10.0
        elif self.slurm.silent:
            yield 8.0
        yield self.chance.uniform(0.005, 0.1)
        if self.slurm.silent:
            words = TIMED_OUT if self.slurm.silent == "hung" else NO_CONTACT
            return "", 1, f"slurm_load_jobs error: {words}\n"
        return self.slurm.queue(), 0, ""

    def _sacct(self, line):
        accounting = self.slurm.accounting
        yield self.chance.uniform(0.02, 0.2)
        if not accounting.on:
            return "", 1, "Slurm accounting storage is disabled\n"
        if accounting.down:
            yield self.chance.choice([0.1, 40.0])
            return "", 1, "sacct: error: Problem talking to the database: Connection refused\n"
        names = re.findall(r" --name=(\S+) ", line)
        if names:
            return accounting.by_name(names[0].split(",")), 0, ""
        ids = [one for found in re.findall(r" -j (\S+) ", line) for one in found.split(",")]
        if not ids:
            raise UnknownScript(line)
        return (accounting.usage if "MaxRSS" in line else accounting.by_id)(ids), 0, ""

    def _scancel(self, line: str) -> Steps:
        words = shlex.split(line.replace("{", " ").replace(";", " ").replace("}", " ").replace("2>&1", " "))
        name = next((word.partition("=")[2] for word in words if word.startswith("--name=")), None)
        ids = [word for word in words if word[0].isdigit()]
        yield self.chance.uniform(0.01, 0.2)
        if self.slurm.silent:
            yield 4.0
        if self.slurm.silent:
            self.out.append(f"scancel: error: slurm_kill_job2() failed {NO_CONTACT}\n")
            code = 1
        else:
            code = 0
            jobs = [job for one in ids for job in self.slurm.find(one) if name in (None, job.name)]
            if name is not None:
                self.world.truth.strays(jobs)
            self.slurm.cancel(jobs, OURS)
        if line.startswith("{"):
            self._say("code", code)

    # ---- submission ---------------------------------------------------------------------------------

    def _age(self, path: str) -> str:
        age_s = self.files.age(path)
        return "0" if age_s is None else str(int(age_s + self.world.plan.server_skew_s))

    def _tell(self, token: str, gen: str, k: int) -> Steps:
        base, at = f"{SUBMISSIONS}/{token}", f"{gen}.{k}"
        yield 0.003
        indices = (self.files.on_node(f"{base}/claim.{at}/indices") or "").strip()
        if (code := self.files.on_node(f"{base}/receipt.{at}")) is not None:
            self._say("receipt", token, k, self._age(f"{base}/receipt.{at}"), code, indices)
            self.out.append(self.files.on_node(f"{base}/out.{at}") or "")
            self._say("err")
            self.out.append(self.files.on_node(f"{base}/err.{at}") or "")
        elif self.files.on_node(f"{base}/claim.{at}/withdrawn") is not None:
            self._say("withdrawn", token, k)
        else:
            self._say("claimed", token, k, self._age(f"{base}/claim.{at}"), indices)

    def _try_one(self, mode: str, token: str, gen: str, after: str, indices: str = "") -> Steps:
        base, k = f"{SUBMISSIONS}/{token}", int(after)
        while self.files.is_directory(f"{base}/claim.{gen}.{k + 1}"):
            if k > int(after):
                yield from self._tell(token, gen, k)
            k += 1
        yield 0.002
        if k > int(after):
            yield from self._tell(token, gen, k)
        elif mode == "look":
            self._say("none", token)
        elif self._stopped:
            self._say("left", token)
        else:
            yield from self._try(mode, token, gen, k + 1, indices)

    def _try(self, mode: str, token: str, gen: str, k: int, indices: str) -> Steps:
        base, at = f"{SUBMISSIONS}/{token}", f"{gen}.{k}"
        claim = f"{base}/claim.{at}"
        try:
            new = self.files.make(claim)
        except DiskFull:
            self._full(token)
            return
        if not new:
            yield from self._tell(token, gen, k)
            return
        yield 0.003
        if mode == "withdraw":
            if not self.files.full:
                self.files.write(f"{claim}/withdrawn", "")
            yield from self._tell(token, gen, k)
            return
        if self.files.full:
            self.files.unmake(claim)
            self._full(token)
            return
        self.files.write(f"{claim}/indices", f"{indices}\n")
        yield 0.003
        if self.files.on_node(f"{base}/fence.{at}") is not None:
            self._say("fenced", token)
            return
        yield 0.01
        claimed_at = self.world.timeline.now - (self.files.age(claim) or 0.0)
        code, out, err = yield from self._sbatch(base, indices, claimed_at)
        for name, text in (("out", out), ("err", err), ("receipt", str(code))):
            yield 0.002
            if not self.files.full:
                self.files.write(f"{base}/{name}.{at}", text)
        if code != 0 and not any(words in err for words in _REFUSALS):
            self._stopped = True
        yield from self._tell(token, gen, k)

    def _full(self, token: str) -> None:
        self._say("full", token)
        self._stopped = True

    def _sbatch(self, base, indices, claimed_at):
        """Yield and return what sbatch does: exit code, output, errors."""
        slurm, failed = self.slurm, "sbatch: error: Batch job submission failed: "
        yield self.chance.uniform(0.01, 0.3)
        if slurm.silent == "down":
            yield 4.0
            return 1, "", f"{failed}{NO_CONTACT}\n"
        if slurm.silent == "hung":
            if self.chance.random() < 0.6:  # it takes the request when it lives again, whoever waits for the answer
                slurm.up(lambda: slurm.accept(base, indices, claimed_at, self.sent_at))
            yield 5.0
            return 1, "", f"{failed}{TIMED_OUT}\n"
        if slurm.refusals:
            slurm.accounting.refused(self._name(base), slurm.next)
            return 1, "", f"{failed}{slurm.refusals.pop()}\n"
        if self.world.plan.submit_limit and slurm.crowd() + 1 + indices.count(",") > self.world.plan.submit_limit:
            return 1, "", LIMIT
        number = slurm.accept(base, indices, claimed_at, self.sent_at)
        yield self.chance.uniform(0.0, 0.1)
        if slurm.lost_answers:
            slurm.lost_answers -= 1
            yield 5.0
            return 1, "", f"{failed}{TIMED_OUT}\n"
        return 0, f"{number}\n", ""

    def _name(self, base: str) -> str:
        found = re.search(r"^#SBATCH --job-name=(.*)$", self.files.on_node(f"{base}/job.sh") or "", re.MULTILINE)
        return found[1] if found else ""

    def _fence(self, line: str) -> Steps:
        found = re.fullmatch(rf"true >({SUBMISSIONS}/\S+) \|\| exit", line)
        if found is None:
            raise UnknownScript(line)
        self.kind = "look"
        yield 0.002
        try:
            self.files.write(found[1], "")
        except DiskFull:
            raise Exit from None

    # ---- records ------------------------------------------------------------------------------------

    def _clock(self) -> int:
        return int(EPOCH + self.world.timeline.now)

    def _record(self, what: str, directory: str, name: str) -> None:
        text = self.files.seen(f"{directory}/.matterstack/{name}")
        if text is not None:
            self._say(what, directory, (text.splitlines() or [""])[0])

    def _claim_records(self, what: str, directory: str) -> None:
        for name in list(self.files.names(f"{directory}/.matterstack", "claim", seen=True)):
            self._record(what, directory, name)

    def _records(self) -> Steps:
        self.kind = "poll"
        self._say("clock", self._clock())
        for line in self._input():
            want, directory = line.split(" ")
            if want == "all":
                self._record("job", directory, "job")
                self._claim_records("claim", directory)
            self._ended(directory)
        yield 0.01

    def _ended(self, directory: str) -> None:
        meta = f"{directory}/.matterstack"
        if self.files.seen(f"{meta}/exit") is None:
            return
        self._record("exit", directory, "exit")
        if self.files.seen(f"{meta}/cancel") is not None:
            self._say("cancel", directory)
        if self.files.seen(f"{meta}/begun") is None:
            self._say("unbegun", directory)

    def _left(self) -> Steps:
        for line in self._input():
            word, directory = line.split(" ")
            meta = f"{directory}/.matterstack"
            if word == "over":
                self.files.remove(f"{meta}/secrets")
            if not self.files.is_directory(meta):
                self._say("gone", directory)
            self._claim_records("claim", directory)
            for name, word in (("cancel", "cancel"), ("limit-near", "limit"), ("refused", "refused")):
                if self.files.seen(f"{meta}/{name}") is not None:
                    self._say(word, directory)
            self._ended(directory)
        yield 0.01

    def _claims(self) -> Steps:
        for directory in self._input():
            self._claim_records("started", directory)
        yield 0.01

    def _mark(self, line: str) -> None:
        found = re.fullmatch(r"\[ ! -d (\S+) \] \|\| (\{ )?true >\1/cancel(?(2) && rm -f \1/secrets; \})", line)
        if found is None:
            raise UnknownScript(line)
        if self.files.is_directory(found[1]) and not self.files.full:
            self.files.write(f"{found[1]}/cancel", "")
            if found[2]:
                self.files.remove(f"{found[1]}/secrets")

    def _bar(self, records: str, words: str) -> None:
        if not self.files.is_directory(records):
            return
        try:
            self.files.link(f"{records}/claim", words, 0.0)
        except DiskFull:
            self.files.name(f"{records}/job", f"{records}/claim")
        line = self.files.on_node(f"{records}/claim") or ""
        if line.startswith(("ms1 over ", "ms-")):
            self.files.remove(f"{records}/secrets")
        self._say("bar", records.rpartition("/")[0], line)

    # ---- staging ------------------------------------------------------------------------------------

    def _unpack(self) -> Steps:
        self._say("begin")
        head, _, tar = (b"\n" + self._payload).partition(b"\n\n")
        going = [line for line in head.decode().split("\n") if line]
        self._started = {one for one in going if any(self.files.names(f"{one}/.matterstack", "claim", seen=True))}
        yield self.chance.uniform(0.01, 0.5)
        found: dict[str, bytearray] = {}

        def begin(entry):
            if entry.regular:
                content = found[entry.name] = bytearray()
                return content.extend
            return None

        TarReader(begin).feed(tar)
        for name, content in found.items():
            if any(name.startswith(f"{one}/") for one in self._started):
                continue
            try:
                self.files.write(name, content.decode())
            except DiskFull:
                self.out.append("tar: Cannot write: No space left on device\n")
                self._say("failed")
                raise StageFailed from None
        yield 0.01
