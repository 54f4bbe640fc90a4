"""Tables beside those of accuracies: what plans cost their worst class, and what others report."""

from collections.abc import Callable, Mapping, Sequence

from toast_cli.report.findings import Finding
from toast_cli.report.tables import Table, column_of, varying
from toast_cli.runs.rows import Raced

_Columns = Mapping[str, Callable[[Finding], str]]  # the text of each column, by its name

REPORTED = (
    "Expected: what others report, as the runs' settings state it. The difference is measured less expected; it is within ± if it is at most "
    "the standard deviation over seeds."
)
CLASSES = (
    "The class with the largest drop, over all seeds; classes.csv has every class. ρ is Spearman's rank correlation over classes between "
    "the original's accuracy and the change: above 0, the classes that the original finds hard lose most. Chance alone pulls it below 0 "
    "where a class has few test images, and makes the largest of many drops large."
)

RACES = (
    "Each plan's probe was trained and tested on the numbers of images in its line, so its accuracy is not that of a plan on all images. The "
    "interval bounds what the same probe reaches on all test images. Behind: the accuracy less that of the best plan of its size, by the "
    "score in race.csv, in the same round; at best: how far ahead of that plan it may be. Beaten: behind even so. Halved: not among those of "
    "its size that go on by their scores, a share of sweep.keep and what costs little."
)


def left_races(rows: Sequence[Raced]) -> list[Table]:
    """A table for each model of the plans that left a race, with the images that they had."""
    left = [row for row in rows if row.outcome != "finished"]
    head = [
        "data",
        "translator",
        "fit",
        "plan",
        "blocks removed",
        "fit images",
        "data seed",
        "train images",
        "test images",
    ]
    head += ["accuracy", "low", "high", "behind", "at best", "outcome"]
    tables = []
    for model in dict.fromkeys(row.model for row in left):
        lines = [
            [row.data, row.translator, "healed" if row.healed else "sequential" * row.sequential, row.plan]
            + [
                str(each)
                for each in (row.blocks_removed, row.fit_images, row.data_seed, row.train_images, row.test_images)
            ]
            + [f"{each:.4f}" for each in (row.accuracy, row.accuracy_low, row.accuracy_high)]
            + ["" if each is None else f"{each:+.4f}" for each in (row.behind, row.behind_high)]
            + [row.outcome]
            for row in sorted(left, key=lambda row: row.blocks_removed)
            if row.model == model
        ]
        no_ranks: list[int | None] = [None] * len(head)
        tables.append(Table(f"{model}: plans that left a race", head, [(line, no_ranks) for line in lines], RACES))
    return tables


def worst_classes(findings: Sequence[Finding]) -> list[Table]:
    """A table for each model whose predictions are known: the class that each plan costs most."""
    known = [f for f in findings if f.worst_class is not None]
    columns: _Columns = {
        "worst class": lambda f: f.worst_class or "",
        "its change": lambda f: f"{f.worst_class_delta:+.4f}",
        "its test images": lambda f: str(f.worst_class_images),
        "change of all": lambda f: f"{f.delta_mean:+.4f}",
        "ρ": lambda f: "" if f.class_correlation is None else f"{f.class_correlation:+.2f}",
    }
    return _by_model(known, "the class that each plan costs most", columns, CLASSES)


def against_expected(findings: Sequence[Finding]) -> list[Table]:
    """A table for each model with accuracies that others report: these beside the measured ones."""
    known = [f for f in findings if f.expected is not None]
    columns: _Columns = {
        "expected": lambda f: f"{f.expected:.4f}",
        "measured": lambda f: f"{f.accuracy_mean:.4f}" + ("" if f.accuracy_std is None else f" ± {f.accuracy_std:.4f}"),
        "difference": lambda f: f"{f.expected_delta:+.4f}",
        "within ±": _within,
    }
    return _by_model(known, "beside what others report", columns, REPORTED)


def _within(finding: Finding) -> str:
    """Whether the difference is within the spread over seeds; empty for one seed."""
    if finding.accuracy_std is None or finding.expected_delta is None:
        return ""
    return "yes" if abs(finding.expected_delta) <= finding.accuracy_std else "no"


def _by_model(findings: Sequence[Finding], title: str, columns: _Columns, note: str) -> list[Table]:
    """A table for each model: what tells a plan's line from others, then the ``columns``."""
    tables = []
    for model in dict.fromkeys(f.model for f in findings):
        own = [f for f in findings if f.model == model]
        extras = varying(own)
        head = ["data", "translator", *(name.replace("_", " ") for name in extras), "plan", *columns]
        lines = [
            [column_of(f, own), f.translator or "–", *(str(getattr(f, name)) for name in extras), f.plan]
            + [text(f) for text in columns.values()]
            for f in sorted(own, key=lambda f: f.blocks_removed)
        ]
        no_ranks: list[int | None] = [None] * len(head)
        tables.append(Table(f"{model}: {title}", head, [(line, no_ranks) for line in lines], note))
    return tables
