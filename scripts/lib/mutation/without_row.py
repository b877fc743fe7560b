"""A pytest plugin: leaves one row out of a table, ``WITHOUT_ROW=slurm:12``, before a test imports it."""

import os

from matterstack.core import machine, reconcile

TABLES = {"local": (reconcile, "LOCAL_TABLE"), "slurm": (reconcile, "SLURM_TABLE"), "machine": (machine, "TRANSITIONS")}


def rows_of(table: str) -> list[object]:
    """Return the rows of one of the tables."""
    module, name = TABLES[table]
    return list(getattr(module, name))


if mutant := os.environ.get("WITHOUT_ROW"):
    chosen, row = mutant.split(":")
    module, name = TABLES[chosen]
    left = [one for number, one in enumerate(rows_of(chosen)) if number != int(row)]
    setattr(module, name, type(getattr(module, name))(left))
