"""A run that is complete, opened again to take one of its shortened models out."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from toast_cli import maps
from toast_cli.errors import ToastError, did_you_mean
from toast_cli.fitting import blank
from toast_cli.folders import RunFolder, read_record
from toast_cli.job import Fitted, Job
from toast_cli.plans import Plan, Variant
from toast_cli.results import read_csv
from toast_cli.rows import Found, Row, Tuned
from toast_cli.run import assemble

_TABLES: tuple[tuple[str, type], ...] = (("front.csv", Found), ("finetune.csv", Tuned), ("results.csv", Row))


@dataclass(frozen=True)
class Finished:
    """One model of a complete run, the last of the job's variants.

    ``row`` is its line in the run's table; ``tuned`` holds the weights that fine-tuning left.
    """

    job: Job
    fitted: Fitted
    row: dict[str, Any]
    tuned: Path | None

    @property
    def variant(self) -> Variant:
        return self.job.variants[-1]


def job_of(path: Path, plans: Sequence[Plan], how: Mapping[str, Any], scratch: Path) -> Job:
    """The complete run at ``path`` once more, for these ``plans``. New features go to ``scratch``.

    ``how`` has device, batch_size and workers. Raises ToastError where its weights or images are no longer those it was made
    from.
    """
    record = read_record(path)
    how = {key: how[key] for key in ("device", "batch_size", "workers")}
    cfg = cast(DictConfig, OmegaConf.merge(OmegaConf.load(path / "config.yaml"), how))
    job = assemble(cfg, RunFolder(scratch, "", ()), lambda depth: list(plans), record["precision"])
    for what, now in (("weights", job.backbone.fingerprint()), ("data", job.data.fingerprint())):
        if record[what] != now:
            raise ToastError(
                f"The {what} that {path} was made from have changed since: restore them, or run it again with fresh=true."
            )
    return job


def reopen(path: Path, plan: str | None, seed: int, how: DictConfig, scratch: Path) -> Finished:
    """The model of ``plan`` with the maps that the run has fitted, as ``job_of``.

    Raises ToastError where ``path`` is no complete run or has no such plan too.
    """
    if not read_record(path).get("complete"):
        raise ToastError(f"{path} is no complete run: give the folder of a finished toast run, search or finetune.")
    row = _row(path, plan, seed)
    job = job_of(path, list(dict.fromkeys([Plan(), Plan.parse(row.plan)])), how, scratch)
    if seed not in job.seeds:
        raise ToastError(f"seed={seed} is not in {path}: it has {', '.join(map(str, job.seeds))}.")
    job = replace(job, sequential=(getattr(row, "sequential", job.sequential[0]),))
    fitted = maps.load(path / maps.NAME, lambda key: blank(job, key.span), job.maps)
    tuned = path / f"model-seed{row.seed}.safetensors" if isinstance(row, Tuned) else None
    return Finished(job, fitted, asdict(row), tuned)


def _row(path: Path, plan: str | None, seed: int) -> Any:
    """The line of the run's own table that ``plan`` and the probe's ``seed`` stand for."""
    rows: Sequence[Any] = next((found for name, kind in _TABLES if (found := read_csv(path / name, kind))), [])
    if not rows:
        raise ToastError(f"{path} holds no rows: restore its results.csv, or run it again with fresh=true.")
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
    return next(row for row in reversed(of_plan) if getattr(row, "seed", seed) == seed)  # the one of most fit images
