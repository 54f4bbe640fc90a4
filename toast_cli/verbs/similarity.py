"""``toast similarity``: config in, similarity.csv and its pictures out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli.launch import launch_in_folder
from toast_cli.report.settings import Help
from toast_cli.runs import contents

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.runs.folder import RunFolder

USAGE = "similarity [key=value ...]"
SUMMARY = "CKA, cosine, MSE, R² of blocks and of last latents"
HELP = Help(
    "CKA, cosine, MSE and linear R² between all blocks of a model, and between its last latent and those of its shortened versions.",
    """\
toast similarity                                           the embedded model on the embedded digits
toast similarity -m model=vit_s,vit_b data=mnist,cifar10   several; toast report draws a figure per model, a panel per data set
toast similarity model=vit_b data=cifar10 spans=none       blocks only""",
    """\
Tokens of the fit images are compared; the probe and its seeds are not used. Results are in
outputs/similarity/<model>-<data>-<translator>-<hash>/similarity.csv, with a heatmap in the same folder.""",
)


def main(argv: list[str]) -> None:
    """Compare in the folder that the settings name."""
    launch_in_folder("similarity", argv, HELP, [contents.SIMILARITY], similarity, _show)


def _show(path: Path) -> None:
    from toast_cli.report.alike import meaning_of, print_similarity
    from toast_cli.report.changed import read_table
    from toast_cli.runs.measured import Similarity

    print_similarity(meaning_of(read_table(path / contents.SIMILARITY, Similarity)), path)


def similarity(cfg: "DictConfig", folder: "RunFolder") -> None:
    """Similarities of all blocks and of all plans over the fit images. Raises ToastError for invalid settings."""
    from toast_cli.stages.settings import check

    check(cfg)

    from toast_cli.report import figures
    from toast_cli.report.similarity import of_similarity
    from toast_cli.runs.measured import Similarity
    from toast_cli.stages.load import begin
    from toast_cli.stages.similarity import between_blocks, between_plans

    with folder.stage("load"):
        job = begin(cfg, folder)
    with folder.stage("similarity"):
        entries = [*between_blocks(job), *between_plans(job)]
    shared: dict[str, Any] = {"protocol": job.protocol, "precision": job.compute.precision}
    rows = [Similarity(job.backbone.label, job.data.fit_label, **entry, **shared) for entry in entries]
    folder.write_rows(contents.SIMILARITY, rows, Similarity)
    for name, figure in of_similarity(rows).items():
        for file, content in figures.files_of(figure, name).items():
            folder.write(file, content)
    folder.finish()
