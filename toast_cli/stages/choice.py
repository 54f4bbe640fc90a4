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
from toast_cli.runs.measured import Tuned
from toast_cli.runs.record import read_record
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Found

ALL_FOUND = "front"
_TABLES: tuple[tuple[str, type], ...] = ((FRONT, Found), (FINETUNE, Tuned), (RESULTS, Row))


def given_plans(value: object) -> str | tuple[str, ...] | None:
    """A plan, several of a list, or None, from what ``plan=`` was given. Raises ToastError for an empty list."""
    if value is None or isinstance(value, str) or not isinstance(value, Sequence):
        return None if value is None else str(value)
    if not value:
        raise ToastError("plan is an empty list: give plans of the run, such as plan=[none,9-11].")
    return tuple(map(str, value))


def rows_of(path: Path, plan: str | Sequence[str] | None, seed: int) -> list[Any]:
    """The rows of the table of the complete run at ``path`` for the probe's ``seed`` and a ``plan``, or each plan of a list once;
    without a plan, for the one that a search has chosen, or the only one there is. ``front`` stands for the untouched model and all
    that a search has found.

    Raises ToastError if ``path`` is not a complete run, or has no such plan or seed or several to choose from, and for the
    front of what is no search.
    """
    texts: list[str | None] = [plan] if plan is None or isinstance(plan, str) else list(plan)
    rows = _rows(path, texts)
    if plan == ALL_FOUND:
        if not (path / FRONT).is_file():
            raise ToastError(
                f"plan={plan} is all that a search has found, and {path} is no search: list plans of it, such as plan=[none,9-11]."
            )
        texts = sorted({row.plan: None for row in rows}, key=lambda text: text != "none")
    return list({row.plan: row for row in (_pick(path, rows, text, seed) for text in texts)}.values())


def _pick(path: Path, rows: Sequence[Any], plan: str | None, seed: int) -> Any:
    """The one of the ``rows`` that is meant."""
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


def _rows(path: Path, plans: Sequence[str | None]) -> list[Any]:
    """The rows of the models of a complete run. If the untouched model is among the ``plans`` and the run is a search, its row is
    from the results.

    Raises ToastError if there are none.
    """
    if not read_record(path).get("complete"):
        raise ToastError(f"{path} is not a complete run: give the folder of a finished toast run, search or finetune.")
    found = ((name, read_table(path / name, kind)) for name, kind in _TABLES)
    name, rows = next(((name, rows) for name, rows in found if rows), ("", []))
    if not rows:
        require_accuracies(path)
        raise ToastError(f"{path} holds no rows: restore its {RESULTS}, or run it again with fresh=true.")
    if name == FRONT and {"none", ALL_FOUND} & set(plans):
        rows = [*rows, *(row for row in read_table(path / RESULTS, Row) if row.plan == "none")]
    return rows
