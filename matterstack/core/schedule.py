"""Which tasks may start: the dependencies that are still missing, counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class Schedule:
    """Dependencies of a workflow, ticked off as tasks settle. Costs are those of the edges, paid once.

    Args:
        needs: By task, the ids of those it waits for, each once; tasks that wait for none may be left out.
        tolerant: Tasks that start even when a dependency failed.
    """

    def __init__(self, needs: Mapping[str, Sequence[str]], tolerant: Collection[str]) -> None:
        self._missing = {task_id: len(ids) for task_id, ids in needs.items()}
        self._tolerant = frozenset(tolerant)
        self._settled: set[str] = set()
        self._dependents: dict[str, list[str]] = {}
        for task_id, ids in needs.items():
            for one in ids:
                self._dependents.setdefault(one, []).append(task_id)

    def is_ready(self, task_id: str) -> bool:
        """Return whether nothing that the task waits for is missing."""
        return not self._missing.get(task_id)

    def dependents(self, task_id: str) -> Sequence[str]:
        """Return the tasks that wait for this one directly."""
        return self._dependents.get(task_id, ())

    def settle(self, task_id: str, *, ok: bool) -> Iterator[tuple[str, bool]]:
        """Yield the dependents whose fate this decides: ``(id, True)`` may start, ``(id, False)`` must fail.

        A task is yielded once: after it must fail, it waits for nothing more. Settling again changes nothing.
        """
        if task_id in self._settled:
            return
        self._settled.add(task_id)
        for dependent in self._dependents.get(task_id, ()):
            missing = self._missing[dependent]
            if missing == 0:
                continue
            if not ok and dependent not in self._tolerant:
                self._missing[dependent] = 0
                yield dependent, False
            else:
                self._missing[dependent] = missing - 1
                if missing == 1:
                    yield dependent, True

    def downstream(self, task_ids: Iterable[str]) -> set[str]:
        """Return the ids of all tasks that depend on these, directly or not."""
        found: set[str] = set()
        todo = list(task_ids)
        while todo:
            for dependent in self._dependents.get(todo.pop(), ()):
                if dependent not in found:
                    found.add(dependent)
                    todo.append(dependent)
        return found
