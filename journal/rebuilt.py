"""A projection folded anew in memory, and how the tables in the file differ from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from .event import RecordedEvent
from .projection import Projection, create_tables


class Rebuilt:
    """The tables of a projection as the events give them; the file's are ``stored`` in the same connection."""

    def __init__(self, connection: sqlite3.Connection, projection: Projection) -> None:
        self._connection = connection
        self._projection = projection
        self._misfit: str | None = None
        self._tables = create_tables(connection, projection)

    def apply(self, events: Sequence[RecordedEvent]) -> None:
        """Fold the next events; what they cannot be folded for is among the differences."""
        if self._misfit is None:
            try:
                self._projection.apply(self._connection, events)
            except Exception as error:  # noqa: BLE001  # whatever it raises says that these events do not fit
                self._misfit = str(error) or type(error).__name__

    def differences(self) -> Iterator[str]:
        """Yield what is wrong, one sentence a table."""
        name = self._projection.name
        if self._misfit is not None:
            yield f"projection {name}: its events cannot be folded: {self._misfit}"
            return
        for table in self._tables:
            if self._all("SELECT 1 FROM main.sqlite_master WHERE name = ? AND type = 'view'", table):
                if not self._same_view(table):
                    yield f"projection {name}, view {table}: it is not what the program made; rebuild it"
                continue
            try:
                what = (
                    None
                    if self._same_rows(table)
                    else _difference(self._rows("stored", table), self._rows("main", table))
                )
            except sqlite3.OperationalError as error:
                what = str(error)
            if what:
                yield f"projection {name}, table {table}: {what}"

    def _same_view(self, view: str) -> bool:
        """Compare a view's text; its rows follow from the tables, and it may read the events, too."""
        texts = [self._all(f"SELECT sql FROM {base}.sqlite_master WHERE name = ?", view) for base in ("stored", "main")]
        return texts[0] == texts[1]

    def _same_rows(self, table: str) -> bool:
        """Return whether the rows are the same, as far as a key tells them apart; False where it takes a closer look.

        As many rows here as there, and each of ours there: SQLite compares them several times as fast as Python.
        """
        unique = self._all('SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', table)
        if not unique:
            return False
        key = [column for (column,) in self._all("SELECT name FROM pragma_index_info(?)", unique[0][0])]
        columns = [column for (column,) in self._all("SELECT name FROM pragma_table_info(?, 'main')", table)]
        theirs = [column for (column,) in self._all("SELECT name FROM pragma_table_info(?, 'stored')", table)]
        if columns != theirs:
            return False
        counts = [self._all(f'SELECT count(*) FROM {base}."{table}" NOT INDEXED') for base in ("stored", "main")]
        if counts[0] != counts[1]:
            return False
        on = " AND ".join(f'there."{column}" = ours."{column}"' for column in key)
        same = " AND ".join(f'there."{column}" IS ours."{column}"' for column in columns)
        return not self._all(
            f'SELECT 1 FROM main."{table}" AS ours LEFT JOIN stored."{table}" AS there ON {on}'
            f" WHERE NOT ({same}) LIMIT 1"
        )

    def _rows(self, base: str, table: str) -> Iterator[tuple[object, ...]]:
        width = len(self._connection.execute(f'SELECT * FROM {base}."{table}" LIMIT 0').description)
        order = ", ".join(str(column + 1) for column in range(width))
        return self._connection.execute(f'SELECT * FROM {base}."{table}" ORDER BY {order}')

    def _all(self, sql: str, *values: object) -> list[tuple[str, ...]]:
        return self._connection.execute(sql, values).fetchall()


def _difference(stored: Iterator[tuple[object, ...]], rebuilt: Iterator[tuple[object, ...]]) -> str | None:
    end = object()
    while True:
        left, right = next(stored, end), next(rebuilt, end)
        if left is end and right is end:
            return None
        if left != right:
            return (
                f"{'no row' if left is end else left} stands where the events give "
                f"{'no row' if right is end else right}; rebuild it"
            )
