"""Another probe on features that a run has kept: encoding, which takes nearly all of a run's time, is not done again."""

import os
import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from toast_cli.errors import ToastError
from toast_cli.files import beside
from toast_cli.folders import RECORD, RunFolder, differences, read_record, scientific

_FILES = ("translators.safetensors", "features/train.f32", "features/test.f32")
_FREE = ("probe", "seeds")


def take_features(cfg: DictConfig, folder: RunFolder) -> None:
    """Link maps and features of the run ``cfg.features_from`` into ``folder``. Raises ToastError where they are not the same run's."""
    other = Path(str(cfg.features_from)).expanduser()
    if not (other / RECORD).is_file() or not all((other / name).is_file() for name in _FILES):
        raise ToastError(
            f"features_from={other} holds no features: give the folder of a run that was made with keep_features=true."
        )
    theirs = OmegaConf.to_container(OmegaConf.load(other / "config.yaml"))
    differ = [key for key in differences(theirs, scientific(cfg)) if key.partition(".")[0] not in _FREE]
    record = read_record(other)
    if differ or not record.get("complete"):
        what = f"has another {', '.join(sorted(differ))}" if differ else "is not complete"
        raise ToastError(f"features_from={other} {what}: only probe and seeds may differ from a complete run's.")
    for name in _FILES:
        _link(other / name, folder / name)
    folder.note(**{key: record[key] for key in ("fit_images", "precision", "weights", "data")})


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no such thing."""
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, beside(target))
        beside(target).replace(target)
