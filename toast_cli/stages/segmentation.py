"""A run with eval=segmentation: what it does not take, and its stages."""

from typing import TYPE_CHECKING

from toast_cli.errors import ToastError
from toast_cli.machine.team import expected
from toast_cli.runs import contents
from toast_cli.stages.settings import SEGMENTATION, check, require_eval

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.runs.folder import RunFolder


def segments(cfg: "DictConfig", tracked: bool) -> bool:
    """Whether the run is with ``eval=segmentation``. Raises ToastError for settings that it would ignore, a tracker among them."""
    if require_eval(cfg.eval) != SEGMENTATION:
        return False
    ignored = ("keep_features", "keep_probabilities", "features_from", "probes", "sweep", "expected", "dry")
    given = [key for key in ignored if cfg.get(key)] + ["tracker"] * tracked
    if given:
        raise ToastError(f"{given[0]} is not for eval=segmentation: leave it out, or use eval=classification.")
    if expected() > 1:
        raise ToastError("eval=segmentation works in one process: start it without torchrun.")
    return True


def run_segmentation(cfg: "DictConfig", folder: "RunFolder") -> None:
    """Complete a run with ``eval=segmentation`` in ``folder``. Raises ToastError for invalid settings."""
    check(cfg)

    from toast_cli.runs.segmented import ClassIou, Segmented
    from toast_cli.stages.load import begin
    from toast_cli.stages.segment import segment

    with folder.stage("load"):
        job = begin(cfg, folder)
    with folder.stage("segment"):
        rows, of_classes = segment(job)
    folder.write_rows(contents.SEGMENTATION_CLASSES, of_classes, ClassIou)
    folder.write_rows(contents.SEGMENTATION, rows, Segmented)
    folder.finish()
