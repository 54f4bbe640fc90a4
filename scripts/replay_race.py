"""What would a race have cost, and which plans would it have lost? Replayed on the features of full runs.

    toast run spans=all keep_features=true hydra.run.dir=here
    python scripts/replay_race.py here 64 128 256      # any runs that were made with keep_features=true; images of the first round

A line for each number of test images of the first round, over DRAWS draws of the images: how many times fewer block
evaluations the race takes, how many plans had all images, for how many sizes the plan that is best in the full run went on
or one that the full run's test images cannot tell from it (the 95% paired bootstrap interval of the difference contains 0),
how much accuracy the front loses by mean and at most, and how many of the full run's best plans counted as beaten.

Before them, for comparison, what a full run itself loses where others of the test images choose: the best plans of one
half, judged like those of a race on the other half, over SPLITS halvings.
"""

import sys
from collections.abc import Iterator, Sequence
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
SPLITS = 20


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


def lost_by_chance(right: np.ndarray, seeds: int, sizes: Sequence[Sequence[int]]) -> Iterator[tuple[float, bool]]:
    """For each size's plans and halving of the test images, what ``lost`` says on one half about the best plan of the other."""
    halving = np.random.default_rng(0)
    for _ in range(SPLITS):
        chosen, judged = np.array_split(halving.permutation(right.shape[1]), 2)
        for plans in sizes:
            best, other = (max(plans, key=right[:, half].sum(axis=1).__getitem__) for half in (judged, chosen))
            yield lost(right[:, judged], seeds, best, [other])


def said(losses: Sequence[tuple[float, bool]]) -> str:
    """What ``lost`` has found, in words."""
    points, told = (np.array(values) for values in zip(*losses, strict=True))
    return (
        f"the same best {np.mean(points == 0):.2f}, within its interval {1 - np.mean(told):.2f}; "
        f"lost {100 * np.mean(points):.1f} points by mean, {100 * max(points):.1f} at most"
    )


def report(folder: Path, first: Sequence[int], keep: float = 0.5) -> None:
    """Print the lines of one run."""
    plans = list(dict.fromkeys(row.plan for row in read_csv(folder / "results.csv", Row)))
    job = job_of(folder, [Plan.parse(plan) for plan in plans], AUTO, folder)
    stored = predictions.read(folder / "predictions.safetensors")
    assert stored is not None, "a full run keeps its predictions"
    right = np.sum([stored.by_seed[seed] == stored.truth for seed in job.seeds], axis=0)
    whole = (len(job.data.train) + len(job.data.test)) * build_trie(job.variants, job.backbone.depth).evaluations()
    sizes = [[job.variants.index(each) for each in plans] for plans in by_size(job.variants).values()]
    print(f"{folder}: {len(job.variants)} plans, {len(job.data.train)} train and {len(job.data.test)} test images")
    print(f"  the other half's best: {said(list(lost_by_chance(right, len(job.seeds), sizes)))}", flush=True)
    for images in first:
        ratios, losses, finals, wrong = [], [], [], 0
        for draw in range(DRAWS):
            drawn = replace(job.data, seed=draw)
            schedule = Schedule.of(Settings(images, 0.95, keep), drawn, job.variants, job.backbone.depth)
            going, beaten, spent = replay(job, schedule)
            ratios.append(whole / spent)
            finals.append(len(going) - 1)
            for rows in sizes:
                best = max(rows, key=lambda plan: right[plan].sum())
                losses.append(lost(right, len(job.seeds), best, [plan for plan in rows if job.variants[plan] in going]))
                wrong += job.variants[best] in beaten
        print(
            f"  first round {images:4d}, keep {keep:g}: {np.mean(ratios):.1f} times fewer evaluations ({min(ratios):.1f} to {max(ratios):.1f}), "
            f"{np.mean(finals):.0f} plans on all images; {said(losses)}; {wrong} of {len(losses)} beaten",
            flush=True,
        )


if __name__ == "__main__":
    for name in (argument for argument in sys.argv[1:] if not argument.isdecimal()):
        report(Path(name), [int(argument) for argument in sys.argv[1:] if argument.isdecimal()])
