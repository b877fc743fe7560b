"""What is true in the simulated world, and what MatterStack promises about it: checked when something is recorded,
submitted or started.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from journal import NewEvent
from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, evolve
from matterstack.core.machine import COMPLETED, FAILED

if TYPE_CHECKING:
    from simulation.slurm import Job
    from simulation.world import World

_RECORD_S = 400.0  # so long may an exit record be there unread: polls, a silent cluster, a stopped controller
WORDS = ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "CANCELLED")


class Truth:
    """Watches. Tokens name attempts."""

    def __init__(self, world: World) -> None:
        self.world, self.timeline, self.run = world, world.timeline, world.run_id
        self.attempts: dict[str, Attempt] = {}
        self.requested: set[tuple[str, str]] = set()  # (submission, attempt), both tokens, durable
        self.elements: dict[tuple[str, int | None], str] = {}  # attempts by submission and index
        self.task_of: dict[str, str] = {}
        self.starts: dict[str, list[tuple[str, int]]] = {}
        self.claims: dict[str, float] = {}
        self.newest: dict[str, int] = {}  # restart count of the last start that has the claim
        self.overwritten: set[str] = set()  # attempts whose record may be that of an older start
        self.exits: dict[str, list[tuple[int, float]]] = {}
        self.words: dict[str, set[str]] = {}
        self.refused: set[str] = set()
        self.final: dict[str, str] = {}  # attempts with an end that leaves no doubt, and which
        self.events = 0

    def violate(self, *words: object) -> None:
        self.world.trace("VIOLATION:", *words)
        self.timeline.violate(" ".join(map(str, words)))

    # ---- what happens -------------------------------------------------------------------------------

    def word(self, token: str, word: str, code: int) -> None:
        """Slurm said how a job of the attempt ended."""
        self.words.setdefault(token, set()).add(word if word != "FAILED" else f"FAILED {code}")

    def claimed(self, token: str, restart: int, seen_at: float) -> None:
        """The run claim was taken; the login node sees it later."""
        self.claims.setdefault(token, seen_at)
        self.newest[token] = restart

    def recorded(self, token: str, restart: int, code: int, seen_at: float) -> None:
        """The exit record was written, over an earlier one; only that of the last start counts."""
        if restart == self.newest[token]:
            self.exits.setdefault(token, []).append((code, seen_at))
        else:
            self.overwritten.add(token)

    def started(self, token: str, job: Job, restart: int) -> None:
        """The user's command begins."""
        starts = self.starts.setdefault(token, [])
        starts.append((job.shown, restart))
        self.world.trace("START", self.task_of.get(token, token), "by job", job.shown)
        allowed = self.world.plan.requeue and len({one for one, _ in starts}) == 1
        restarts = [count for _, count in starts]
        if len(starts) > 1 and not (allowed and restarts == sorted(set(restarts))):
            self.violate(f"attempt {token} of {self.task_of.get(token)} was started {len(starts)} times: {starts}")
        if token in self.final and not restart:  # a controller may forget an end and start again what may start again
            self.violate(f"attempt {token} of {self.task_of[token]} was recorded as {self.final[token]}, and it starts")

    def submitting(self, submission: str, tokens: Sequence[str], sent_at: float) -> None:
        """Slurm takes a submission; what the controllers knew counts as of when the command was sent."""
        for token in tokens:
            if (submission, token) not in self.requested:
                self.violate(f"{submission} submits attempt {token}, and no such intent is in the journal")
        for job in self.world.slurm.of_base.get(f".matterstack/submissions/{submission}", ()):
            known = job.prompt and job.accepted < sent_at and job.token in tokens
            if known and (job.live or job.shown in [one for one, _ in self.starts.get(job.token, ())]):
                self.violate(f"submission {submission} goes to Slurm again, though job {job.shown} is there")
        for token in tokens:
            if self.claims.get(token, float("inf")) + 120 < sent_at:
                self.violate(f"attempt {token} is submitted again, though it has started")

    def strays(self, jobs: Sequence[Job]) -> None:
        """A controller ends jobs as superfluous ones of their submissions."""
        for job in jobs:
            others = [one for one in self.world.slurm.of_token[job.token] if one not in jobs]
            if job.live and not any(one.live or one.run is not None for one in others):
                self.violate(f"job {job.shown} is ended as superfluous, and it is the only one of attempt {job.token}")

    # ---- what is recorded ---------------------------------------------------------------------------

    def committed(self, stream: str, events: Sequence[NewEvent]) -> None:
        """Events are durable now."""
        if stream != self.run:
            return
        self.events += len(events)
        for new in events:
            _, _, task = new.subject.partition("/")
            event = ev.decode(new.type, new.data)
            self.world.trace("event", task, event)
            if not task:
                continue
            if isinstance(event, ev.TaskAdded):
                self.attempts[task] = Attempt(task)
                continue
            before = self.attempts[task]
            after = self.attempts[task] = evolve(before, event)
            # An end by absence is of a job that may live on, where one has begun.
            sure = after.reason not in ("LOST", "INTERRUPTED") or before.token not in self.claims
            if before.token and after.state is FAILED and sure:
                self.final[before.token] = str(after.reason)
            self._judge(task, before, event)

    def _judge(self, task: str, before: Attempt, event: ev.Event) -> None:
        match event:
            case ev.SubmitRequested():
                self.task_of[event.token] = task
                self.requested.add((event.array or event.token, event.token))
                self.elements[event.array or event.token, event.index] = event.token
            case ev.TaskCompleted():
                self.final[before.token] = "COMPLETED"
                if 0 not in [code for code, _ in self.exits.get(before.token, ())]:
                    self.violate(f"task {task} is recorded as COMPLETED, and no record says so")
            case ev.TaskFailed():
                if problem := self._unproved(before, event):
                    self.violate(f"task {task} is recorded as FAILED({event.reason}): {problem}")
            case ev.SubmitRefused():
                if not self.refused:
                    self.violate(f"task {task} is recorded as refused, and nobody refused anything")
            case ev.SubmitAbsent():
                self._absent(task, before)

    def _unproved(self, attempt: Attempt, event: ev.TaskFailed) -> str:
        """Return what is wrong with an end, or ``""``."""
        token, reason = attempt.token, event.reason
        words, exits = self.words.get(token, set()), self.exits.get(token, [])
        match reason:
            case "EXIT_CODE":
                codes = [code for code, _ in exits]
                proved = event.exit_code in codes or any(word.startswith("FAILED") for word in words)
                return "" if proved else "neither a record nor Slurm says so"
            case "INTERRUPTED" | "LOST":
                return self._lost(token, reason)
            case "CANCELLED":
                jobs = self.world.slurm.of_token.get(token, [])
                asked = attempt.cancel_requested and not any(job.live and job.prompt for job in jobs)
                return "" if asked or "CANCELLED" in words else "it is not over, and Slurm did not say that it is"
            case "TIMEOUT" if any("limit-near" in line for line in self._records(attempt)):
                return ""
            case "DEPENDENCY_FAILED" | "SUBMIT_REFUSED":
                return ""
            case _:
                never_began = token not in self.claims and any(word.startswith("FAILED") for word in words)
                return (
                    ""
                    if reason in words or (reason == "NODE_FAIL" and never_began)
                    else f"Slurm said {sorted(words) or 'nothing'}"
                )

    def _records(self, attempt: Attempt) -> list[str]:
        directory = f"{self.run}/{attempt.task_id}/{attempt.number}/.matterstack"
        return list(self.world.files.names(directory, "limit-near", seen=False))

    def _lost(self, token: str, reason: str) -> str:
        now = self.timeline.now
        jobs = self.world.slurm.of_token.get(token, [])
        if any(job.live and job.prompt and job.now.word != "COMPLETING" for job in jobs):
            return "a job of it is in the queue"
        least_s = 85.0 if reason == "LOST" else 590.0
        gone_at = max((job.gone_at or 0.0 for job in jobs), default=0.0)
        if now - gone_at < least_s:
            return f"it left the queue only {now - gone_at:.0f} s ago"
        exits = self.exits.get(token, ()) if token not in self.overwritten else ()
        read_s = [now - seen_at for _, seen_at in exits]
        return f"its record has been there for {max(read_s):.0f} s" if read_s and max(read_s) > _RECORD_S else ""

    def _absent(self, task: str, before: Attempt) -> None:
        token, now = before.token, self.timeline.now
        jobs = self.world.slurm.of_token.get(token, [])
        if any(job.live and job.prompt for job in jobs):
            self.violate(f"task {task} is recorded as not submitted, and a job of it is in the queue")
        if now - self.claims.get(token, now) > 120:
            self.violate(f"task {task} is recorded as not submitted, and it has started")

    # ---- at the end ---------------------------------------------------------------------------------

    def at_rest(self, undecided: set[str]) -> None:
        """Check that every task is final, or undecided, or waits for one that is."""
        for task, attempt in self.attempts.items():
            if attempt.state in (COMPLETED, FAILED):
                continue
            waits = self.world.campaign_needs(task)
            if not any(one in undecided or self.attempts[one].state not in (COMPLETED, FAILED) for one in waits):
                self.violate(f"task {task} is left {attempt.state} {attempt.stage} for no reason")
