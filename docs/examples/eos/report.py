"""Compare the fits with experiment: reads Al.json and so on, writes eos.csv, comparison.csv, .txt, eos.png.

Reference values: C. Kittel, Introduction to Solid State Physics, 8th edition (Wiley, 2005): lattice
constants from chapter 1, table 3; bulk moduli from chapter 3, table 3. Both hold for room temperature;
EMT gives the static lattice at 0 K.
"""

import csv
import json
import os
import time
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# symbol: lattice constant in Å, bulk modulus in GPa
KITTEL = {
    "Al": (4.05, 72.2),
    "Ni": (3.52, 186.0),
    "Cu": (3.61, 137.0),
    "Pd": (3.89, 180.8),
    "Ag": (4.09, 100.7),
    "Pt": (3.92, 278.3),
    "Au": (4.08, 173.2),
}
EV_A3_PER_GPA = 1 / 160.2176634


def write_csv(path: str, rows: list[dict]) -> None:
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def points_table(fits: list[dict]) -> list[dict]:
    return [
        {
            "metal": point["symbol"],
            "lattice_constant_A": f"{point['lattice_constant_A']:.5f}",
            "volume_A3": f"{point['volume_A3']:.5f}",
            "energy_eV": f"{point['energy_eV']:.6f}",
        }
        for fit in fits
        for point in fit["points"]
    ]


def comparison_table(fits: list[dict]) -> list[dict]:
    rows = []
    for fit in fits:
        a, bulk_modulus = fit["lattice_constant_A"], fit["bulk_modulus_GPa"]
        a_exp, bulk_modulus_exp = KITTEL[fit["symbol"]]
        rows.append(
            {
                "metal": fit["symbol"],
                "a_emt_A": f"{a:.3f}",
                "a_exp_A": f"{a_exp:.2f}",
                "a_diff_percent": f"{100 * (a / a_exp - 1):+.1f}",
                "B_emt_GPa": f"{bulk_modulus:.1f}",
                "B_exp_GPa": f"{bulk_modulus_exp:.1f}",
                "B_diff_percent": f"{100 * (bulk_modulus / bulk_modulus_exp - 1):+.1f}",
            }
        )
    return rows


def as_text(rows: list[dict]) -> str:
    lines = [
        "        lattice constant a (Å)      bulk modulus B (GPa)",
        "metal    EMT     exp.  diff. %      EMT    exp.   diff. %",
    ]
    for row in rows:
        metal, a, a_exp, a_diff, b, b_exp, b_diff = row.values()
        lines.append(f"{metal:<5}  {a:>6}  {a_exp:>5}  {a_diff:>6}    {b:>7}  {b_exp:>6}  {b_diff:>7}")
    lines.append("exp.: C. Kittel, Introduction to Solid State Physics, 8th ed., room temperature")
    return "\n".join(lines) + "\n"


def energy_curve(fit: dict, ratios: np.ndarray) -> np.ndarray:
    """Return E - E0 (eV) of the Birch-Murnaghan equation at these ratios V/V0."""
    y = ratios ** (-2 / 3)
    scale = 9 / 16 * fit["volume_A3"] * fit["bulk_modulus_GPa"] * EV_A3_PER_GPA
    return scale * ((y - 1) ** 3 * fit["bulk_modulus_derivative"] + (y - 1) ** 2 * (6 - 4 * y))


def draw(fits: list[dict], path: str) -> None:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    curves, moduli = figure.subplots(1, 2)
    for number, fit in enumerate(fits):
        color, volume = f"C{number}", fit["volume_A3"]
        ratios = np.array([point["volume_A3"] for point in fit["points"]]) / volume
        energies = np.array([point["energy_eV"] for point in fit["points"]]) - fit["energy_eV"]
        fine = np.linspace(ratios.min(), ratios.max(), 200)
        curves.plot(fine, energy_curve(fit, fine), color=color)
        curves.plot(ratios, energies, "o", color=color, markersize=4, label=fit["symbol"])
    curves.set(xlabel="volume / equilibrium volume", ylabel="energy - minimum (eV per atom)")
    curves.set_title("EMT energies and Birch-Murnaghan fits")
    curves.legend(ncols=2)
    places = np.arange(len(fits))
    symbols = [fit["symbol"] for fit in fits]
    colors = [f"C{number}" for number in places]
    moduli.bar(places - 0.2, [fit["bulk_modulus_GPa"] for fit in fits], 0.4, color=colors)
    moduli.bar(places + 0.2, [KITTEL[symbol][1] for symbol in symbols], 0.4, color="lightgray")
    moduli.set_xticks(places, symbols)
    moduli.set(ylabel="bulk modulus (GPa)")
    moduli.set_title("EMT (colour) and experiment (grey)")
    figure.savefig(path, dpi=120)


def main() -> None:
    fits = [json.loads(Path(f"{symbol}.json").read_text()) for symbol in KITTEL]
    comparison = comparison_table(fits)
    write_csv("eos.csv", points_table(fits))
    write_csv("comparison.csv", comparison)
    Path("comparison.txt").write_text(as_text(comparison))
    draw(fits, "eos.png")


if __name__ == "__main__":
    with Path("starts.log").open("a") as log:
        log.write(f"{os.getpid()} {time.time():.3f}\n")
    main()
