"""The best plan for each number of blocks removed beside the untouched model, as papers print it."""

from collections.abc import Collection, Sequence
from pathlib import Path

from toast_cli.report.findings import Finding
from toast_cli.report.labels import grouped, map_name, told_apart
from toast_cli.report.tables import Table
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.contents import FRONT
from toast_cli.runs.results import read_csv
from toast_cli.runs.searched import Found

SETTINGS = ("model", "data", "probe", "readout", "protocol", "precision")
Choice = tuple[str, str, str, bool, bool]  # model, data, plan, sequential, healed


def held_out_choices(paths: Sequence[Path]) -> set[Choice]:
    """The plans that searches among the runs at ``paths`` have chosen on held-out train images."""
    rows: list[Found] = [row for path in paths for row in read_csv(path / FRONT, Found)]
    return {(row.model, row.data, row.plan, row.sequential, row.healed) for row in rows}


def best_tables(
    findings: Sequence[Finding], runs: Sequence[CompleteRun], held_out: Collection[Choice] = ()
) -> list[Table]:
    """A table for each model, data set and probe: percentages and points, with what a reader has to know as its note.

    The plans that are ``held_out`` choices stand for their numbers of blocks; for other numbers it is the most accurate on test.
    """
    tables = []
    for key, group in grouped(findings, *SETTINGS):
        own = [f for f in group if f.fit_data in (f.data, "")]
        if any(f.plan == "none" for f in own) and any(f.plan != "none" for f in own):
            trained = {
                run.rows[0].train_images
                for run in runs
                if tuple(getattr(run.rows[0], name) for name in SETTINGS) == key
            }
            tables.append(_table(told_apart(findings, key), own, _best(own, held_out), held_out, trained))
    return tables


def _best(findings: Sequence[Finding], held_out: Collection[Choice]) -> list[Finding]:
    found: dict[float, Finding] = {}
    for f in sorted(findings, key=lambda f: (f.blocks_removed, _choice(f) not in held_out, -f.accuracy_mean, f.gflops)):
        found.setdefault(f.blocks_removed, f)
    return list(found.values())


def _choice(f: Finding) -> Choice:
    return f.model, f.data, f.plan, f.sequential, f.healed


def _table(
    title: str, findings: list[Finding], best: list[Finding], held_out: Collection[Choice], trained: Collection[int]
) -> Table:
    names = {map_name(f, findings) for f in findings if f.plan != "none"}
    on_test = [f for f in best if f.plan != "none" and _choice(f) not in held_out]
    several = len(names) > 1
    lines = [[*([map_name(f, findings) or "–"] if several else []), *_cells(f, f in on_test)] for f in best]
    head = [*["translator"] * several, "plan", "blocks removed", "accuracy (%)", "change (points)"]
    head += ["95% interval", "params (M)", "GFLOPs"]
    no_ranks: list[int | None] = [None] * len(head)
    note = _note(best, trained, None if several else next(iter(names)), bool(on_test))
    heading = f"{title}: the best plan for each number of blocks removed"
    return Table(heading, head, [(line, no_ranks) for line in lines], note)


def _cells(f: Finding, on_test: bool) -> list[str]:
    plan = f"{f.plan} †" if on_test else f.plan
    spread = "" if f.accuracy_std is None else f" ± {100 * f.accuracy_std:.2f}"
    worth = ["", ""]
    if f.plan != "none":
        known = f.delta_low is not None and f.delta_high is not None
        interval = f"[{100 * (f.delta_low or 0):+.1f}, {100 * (f.delta_high or 0):+.1f}]" if known else ""
        worth = [f"{100 * f.delta_mean:+.2f}{' ≈' if f.within_noise else ''}", interval]
    accuracy, sizes = f"{100 * f.accuracy_mean:.2f}{spread}", [f"{f.params / 1e6:.2f}", f"{f.gflops:.3g}"]
    return [plan, f"{f.blocks_removed}", accuracy, *worth, *sizes]


def _note(best: list[Finding], trained: Collection[int], translator: str | None, on_test: bool) -> str:
    """What a reader has to know: images, seeds, probe, and what the marks mean."""
    head = best[0]
    fit = " or ".join(map(str, sorted({f.fit_images for f in best if f.plan != "none"})))
    train = " or ".join(map(str, sorted(trained)))
    of_train = f", {train} train" if train else ""
    runs = f"{head.runs} seed{'s' * (head.runs > 1)}"
    maps = f"{translator} maps, " if translator else ""  # of one kind
    told = [
        f"{maps}{head.probe} probe; {fit} fit{of_train} and {head.test_images} test images, {runs}"
        + (" (± is the standard deviation over them)." if head.runs > 1 else "."),
        "Change: against none on the same test images, with its 95% paired bootstrap interval in points; ≈: no change lies in it.",
    ]
    told += ["†: the most accurate on test, which flatters it; without †: chosen on held-out train images."] if on_test else [
        "All plans were chosen on held-out train images."
    ]  # fmt: skip
    return " ".join(told)
