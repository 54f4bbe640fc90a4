"""``toast finetune``: train a shortened model. Config in, finetune.csv and the weights out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toast_cli.launch import launch_in_folder
from toast_cli.report.settings import Help
from toast_cli.runs import contents

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.models.backbone import Backbone
    from toast_cli.runs.folder import RunFolder

USAGE = "finetune [key=value ...]"
SUMMARY = "train a shortened model: accuracy before and after"
HELP = Help(
    "remove a span, put a closed-form map in its place, then train what is left; accuracy before and after.",
    """\
toast finetune                                             the embedded model without its last two blocks
toast finetune spans=[7-11] tune.train_maps=false          the map stays as fitted
toast finetune spans=none                                  the untouched model, to compare with
toast finetune model=vit_s data=cifar10 tune.encoder_learning_rate=1e-5 seeds=[0,1,2]""",
    """\
Run the same command again to go on from the last epoch. Results are in
outputs/finetune/<model>-<data>-<translator>-<hash>/finetune.csv, with the weights in the same folder.""",
)


def main(argv: list[str]) -> None:
    """Fine-tune in the folder that the settings name, and print the rows."""
    launch_in_folder("finetune", argv, HELP, [contents.FINETUNE], finetune, _show)


def _show(path: Path) -> None:
    from toast_cli.report.changed import read_table
    from toast_cli.report.screen import print_tuned
    from toast_cli.runs.measured import Tuned

    print_tuned(read_table(path / contents.FINETUNE, Tuned))


def finetune(cfg: "DictConfig", folder: "RunFolder") -> None:
    """Fit, train, choose, test. Raises ToastError for invalid settings."""
    from toast_cli.stages.settings import check, plain
    from toast_cli.stages.tuning import Settings

    settings = Settings.check(plain(cfg.tune))
    check(cfg)

    from toast_cli.plans import Plan
    from toast_cli.runs.measured import Tuned
    from toast_cli.stages.finetune import one_plan, split_off, tune_seeds
    from toast_cli.stages.fit import fit
    from toast_cli.stages.forecast import announce
    from toast_cli.stages.load import begin, make_probe
    from toast_cli.stages.tune import forget

    def plans_of(backbone: "Backbone") -> list[Plan]:  # checked before the folder records that a run has begun
        return one_plan(plain(cfg.spans), plain(cfg.data.fit_images), make_probe(cfg), backbone.depth)

    with folder.stage("load"):
        job = begin(cfg, folder, plans_of)
        split_off(job.data.train.labels, settings.held_out, job.data.seed)  # so that a single image is refused now
        announce(job, memory=False)
    with folder.stage("fit"):
        fitted = fit(replace(job, held_out_r2=False))  # finetune.csv has no R²
    rows: list[Tuned] = folder.rows(contents.FINETUNE, Tuned)
    if seeds := [seed for seed in job.seeds if seed not in {row.seed for row in rows}]:
        tune_seeds(job, folder, fitted, settings, seeds, rows)
    forget(folder)
    for split in ("train", "test"):
        job.feature_file(split).remove()
    folder.finish()
