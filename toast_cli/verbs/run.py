"""``toast run``: config in, rows out.

model + data → one streaming pass of moments → translators → one pass of features for every plan → probes → results.csv
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toast_cli.errors import ToastError, require_flag
from toast_cli.launch import launch, own_folders, tell
from toast_cli.report.settings import Help
from toast_cli.runs import contents

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.machine.team import Team
    from toast_cli.report.tracking import Tracker
    from toast_cli.runs.folder import RunFolder
    from toast_cli.stages.beside import Further
    from toast_cli.stages.job import Fitted, Job
    from toast_cli.stages.race import Race
    from toast_cli.stages.schedule import Schedule

USAGE = "run [key=value ...]"
SUMMARY = "sweep over spans: results.csv, summary.csv, a table"
HELP = Help(
    "remove spans of a vision transformer's blocks, put a closed-form map in their place, measure what that costs and saves.",
    """\
toast run                                                  the embedded model on the embedded digits: offline, a minute
toast run model=dinov2_s data=cifar10 seeds=[0,1,2]        every span of a model from the hub
toast run model=vit_b data=folder data.path=photos         your own images: photos/train/<class>/, photos/test/<class>/
toast run model=dinov2_s model.checkpoint=w.safetensors data=cifar10 data.path=cifar10    no internet
toast run spans=[9-11,2-3+9-11] translator=identity        two plans: one span; two spans together
toast run spans=[8-9a,9a-9]                                block 9 without its attention, and without its MLP; spans=halves: all such spans
toast run -m model=vit_s,deit_s data=mnist,cifar10         every combination, one after the other
toast run experiment=smoke/digits                          a file of settings by name
toast run sweep=race sweep.test_images=64                  few images for every span, all of them for the best of each size
toast run --cfg job                                        show the settings, run nothing
toast run --config-dir my_conf data=mine                   with your own groups next to toast's""",
    """\
Run the same command again to finish what is missing. Results are in
outputs/run/<model>-<data>-<translator>-<hash>/results.csv; hydra.run.dir=<dir> puts them elsewhere.
Completion in bash: eval "$$(toast -sc install=bash)".""",
)


def main(argv: list[str]) -> None:
    """Run in the folder that the settings name, alone or as one of several processes, and print the table."""
    launch("run", "config", argv, HELP, _job)


def _job(cfg: "DictConfig", path: Path) -> None:
    from toast_cli.machine.team import join
    from toast_cli.report.sweep import require_rows
    from toast_cli.report.tracking import Tracker
    from toast_cli.runs import expected
    from toast_cli.runs.folder import open_folder
    from toast_cli.stages.beside import further, run_and_lend
    from toast_cli.stages.segmentation import run_segmentation, segments

    _refuse_what_cannot_race(cfg)
    rows, tracker = require_rows(cfg.rows), Tracker.check(cfg.get("tracker"))
    if segments(cfg, tracker is not None):
        with open_folder(path, cfg, [contents.SEGMENTATION, contents.SEGMENTATION_CLASSES]) as folder:
            if not folder.complete:
                run_segmentation(cfg, folder)
        tell(path / contents.SEGMENTATION, partial(_show_segmentation, rows=rows))
        return
    beside = further(cfg, path, own_folders())
    dry, reported = require_flag(cfg.dry, "dry"), expected.check(cfg.get("expected"))
    with join() as team:
        if dry:
            if team.leads:
                dry_run(cfg, path)
            return
        if not team.leads:
            if team.share(False):
                assist(cfg, path, team)
            return
        with open_folder(path, cfg, _outputs(cfg)) as folder:
            if reported and folder.record.get("expected") != reported:  # an experiment's may be corrected later
                folder.note(expected=reported)
            if team.share(not folder.complete):
                run_and_lend(run, cfg, folder, team) if beside else run(cfg, folder, team)
            if tracker is not None:
                tracker.take(folder, "run")
        if beside:
            _further_probes(path, beside, tracker, team)
    tell(path / contents.RESULTS, partial(_show, rows=rows, beside=[other for _, other in beside]))


def _further_probes(path: Path, beside: "Further", tracker: "Tracker | None", team: "Team") -> None:
    """Complete the runs ``beside`` the complete one in ``path``, on its features or, if these are gone, on those of the first."""
    from toast_cli.runs.folder import open_folder
    from toast_cli.stages.beside import forget_lent, has_features, run_and_lend

    source = path if has_features(path) else None
    for settings, other in beside:
        with open_folder(other, settings, _outputs(settings)) as folder:
            if not folder.complete:
                run_and_lend(run, settings, folder, team, source)
            if tracker is not None:
                tracker.take(folder, "run")
        source = source or (other if has_features(other) else None)
    forget_lent([path, *(other for _, other in beside)])


def _outputs(cfg: "DictConfig") -> list[str]:
    """The files that a complete run has. Raises ToastError for settings that do not say which."""
    from toast_cli.stages.settings import seeds_of

    keep = require_flag(cfg.keep_probabilities, "keep_probabilities")
    kept = [contents.probabilities(seed) for seed in seeds_of(cfg.seeds)] if keep else []
    return [contents.RESULTS, contents.SUMMARY, *kept]


def _show(path: Path, rows: str, beside: Sequence[Path]) -> None:
    from toast_cli.report.changed import read_table
    from toast_cli.report.sweep import print_probes, print_race, print_sweep
    from toast_cli.runs.rows import Raced, Summary

    if beside:
        print_probes({place: read_table(place / contents.SUMMARY, Summary) for place in (path, *beside)}, rows)
    print_sweep(read_table(path / contents.SUMMARY, Summary), path, rows)
    if raced := read_table(path / contents.RACE, Raced):
        print_race(raced)


def _show_segmentation(path: Path, rows: str) -> None:
    from toast_cli.report.changed import read_table
    from toast_cli.report.segmented import print_segmented
    from toast_cli.runs.segmented import Segmented

    print_segmented(read_table(path / contents.SEGMENTATION, Segmented), rows)


def _refuse_what_cannot_race(cfg: "DictConfig") -> None:
    """Raises ToastError for settings of a race that cannot be used, or that it would ignore."""
    from toast_cli.machine.team import expected
    from toast_cli.stages.racing import Settings
    from toast_cli.stages.settings import plain

    if Settings.check(plain(cfg.get("sweep"))) is None:
        return
    if require_flag(cfg.keep_features, "keep_features") or cfg.features_from is not None:
        raise ToastError(
            "keep_features and features_from are not for sweep=race, whose plans have features of different images: leave them out, or use "
            "sweep=full."
        )
    if expected() > 1:
        raise ToastError("sweep=race works in one process: start it without torchrun, or use sweep=full.")


def run(cfg: "DictConfig", folder: "RunFolder", team: "Team") -> None:
    """Complete the run in ``folder`` from wherever it stands; finished stages are not repeated.

    This is what the first of several processes does; the others ``assist``. Raises ToastError for invalid settings.
    """
    from toast_cli.stages.settings import check
    from toast_cli.stages.taken import take_features

    keep_features, keep = (require_flag(cfg[key], key) for key in ("keep_features", "keep_probabilities"))
    check(cfg)
    if cfg.features_from is not None:
        take_features(cfg, folder)

    from toast_cli.runs.results import summarise
    from toast_cli.runs.rows import Row, Summary
    from toast_cli.stages.encode import encode
    from toast_cli.stages.fit import fit
    from toast_cli.stages.forecast import announce
    from toast_cli.stages.load import begin
    from toast_cli.stages.probe import missing_seeds, score

    if keep:
        _require_probabilities(cfg)
    with folder.stage("load"):
        job = begin(cfg, folder, team=team)
        schedule = _schedule(cfg, job)
        features = announce(job, schedule=schedule).features  # how many a race writes, it does not know
        folder.note(feature_bytes=0 if schedule else features)
    with folder.stage("fit"):
        fitted = fit(job)
    if race := _race(job, fitted, schedule):
        with folder.stage("race"):
            job = race.decide()
    if team.share(bool(missing_seeds(job, keep))):
        maps = job.modules(fitted)
        with folder.stage("encode"):
            race.gather(job) if race else encode(job, maps)
        with folder.stage("probe"):
            score(job, fitted, maps, keep)
    if race:
        race.conclude(job, folder.rows(contents.RESULTS, Row))
    folder.write_rows(contents.SUMMARY, summarise(folder.rows(contents.RESULTS, Row)), Summary)
    if not keep_features:
        contents.remove_features(folder.path)
    folder.finish()


def _require_probabilities(cfg: "DictConfig") -> None:
    """Raises ToastError for a probe that gives no probabilities."""
    from toast_cli.stages.load import make_probe

    probe = make_probe(cfg)
    if not probe.gives_probabilities:
        raise ToastError(
            f"keep_probabilities=true is not for probe={probe.name}, which gives none: leave it out, or use another such as probe=linear."
        )


def _schedule(cfg: "DictConfig", job: "Job") -> "Schedule | None":
    """The rounds of a race; None for a full sweep."""
    from toast_cli.stages.load import plain
    from toast_cli.stages.racing import Settings
    from toast_cli.stages.schedule import Schedule

    settings = Settings.check(plain(cfg.get("sweep")))
    return Schedule.of(settings, job.data, job.variants, job.backbone.depth) if settings else None


def _race(job: "Job", fitted: "Fitted", schedule: "Schedule | None") -> "Race | None":
    """A race of the job's plans from wherever its folder stands; None for a full sweep."""
    from toast_cli.stages.race import Race

    return Race(job, job.modules(fitted), schedule) if schedule else None


def assist(cfg: "DictConfig", path: Path, team: "Team") -> None:
    """Do what every process of a run except the first does: its share of fitting and encoding, none of the writing.

    Raises ToastError as ``run`` does.
    """
    from toast_cli.runs.folder import Folder
    from toast_cli.stages.encode import encode
    from toast_cli.stages.fit import fit
    from toast_cli.stages.load import load

    job = load(cfg, Folder(path), team=team)
    fitted = fit(job)
    if team.share(False):
        encode(job, job.modules(fitted))


def dry_run(cfg: "DictConfig", path: Path) -> None:
    """Say what the run would do and take, and do and fetch nothing (``dry=true``). Raises ToastError as the run would."""
    from toast_cli.stages.settings import check

    check(cfg)

    from toast_cli.hub.listening import asking_only
    from toast_cli.runs.folder import Folder
    from toast_cli.stages.forecast import tell
    from toast_cli.stages.load import load

    with asking_only() as wanted:
        job = load(cfg, Folder(path))
        tell(job, wanted, _schedule(cfg, job))
