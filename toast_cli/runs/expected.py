"""Accuracies that others report for a run's plans. They are kept in the run's record: they decide nothing that it computes."""

from collections.abc import Mapping
from typing import Any

from toast_cli.errors import ToastError, is_number
from toast_cli.plans import Plan


def check(given: Any) -> dict[str, float]:
    """The accuracies ``given`` by plan, each plan in its own spelling; empty for None.

    Raises ToastError for anything but fractions by plan.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(map(_is_fraction, given.values())):
        raise ToastError(
            f"expected={given} does not give accuracies: write a fraction for each plan, as in {{none: 0.74, 9-11: 0.7}}."
        )
    return {str(Plan.parse(str(plan))): float(accuracy) for plan, accuracy in given.items()}


def _is_fraction(value: object) -> bool:
    return is_number(value) and 0 <= value <= 1  # type: ignore[operator]
