"""Features that another run has kept, taken for a run that differs in its probe alone."""

import os
import shutil
from pathlib import Path

from omegaconf import DictConfig

from toast_cli.errors import ToastError
from toast_cli.files import beside
from toast_cli.folders import typed_path
from toast_cli.runs import contents
from toast_cli.runs.contents import RECORD, TRANSLATORS
from toast_cli.runs.folder import Folder
from toast_cli.runs.naming import differences, scientific
from toast_cli.runs.record import expect, recorded

_REUSED = (TRANSLATORS, *contents.features_and_sums("train"), *contents.features_and_sums("test"))
_MAY_DIFFER = ("probe", "seeds")


def take_features(cfg: DictConfig, folder: Folder) -> None:
    """Link the maps and features of the run ``cfg.features_from`` into ``folder``.

    Raises ToastError if that run has no features, is not complete, or differs in more than its probe and seeds.
    """
    other = typed_path(cfg.features_from)
    if not (other / RECORD).is_file() or not all((other / name).is_file() for name in _REUSED):
        raise ToastError(
            f"features_from={other} holds no features: give the folder of a run that was made with keep_features=true."
        )
    source = Folder(other)
    differ = [key for key in differences(source.settings, scientific(cfg)) if key.partition(".")[0] not in _MAY_DIFFER]
    record = source.record
    if differ or not record.get("complete"):
        what = f"differs in {', '.join(sorted(differ))}" if differ else "is not complete"
        raise ToastError(f"features_from={other} {what}: give a complete run that differs only in probe and seeds.")
    healed = [file.name for file in contents.healed_in(other)]
    for name in (TRANSLATORS, *healed):
        expect(folder / name, recorded(source / name))
    for name in (*_REUSED, *healed):
        _link(other / name, folder / name)
    folder.note_images_used(source.images_used)
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
