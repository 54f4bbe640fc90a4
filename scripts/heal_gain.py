"""What healing and maps that see the image are worth, plan by plan, and what is left of the loss where the best is chosen.

    toast run -m data.seed=0,1,2 translator=affine,context fit.heal=false,true spans=[4-8,2-6] probe=logistic keep_features=true hydra.sweep.dir=here
    python scripts/heal_gain.py here/*/

For each plan: points of test accuracy against the original, means over draws (data.seed) and probe seeds, for every
translator, healed or not; and how far the features of the test images are from the original's, as a share of what these
vary. ``chosen`` is the way to fit a plan that has the least loss on train images that no map was fitted on (``toast
search`` judges by the same loss); no test image chooses anything. ``left`` is its loss as a share of the affine map's.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toast_cli.plans import Plan
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.search.held_out import LeaveOneOut
from toast_cli.search.measured import unseen
from toast_cli.stages.reopen import job_of

AUTO = dict.fromkeys(("device", "batch_size", "workers"), "auto")


@dataclass(frozen=True)
class Measured:
    """``points``: change of test accuracy. ``off``: distance of the features. ``loss``: on images that no map has seen."""

    points: float
    off: float
    loss: float


def measure(folder: Path) -> dict[tuple[str, int, str], Measured]:
    """The plans of one run by plan, draw and way to fit."""
    rows = read_csv(folder / "results.csv", Row)
    first = [row for row in rows if row.seed == rows[0].seed]
    job = job_of(folder, [Plan.parse(row.plan) for row in first], AUTO, folder)
    train, test = (job.feature_file(split).read() for split in ("train", "test"))
    train = train.at(np.flatnonzero(np.isin(train.positions, unseen(job.data, len(train)))))
    judge = LeaveOneOut(job.data.train.labels[train.positions], len(job.data.classes)).fit(train.of_plan(0))
    original = test.of_plan(0)
    varies = np.linalg.norm(original - original.mean(0))
    found = {}
    for number, row in enumerate(first[1:], start=1):
        points = 100 * float(np.mean([each.accuracy_delta for each in rows if each.plan == row.plan]))
        off = float(np.linalg.norm(test.of_plan(number) - original) / varies)
        way = f"{row.translator}{' healed' * job.fits[0].healed}"
        found[row.plan, row.data_seed, way] = Measured(points, off, judge.score(train.of_plan(number)).loss)
    return found


def report(folders: list[Path]) -> None:
    """Print a line for each plan and one for their mean."""
    found: dict[tuple[str, int, str], Measured] = {}
    for folder in folders:
        found |= measure(folder)
    ways = sorted({way for _, _, way in found})
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for plan, draw in dict.fromkeys(key[:2] for key in found):
        own = {way: found[plan, draw, way] for way in ways if (plan, draw, way) in found}
        for way, each in own.items():
            table[plan][way].append(each.points)
            table[plan][f"{way} off"].append(each.off)
        table[plan]["chosen"].append(min(own.values(), key=lambda each: each.loss).points)
    columns = [*ways, "chosen", *(f"{way} off" for way in ways)]
    print(f"{'plan':>12} | " + " | ".join(f"{name:>14}" for name in columns))
    means = {column: np.mean([np.mean(cells[column]) for cells in table.values()]) for column in columns}
    for plan, cells in table.items():
        print(f"{plan:>12} | " + " | ".join(_cell(cells[column], column) for column in columns))
    print(f"{'mean':>12} | " + " | ".join(f"{means[column]:>+14.2f}" for column in columns))
    print(f"left of affine's loss: {means['chosen'] / means['affine']:.2f}")


def _cell(values: list[float], column: str) -> str:
    """Mean and, for accuracies, the spread over draws."""
    if column.endswith("off"):
        return f"{np.mean(values):>14.3f}"
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.1f}{spread}".rjust(14)


if __name__ == "__main__":
    report([Path(argument) for argument in sys.argv[1:]])
