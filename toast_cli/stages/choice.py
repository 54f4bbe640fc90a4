"""Which model of a complete run is meant: its row in the run's table."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.plans import Plan
from toast_cli.report.changed import read_table
from toast_cli.runs.archive import require_accuracies
from toast_cli.runs.contents import FINETUNE, FRONT, RESULTS
from toast_cli.runs.record import read_record
from toast_cli.runs.rows import Found, Row, Tuned

_TABLES: tuple[tuple[str, type], ...] = ((FRONT, Found), (FINETUNE, Tuned), (RESULTS, Row))


def row_of(path: Path, plan: str | None, seed: int) -> Any:
    """The row of the table of the complete run at ``path`` for ``plan`` and the probe's ``seed``; without a plan, for the one that
    a search has chosen, or the only one there is.

    Raises ToastError if ``path`` is not a complete run, or has no such plan or seed or several to choose from.
    """
    if not read_record(path).get("complete"):
        raise ToastError(f"{path} is not a complete run: give the folder of a finished toast run, search or finetune.")
    rows: Sequence[Any] = next((found for name, kind in _TABLES if (found := read_table(path / name, kind))), [])
    if not rows:
        require_accuracies(path)
        raise ToastError(f"{path} holds no rows: restore its {RESULTS}, or run it again with fresh=true.")
    plans = list(dict.fromkeys(row.plan for row in rows))
    if plan is None:
        chosen = [row.plan for row in rows if getattr(row, "chosen", False)] or [
            text for text in plans if text != "none"
        ]
        if len(chosen) != 1:
            raise ToastError(
                f"{path} has several plans: choose one with plan=, such as plan={chosen[-1] if chosen else 'none'}."
            )
        plan = chosen[0]
    with suppress(ToastError):  # spans in another order are the same plan
        plan = str(Plan.parse(str(plan)))
    if str(plan) not in plans:
        raise ToastError(
            f"plan={plan} is not in {path}{did_you_mean(str(plan), plans)}: it has {', '.join(plans[:8])}{', …' * (len(plans) > 8)}."
        )
    of_plan = [row for row in rows if row.plan == str(plan)]
    seeds = [row.seed for row in of_plan if hasattr(row, "seed")]
    if seeds and seed not in seeds:
        raise ToastError(f"seed={seed} is not in {path}: it has {', '.join(map(str, dict.fromkeys(seeds)))}.")
    return next(row for row in reversed(of_plan) if getattr(row, "seed", seed) == seed)  # the most fit images
