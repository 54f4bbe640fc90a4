"""How well can plans be chosen on train images? Rank correlation of held-out scores with test accuracies.

    toast run spans=all probe=logistic keep_features=true hydra.run.dir=here
    python scripts/held_out_score.py here      # any runs that were made with keep_features=true

A line for each penalty of the ridge classifier that `toast search` judges by, the last for the one that suits the original; a column for
each score of its predictions: cross-entropy, squared error, share of wrong classes. Judged are the train images that no map was
fitted on; test accuracies are the run's own, means over its probe seeds.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from toast_cli.plans import Plan
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.search.held_out import LeaveOneOut
from toast_cli.search.measured import unseen
from toast_cli.stages.reopen import job_of

AUTO = dict.fromkeys(("device", "batch_size", "workers"), "auto")


def report(folder: Path) -> None:
    """Print the table of one run."""
    rows = read_csv(folder / "results.csv", Row)
    plans = list(dict.fromkeys(row.plan for row in rows))
    tested = [np.mean([row.accuracy for row in rows if row.plan == plan]) for plan in plans]
    job = job_of(folder, [Plan.parse(plan) for plan in plans], AUTO, folder)
    features = job.feature_file("train").read()
    features = features.at(np.flatnonzero(np.isin(features.positions, unseen(job.data, len(features)))))
    labels = job.data.train.labels[features.positions]
    print(f"{folder}: {len(plans)} plans, {len(labels)} train images")
    for strength in (1e-3, 1e-2, 1e-1, 1.0, 10.0, None):
        judge = LeaveOneOut(labels, len(job.data.classes), strength).fit(features.of_plan(0))
        scores = []
        for number in range(len(plans)):
            off = judge._predict(features.of_plan(number), judge.strength_) - judge.target
            score = judge.score(features.of_plan(number))
            scores.append((score.loss, np.square(off).mean(), 1 - score.accuracy))
        agree = [-spearmanr(column, tested)[0] for column in zip(*scores, strict=True)]
        told = zip(("cross-entropy", "squared error", "wrong"), agree, strict=True)
        print(f"  penalty {judge.strength_:5g}: " + ", ".join(f"{name} {value:.2f}" for name, value in told))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        report(Path(argument))
