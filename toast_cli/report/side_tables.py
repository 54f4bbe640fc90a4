"""Tables beside those of accuracies: what plans cost their worst class, and what others report."""

from collections.abc import Sequence

from toast_cli.report.findings import Finding
from toast_cli.report.tables import Table, column_of, varying

REPORTED = (
    "Expected: what others report, as the runs' settings state it. The difference is measured less expected; it is within ± if it is at most "
    "the standard deviation over seeds."
)
CLASSES = (
    "The class with the largest drop, over all seeds; classes.csv has every class. ρ is Spearman's rank correlation over classes between "
    "the original's accuracy and the change: above 0, the classes that the original finds hard lose most. Chance alone pulls it below 0 "
    "where a class has few test images, and makes the largest of many drops large."
)


def worst_classes(findings: Sequence[Finding]) -> list[Table]:
    """A table for each model whose predictions are known: the class that each plan costs most."""
    known = [f for f in findings if f.worst_class is not None]
    models = dict.fromkeys(f.model for f in known)
    return [_worst(model, [f for f in known if f.model == model]) for model in models]


def _worst(model: str, findings: list[Finding]) -> Table:
    extras = varying(findings)
    head = ["data", "translator", *(name.replace("_", " ") for name in extras), "plan", "worst class"]
    head += ["its change", "its test images", "change of all", "ρ"]
    lines = []
    for f in sorted(findings, key=lambda f: f.blocks_removed):
        texts = [column_of(f, findings), f.translator, *(str(getattr(f, name)) for name in extras), f.plan]
        texts += [f.worst_class or "", f"{f.worst_class_delta:+.4f}", str(f.worst_class_images)]
        lines.append(
            [*texts, f"{f.delta_mean:+.4f}", "" if f.class_correlation is None else f"{f.class_correlation:+.2f}"]
        )
    no_ranks: list[int | None] = [None] * len(head)
    return Table(f"{model}: the class that each plan costs most", head, [(line, no_ranks) for line in lines], CLASSES)


def against_expected(findings: Sequence[Finding]) -> list[Table]:
    """A table for each model with accuracies that others report: these beside the measured ones."""
    known = [f for f in findings if f.expected is not None]
    models = dict.fromkeys(f.model for f in known)
    return [_expected(model, [f for f in known if f.model == model]) for model in models]


def _expected(model: str, findings: list[Finding]) -> Table:
    extras = varying(findings)
    head = ["data", "translator", *(name.replace("_", " ") for name in extras), "plan", "expected", "measured"]
    head += ["difference", "within ±"]
    lines = []
    for f in sorted(findings, key=lambda f: f.blocks_removed):
        expected, difference, spread = f.expected or 0.0, f.expected_delta or 0.0, f.accuracy_std
        texts = [column_of(f, findings), f.translator or "–", *(str(getattr(f, name)) for name in extras), f.plan]
        texts += [f"{expected:.4f}", f"{f.accuracy_mean:.4f}{'' if spread is None else f' ± {spread:.4f}'}"]
        within = "" if spread is None else "yes" if abs(difference) <= spread else "no"
        lines.append([*texts, f"{difference:+.4f}", within])
    no_ranks: list[int | None] = [None] * len(head)
    return Table(f"{model}: beside what others report", head, [(line, no_ranks) for line in lines], REPORTED)
