"""What would a race have cost, and which plans would it have lost? Replayed on the features of full runs.

    toast run spans=all keep_features=true hydra.run.dir=here
    python scripts/replay_race.py here 64 128 256      # any runs that were made with keep_features=true; images of the first round

A line for each number of test images of the first round, over DRAWS draws of the images: how many times fewer block
evaluations the race takes, how many plans had all images, for how many sizes the plan that is best in the full run went on
or one that the full run's test images cannot tell from it (the 95% paired bootstrap interval of the difference contains 0),
how much accuracy the front loses by mean and at most, and how many of the full run's best plans counted as beaten.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toast_cli.plans import Plan, Variant
from toast_cli.report.statistics import bootstrap_interval
from toast_cli.runs import predictions
from toast_cli.runs.features import stacked
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages.job import Job
from toast_cli.stages.probe import right_answers
from toast_cli.stages.racing import Settings
from toast_cli.stages.reopen import job_of
from toast_cli.stages.rivals import BEATEN, RACING, verdicts
from toast_cli.stages.schedule import Schedule, by_size
from toast_cli.stages.unseen import unseen_accuracies
from toast_cli.stages.walk import build_trie

AUTO = dict.fromkeys(("device", "batch_size", "workers"), "auto")
DRAWS = 5


def replay(job: Job, schedule: Schedule) -> tuple[list[Variant], set[Variant], float]:
    """The variants that go on to all images, those that were beaten, and the block evaluations of the race."""
    going, beaten, spent = list(job.variants), set[Variant](), 0.0
    numbers = {each: i for i, each in enumerate(job.variants)}
    files = {split: job.feature_file(split).read() for split in ("train", "test")}
    for number in range(len(schedule.parts)):
        spent += schedule.images(number) * build_trie(going, job.backbone.depth).evaluations()
        if number == schedule.rounds:
            break
        sides = [np.concatenate([part[side] for part in schedule.parts[: number + 1]]) for side in (0, 1)]
        own = [numbers[each] for each in going]
        both = [(files[split].at(which), own) for split, which in zip(("train", "test"), sides, strict=True)]
        labels, truth = job.data.train.labels[sides[0]], job.data.test.labels[sides[1]]
        right = right_answers(job, stacked(both[:1]), labels, stacked(both[1:]), truth)
        scores = unseen_accuracies(job, stacked(both), np.concatenate([labels, truth]), "judge")
        stays = [going[0]]
        for size, plans in by_size(going).items():
            rows = [going.index(each) for each in plans]
            found = verdicts(
                right[rows], len(job.seeds), scores[rows], schedule.chance, schedule.places(size, number + 1)
            )
            stays += [each for each, verdict in zip(plans, found, strict=True) if verdict.outcome == RACING]
            beaten |= {each for each, verdict in zip(plans, found, strict=True) if verdict.outcome == BEATEN}
        going = [each for each in going if each in stays]
    return going, beaten, spent


def lost(right: np.ndarray, seeds: int, best: int, kept: Sequence[int]) -> tuple[float, bool]:
    """How much less accurate the best of the ``kept`` plans is than the ``best``, and whether all test images can tell."""
    change = right[best] - right[max(kept, key=lambda plan: right[plan].sum())]
    low, _ = bootstrap_interval(change, np.full(len(change), seeds))
    return change.mean() / seeds, low > 0


def report(folder: Path, sizes: Sequence[int], keep: float = 0.5) -> None:
    """Print the lines of one run."""
    plans = list(dict.fromkeys(row.plan for row in read_csv(folder / "results.csv", Row)))
    job = job_of(folder, [Plan.parse(plan) for plan in plans], AUTO, folder)
    stored = predictions.read(folder / "predictions.safetensors")
    assert stored is not None, "a full run keeps its predictions"
    right = np.sum([stored.by_seed[seed] == stored.truth for seed in job.seeds], axis=0)
    whole = (len(job.data.train) + len(job.data.test)) * build_trie(job.variants, job.backbone.depth).evaluations()
    print(f"{folder}: {len(job.variants)} plans, {len(job.data.train)} train and {len(job.data.test)} test images")
    for images in sizes:
        ratios, losses, finals, wrong = [], [], [], 0
        for draw in range(DRAWS):
            drawn = replace(job.data, seed=draw)
            schedule = Schedule.of(Settings(images, 0.95, keep), drawn, job.variants, job.backbone.depth)
            going, beaten, spent = replay(job, schedule)
            ratios.append(whole / spent)
            finals.append(len(going) - 1)
            for own in by_size(job.variants).values():
                rows = [job.variants.index(each) for each in own]
                best = max(rows, key=lambda plan: right[plan].sum())
                losses.append(
                    lost(right, len(job.seeds), best, [job.variants.index(each) for each in own if each in going])
                )
                wrong += job.variants[best] in beaten
        points, told = zip(*losses, strict=True)
        print(
            f"  first round {images:4d}, keep {keep:g}: {np.mean(ratios):.1f} times fewer evaluations ({min(ratios):.1f} to {max(ratios):.1f}), "
            f"{np.mean(finals):.0f} plans on all images; the same best {np.mean(np.array(points) == 0):.2f}, within its interval "
            f"{1 - np.mean(told):.2f}; lost {100 * np.mean(points):.1f} points by mean, {100 * max(points):.1f} at most; {wrong} of {len(points)} beaten",
            flush=True,
        )


if __name__ == "__main__":
    for name in (argument for argument in sys.argv[1:] if not argument.isdecimal()):
        report(Path(name), [int(argument) for argument in sys.argv[1:] if argument.isdecimal()])
