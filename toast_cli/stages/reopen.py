"""Open a complete run again: for one of its shortened models, or for its features under another probe."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.files import beside
from toast_cli.plans import Plan, Variant
from toast_cli.runs import contents
from toast_cli.runs.contents import CONFIG, FINETUNE, FRONT, RECORD, RESULTS, TRANSLATORS
from toast_cli.runs.folder import Folder, read_record
from toast_cli.runs.naming import differences, scientific
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Found, Row, Tuned
from toast_cli.stages.fit import load_maps
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.load import load

_TABLES: tuple[tuple[str, type], ...] = ((FRONT, Found), (FINETUNE, Tuned), (RESULTS, Row))
_REUSED = (TRANSLATORS, contents.features("train"), contents.features("test"))
_MAY_DIFFER = ("probe", "seeds")


@dataclass(frozen=True)
class Reopened:
    """One model of a complete run, the last of the job's variants.

    ``row`` is its row in the run's table; ``tuned`` is the file of weights that fine-tuning left.
    """

    job: Job
    fitted: Fitted
    row: dict[str, Any]
    tuned: Path | None

    @property
    def variant(self) -> Variant:
        return self.job.variants[-1]


def job_of(path: Path, plans: Sequence[Plan], how: Mapping[str, Any], scratch: Path) -> Job:
    """The job of the complete run at ``path`` again, for these ``plans``. New features go to ``scratch``.

    ``how`` holds device, batch_size and workers. Raises ToastError if the weights or images have changed since the run.
    """
    record = read_record(path)
    how = {key: how[key] for key in ("device", "batch_size", "workers")}
    cfg = cast(DictConfig, OmegaConf.merge(OmegaConf.load(path / CONFIG), how))
    job = load(cfg, Folder(scratch), lambda depth: list(plans), record["precision"])
    for what, now in (("weights", job.backbone.fingerprint()), ("data", job.data.fingerprint())):
        if record[what] != now:
            raise ToastError(
                f"The {what} that {path} was made from have changed since: restore them, or run it again with fresh=true."
            )
    return job


def reopen(path: Path, plan: str | None, seed: int, how: DictConfig, scratch: Path) -> Reopened:
    """The model of ``plan`` with the maps that the run has fitted; ``how`` and ``scratch`` are those of ``job_of``.

    Raises ToastError as ``job_of`` does, and if ``path`` is not a complete run or has no such plan or seed.
    """
    record = read_record(path)
    if not record.get("complete"):
        raise ToastError(f"{path} is not a complete run: give the folder of a finished toast run, search or finetune.")
    row = _row(path, plan, seed)
    job = job_of(path, list(dict.fromkeys([Plan(), Plan.parse(row.plan)])), how, scratch)
    if seed not in job.seeds:
        raise ToastError(f"seed={seed} is not in {path}: it has {', '.join(map(str, job.seeds))}.")
    job = replace(job, sequential=(getattr(row, "sequential", job.sequential[0]),))
    tuned = path / contents.weights(row.seed) if isinstance(row, Tuned) else None
    return Reopened(job, Fitted(load_maps(job, path, job.maps), Folder(path).images_used), asdict(row), tuned)


def _row(path: Path, plan: str | None, seed: int) -> Any:
    """The row of the run's table for ``plan`` and the probe's ``seed``."""
    rows: Sequence[Any] = next((found for name, kind in _TABLES if (found := read_csv(path / name, kind))), [])
    if not rows:
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


def take_features(cfg: DictConfig, folder: Folder) -> None:
    """Link the maps and features of the run ``cfg.features_from`` into ``folder``.

    Raises ToastError if that run has no features, is not complete, or differs in more than its probe and seeds.
    """
    other = Path(str(cfg.features_from)).expanduser()
    if not (other / RECORD).is_file() or not all((other / name).is_file() for name in _REUSED):
        raise ToastError(
            f"features_from={other} holds no features: give the folder of a run that was made with keep_features=true."
        )
    theirs = OmegaConf.to_container(OmegaConf.load(other / CONFIG))
    differ = [key for key in differences(theirs, scientific(cfg)) if key.partition(".")[0] not in _MAY_DIFFER]
    record = read_record(other)
    if differ or not record.get("complete"):
        what = f"differs in {', '.join(sorted(differ))}" if differ else "is not complete"
        raise ToastError(f"features_from={other} {what}: give a complete run that differs only in probe and seeds.")
    for name in _REUSED:
        _link(other / name, folder / name)
    folder.note_images_used(Folder(other).images_used)
    folder.note(**{key: record[key] for key in ("precision", "weights", "data")})


def _link(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a copy where the file system has no hard links."""
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, beside(target))
        beside(target).replace(target)
