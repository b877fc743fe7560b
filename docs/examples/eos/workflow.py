"""Equations of state of seven fcc metals: 7 x 9 energies, 7 fits, 1 report = 71 tasks.

Run it with ``matterstack run workflow.py``; ``python3`` on PATH needs ase, numpy and matplotlib.
"""

from pathlib import Path

from matterstack import Task, Workflow, run_workflow

HERE = Path(__file__).parent
METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
VOLUME_RATIOS = [f"{0.9 + 0.025 * i:.3f}" for i in range(9)]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def energy_task(metal: str, number: int, volume_ratio: str) -> Task:
    return Task(
        f"python3 energy.py {metal} {volume_ratio}",
        f"{metal}-v{number}",
        files={"energy.py": HERE / "energy.py"},
        env=ONE_THREAD,
        outputs=["energy.json", "starts.log"],
    )


def fit_task(metal: str, energies: list[Task]) -> Task:
    points = {f"v{number}.json": energy.output("energy.json") for number, energy in enumerate(energies)}
    return Task(
        "python3 fit.py",
        f"{metal}-fit",
        files={"fit.py": HERE / "fit.py", **points},
        env=ONE_THREAD,
        outputs=["fit.json", "starts.log"],
    )


def report_task(fits: dict[str, Task]) -> Task:
    results = {f"{metal}.json": fit.output("fit.json") for metal, fit in fits.items()}
    return Task(
        "python3 report.py",
        "report",
        files={"report.py": HERE / "report.py", **results},
        env=ONE_THREAD,
        outputs=["eos.csv", "comparison.csv", "comparison.txt", "eos.png", "starts.log"],
    )


workflow = Workflow("eos")
all_fits = {}
for symbol in METALS:
    at_volumes = [workflow.add(energy_task(symbol, number, ratio)) for number, ratio in enumerate(VOLUME_RATIOS)]
    all_fits[symbol] = workflow.add(fit_task(symbol, at_volumes))
workflow.add(report_task(all_fits))

if __name__ == "__main__":
    run_workflow(workflow)
