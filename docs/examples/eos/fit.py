"""Equation of state of one metal from its volumes: reads v0.json, v1.json, ..., writes fit.json.

The third-order Birch-Murnaghan energy (F. Birch, Phys. Rev. 71, 809 (1947)) is a cubic polynomial in
x = V^(-2/3), so a linear least-squares fit gives it exactly and without starting values.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

GPA_PER_EV_A3 = 160.2176634


def birch_murnaghan(volumes: np.ndarray, energies: np.ndarray) -> dict:
    """Return the equilibrium: volume (Å³), energy (eV), bulk modulus (GPa), dB/dp, and the fit's error.

    Raises:
        ValueError: there are fewer than five points, or no minimum among them.
    """
    if len(volumes) < 5:
        raise ValueError(f"{len(volumes)} volumes; a third-order fit with an error needs 5 at least.")
    energy = np.polynomial.Polynomial.fit(volumes ** (-2 / 3), energies, 3)
    slope, curvature = energy.deriv(), energy.deriv(2)
    minima = [x.real for x in slope.roots() if abs(x.imag) < 1e-9 and curvature(x.real) > 0]
    minima = [x for x in minima if volumes.min() < x**-1.5 < volumes.max()]
    if len(minima) != 1:
        raise ValueError("no single minimum within the volumes; choose volumes around the equilibrium.")
    x0 = minima[0]
    volume = x0**-1.5
    # B = V d²E/dV² at the minimum, where dE/dx = 0 and dx/dV = -2/3 V^(-5/3).
    bulk_modulus = 4 / 9 * curvature(x0) * x0**3.5
    cubic = energy.deriv(3)(x0) / 6
    return {
        "volume_A3": volume,
        "energy_eV": energy(x0),
        "bulk_modulus_GPa": bulk_modulus * GPA_PER_EV_A3,
        "bulk_modulus_derivative": 4 + 16 * cubic * x0**3 / (9 * volume * bulk_modulus),
        "rms_error_eV": float(np.sqrt(np.mean((energy(volumes ** (-2 / 3)) - energies) ** 2))),
    }


def main() -> None:
    points = [json.loads(path.read_text()) for path in Path().glob("v*.json")]
    points.sort(key=lambda point: point["volume_A3"])
    volumes = np.array([point["volume_A3"] for point in points])
    energies = np.array([point["energy_eV"] for point in points])
    fit = birch_murnaghan(volumes, energies)
    # Four atoms in the cubic cell, one in the primitive cell that was computed.
    fit["lattice_constant_A"] = (4 * fit["volume_A3"]) ** (1 / 3)
    result = {"symbol": points[0]["symbol"], **fit, "points": points}
    Path("fit.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    with Path("starts.log").open("a") as log:
        log.write(f"{os.getpid()} {time.time():.3f}\n")
    main()
