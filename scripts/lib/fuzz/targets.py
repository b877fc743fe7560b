"""All targets by name. Each takes any bytes and returns; an AssertionError or anything else raised is a finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fuzz.answers import complaint, sacct, sbatch, site, squeue
from fuzz.files import profiles, workflow
from fuzz.names import ids, records
from fuzz.shells import shell
from fuzz.streams import tar

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    one.__name__: one for one in (squeue, sacct, sbatch, site, complaint, records, ids, profiles, workflow, tar, shell)
}
