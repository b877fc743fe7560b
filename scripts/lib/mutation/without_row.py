"""A pytest plugin: leaves one row out of a table, ``WITHOUT_ROW=slurm:12``, before a test imports it."""

import os

from matterstack.core import machine, reconcile

TABLES = {"local": reconcile.LOCAL_TABLE, "slurm": reconcile.SLURM_TABLE, "machine": machine.TRANSITIONS}
NAMES = {"local": (reconcile, "LOCAL_TABLE"), "slurm": (reconcile, "SLURM_TABLE"), "machine": (machine, "TRANSITIONS")}

if mutant := os.environ.get("WITHOUT_ROW"):
    table, row = mutant.split(":")
    left = [one for number, one in enumerate(TABLES[table]) if number != int(row)]
    module, name = NAMES[table]
    setattr(module, name, type(TABLES[table])(left))
