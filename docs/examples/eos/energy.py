"""Energy of one fcc metal at one volume: ``python3 energy.py Al 0.950`` writes energy.json.

The volume is given as a ratio to the experimental one at room temperature.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(symbol: str, volume_ratio: float) -> None:
    # Most of the time goes into these, so the start is noted before them.
    import numpy as np
    from ase import Atoms
    from ase.calculators.emt import EMT
    from ase.data import atomic_numbers, reference_states

    a = reference_states[atomic_numbers[symbol]]["a"] * volume_ratio ** (1 / 3)
    # The fcc primitive cell: one atom, cell vectors (0, a/2, a/2) and so on.
    atoms = Atoms(symbol, cell=a / 2 * (1 - np.eye(3)), pbc=True, calculator=EMT())
    result = {
        "symbol": symbol,
        "lattice_constant_A": a,
        "volume_A3": atoms.get_volume(),
        "energy_eV": atoms.get_potential_energy(),
    }
    Path("energy.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    # One line per start, so that anybody can check that nothing ran twice.
    with Path("starts.log").open("a") as log:
        log.write(f"{os.getpid()} {time.time():.3f}\n")
    main(sys.argv[1], float(sys.argv[2]))
