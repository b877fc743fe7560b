"""Who may write when: one transaction at a time per connection, all of it or nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from threading import RLock

from .errors import Doing, JournalError, LeaseLost, VersionConflict, translated
from .transaction import Transaction


class Group:
    """All appends within one ``with`` block become durable together, or none does.

    The block can be entered again within itself; the outermost end commits. Other threads wait for it.
    """

    def __init__(self, transaction: Transaction, path: str) -> None:
        self.lock = RLock()
        self._transaction = transaction
        self._path = path
        self._depth = 0
        self._failed: BaseException | None = None

    def __enter__(self) -> None:
        self.lock.acquire()
        try:
            if self._depth == 0:
                self._failed = None
                with Doing(self._path, "append"):
                    self._transaction.begin()
            self._depth += 1
        except BaseException:
            self._undo()
            self.lock.release()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._depth -= 1
        try:
            if self._depth:
                self._note(error)
            elif error or self._failed:
                self._undo()
                if error is None:
                    raise self._spoiled() from self._failed
            else:
                self._commit()
        finally:
            self.lock.release()
        if isinstance(error, sqlite3.Error):
            raise translated(error, self._path, "append") from error

    def settle(self) -> None:
        """Bring down what is still in memory, so that a read within the group sees it."""
        if self._depth and not self._failed:
            try:
                with Doing(self._path, "append"):
                    self._transaction.flush()
            except BaseException as error:
                self._failed = error
                raise

    def _note(self, error: BaseException | None) -> None:
        # A conflict is found before anything is written: the group may go on without that append.
        if not isinstance(error, (VersionConflict, LeaseLost)):
            self._failed = self._failed or error

    def _commit(self) -> None:
        try:
            with Doing(self._path, "append"):
                self._transaction.commit()
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        # The connection may be closed, or SQLite may have rolled back by itself.
        with contextlib.suppress(sqlite3.Error):
            self._transaction.rollback()

    def _spoiled(self) -> JournalError:
        return JournalError(
            f"{self._path}: one append of a group failed ({self._failed}). Nothing of the group was recorded.",
            path=self._path,
        )
