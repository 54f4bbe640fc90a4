"""The experiment: config in, rows out.

model + data → one streaming pass of moments → translators → one pass of features for every plan → probes → results.csv
"""

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from toast_cli import __version__
from toast_cli.compute import Compute
from toast_cli.console import say
from toast_cli.data import Data
from toast_cli.errors import ToastError, did_you_mean, require_flag, require_group
from toast_cli.fitting import fit
from toast_cli.folders import RunFolder
from toast_cli.forecast import announce, tell
from toast_cli.inspection import oddities
from toast_cli.job import Job
from toast_cli.plans import Plan, parse_plans
from toast_cli.probes import Probe
from toast_cli.registry import CONF, options
from toast_cli.results import read_csv, summarise, write_csv
from toast_cli.reuse import take_features
from toast_cli.rows import Row, Summary
from toast_cli.stages import encode, missing_seeds, modules, score
from toast_cli.team import ALONE, Team
from toast_cli.translators import Translator


def run(cfg: DictConfig, folder: RunFolder, team: Team = ALONE) -> None:
    """Bring the run in ``folder`` to its end from wherever it stands; finished stages are not done again.

    Of several processes this is what the first does; the others ``assist``.

    Raises ToastError for what a person must mend.
    """
    keep_features = require_flag(cfg.keep_features, "keep_features")
    if cfg.features_from is not None:
        take_features(cfg, folder)
    with folder.stage("load"):
        job = prepare(cfg, folder, team=team)
        folder.note(feature_bytes=announce(job).features)
    with folder.stage("fit"):
        fitted = fit(job)
    if team.share(bool(missing_seeds(job))):
        maps = modules(job, fitted)
        with folder.stage("encode"):
            encode(job, maps)
        with folder.stage("probe"):
            score(job, fitted, maps)
    write_csv(folder / "summary.csv", summarise(read_csv(folder / "results.csv", Row)), Summary)
    if not keep_features:
        for name in ("train", "test"):
            job.feature_file(name).path.unlink(missing_ok=True)
    folder.finish()


def rehearse(cfg: DictConfig, folder: RunFolder) -> None:
    """``dry=true``: say what the run would do and take, and do nothing. Raises ToastError as the run would."""
    tell(assemble(cfg, folder, None, cfg.precision))


def assist(cfg: DictConfig, folder: RunFolder, team: Team) -> None:
    """What every process of a run but the first does: its share of fitting and encoding, none of the writing."""
    job = assemble(cfg, folder, None, cfg.precision, team)
    fitted = fit(job)
    if team.share(False):
        encode(job, modules(job, fitted))


def prepare(
    cfg: DictConfig, folder: RunFolder, plans_of: Callable[[int], list[Plan]] | None = None, team: Team = ALONE
) -> Job:
    """``assemble``, and record what the run is made of."""
    begun_with = folder.record.get("precision", "auto")  # what `auto` stood for when the run began
    job = assemble(cfg, folder, plans_of, begun_with if cfg.precision == "auto" else cfg.precision, team)
    folder.begin(
        weights=job.backbone.fingerprint(),
        data=job.data.fingerprint(),
        device=job.compute.device.type,
        precision=job.compute.precision,
    )
    odd = oddities(job.data)
    for sentence in odd:
        say(f"note: {sentence}")
    folder.note(depth=job.backbone.depth, oddities=odd)
    _note_versions(folder)
    return job


def assemble(
    cfg: DictConfig,
    folder: RunFolder,
    plans_of: Callable[[int], list[Plan]] | None,
    precision: str,
    team: Team = ALONE,
) -> Job:
    """Load the model, check the settings against it, then load the data.

    The plans are those that ``plans_of`` gives for the model's depth, or else ``spans``.
    """
    seeds, translator, probe = _seeds(cfg.seeds), instantiate(cfg.translator), instantiate(cfg.probe)
    sequential = require_flag(require_group(cfg.fit, "fit", ["sequential"])["sequential"], "fit.sequential")
    if not isinstance(translator, Translator):
        raise ToastError(
            f"translator={type(translator).__name__} is no translator: derive it from toast_cli.translators.Translator."
        )
    if not isinstance(probe, Probe):
        raise ToastError(f"probe={type(probe).__name__} is no probe: derive it from toast_cli.probes.Probe.")
    backbone = instantiate(cfg.model, _convert_="all")
    plans = plans_of(backbone.depth) if plans_of else parse_plans(_plain(cfg.spans), backbone.depth)
    translators = {"": translator} | named(plans, translator)
    if translator.trained and sequential:
        raise ToastError(
            f"fit.sequential=true needs a translator in closed form, and {translator.name} is trained: use translator=linear."
        )
    compute = Compute.pick(cfg.device, precision, backbone.width)
    batch_size = compute.batch_size(cfg.batch_size, backbone.tokens, backbone.width)
    workers = _workers(cfg.workers, compute)
    precision, batch_size = team.share((compute.precision, batch_size))
    compute = replace(compute, precision=precision)
    backbone.to(compute.device)
    backbone.block_dtype = compute.dtype
    probe.device, probe.head = compute.device, backbone.head if backbone.pooler is None else None
    probe.check(backbone.label)
    data = load_data(cfg)
    return Job(
        folder,
        backbone,
        data,
        plans,
        translators,
        probe,
        seeds,
        _protocol(cfg),
        compute,
        batch_size,
        workers,
        sequential=(sequential,),
        team=team,
    )


def _protocol(cfg: DictConfig) -> str:
    """The protocol's name, with those of its choices that were made otherwise: ``clean+splits=paper``."""
    known = options("protocol", [CONF])
    if cfg.protocol not in known:
        return str(cfg.protocol)
    usual: Any = OmegaConf.load(known[cfg.protocol])
    choices = [("data", "fit_order")]
    choices += [("data", "splits")] if cfg.data.get("one_split") else []  # other data sets have one way to be split
    choices += [("model", "preprocessing")] if cfg.model.get("paper_resize") else []
    other = [f"+{key}={cfg[group][key]}" for group, key in choices if cfg[group][key] != usual[group][key]]
    return f"{cfg.protocol}{''.join(other)}"


def named(plans: list[Plan], own: Translator) -> dict[str, Translator]:
    """The translators that spans name, each as its file in ``conf/translator`` has it. Raises ToastError for one that cannot be had."""
    known, found = options("translator", [CONF]), {}
    for name in sorted({span.translator for plan in plans for span in plan.spans} - {""}):
        if name not in known:
            raise ToastError(
                f"A span is to have the translator '{name}', which is not known{did_you_mean(name, known)}: toast list translators shows them."
            )
        found[name] = instantiate(OmegaConf.load(known[name]), tokens=own.tokens)
        if found[name].trained or own.trained:
            raise ToastError(
                f"A span is to have the translator '{name}' beside translator={own.name}: only closed forms can be mixed, such as linear and identity."
            )
    return found


def load_data(cfg: DictConfig) -> Data:
    """The data set, its fit images from ``fit_data`` where that is given."""
    data = instantiate(cfg.data, _convert_="all")
    if "_target_" not in cfg.fit_data:
        if cfg.fit_data.get("path") is not None:
            raise ToastError(f"fit_data.path={cfg.fit_data.path} needs a data set: add fit_data=folder or another.")
        return data
    asked = {
        key: cfg.data[key] for key in ("fit_images", "fit_order", "seed", "skip_bad_images", "splits", "streaming")
    }
    other = instantiate(cfg.fit_data, **asked, _convert_="all")
    return replace(data, fit=other.fit, fit_label=other.label)


def _note_versions(folder: RunFolder) -> None:
    """A run that went on under other versions lists both."""
    before, now = folder.record.get("versions", []), _versions()
    folder.note(versions=[*before, now] if now not in before else before)


def _seeds(seeds: Any) -> list[int]:
    values = _plain(seeds) if OmegaConf.is_config(seeds) else [seeds]
    if (
        not isinstance(values, list)
        or not values
        or not all(type(seed) is int and 0 <= seed < 2**63 for seed in values)
    ):
        raise ToastError(f"seeds={values} is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].")
    return list(dict.fromkeys(values))


def _plain(value: Any) -> Any:
    """A config node as Python's own lists and dicts."""
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def _workers(workers: Any, compute: Compute) -> int:
    """On a CPU the model takes so much longer than decoding that a process for it would only be in its way."""
    if workers == "auto":
        return 0 if compute.device.type == "cpu" else min(8, (os.cpu_count() or 1) - 1)
    if type(workers) is not int or workers < 0:
        raise ToastError(f"workers={workers} is not a number of processes: use auto or a whole number from 0.")
    return workers


def _versions() -> dict[str, str | None]:
    packages = ("torch", "timm", "datasets", "numpy", "pillow")
    ours = {"toast": __version__, "commit": _commit(), "python": platform.python_version()}
    return ours | {name: version(name) for name in packages}


def _commit() -> str | None:
    """The checkout's commit; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
