"""The names of the files in a run's folder."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

RECORD = "run.json"  # what is known about the run: versions, fingerprints, progress
CONFIG = "config.yaml"  # its scientific settings
RESULTS, SUMMARY = "results.csv", "summary.csv"
SIMILARITY, FINETUNE = "similarity.csv", "finetune.csv"
SEARCH, BASELINES, FRONT = "search.csv", "baselines.csv", "front.csv"
BENCH = "bench.csv"
SEGMENTATION, SEGMENTATION_CLASSES = "segmentation.csv", "segmentation_classes.csv"
HEADS = "heads.safetensors"  # of segmentation: a linear layer on the patch tokens of each plan
RACE = "race.csv"
TRANSLATORS = "translators.safetensors"
PREDICTIONS, PROJECTION = "predictions.safetensors", "projection.safetensors"
EPOCH = "epoch.pt"  # everything that the next epoch of fine-tuning starts from
LOCK = ".lock"  # held by the process that works in the folder
FRONT_PICTURE = "front"  # of a search, without its ending
_FEATURES, _LATENT, _OF_FRONT, _OF_ROUND, _HEALED = "features", "latent", "front-", "round", "healed-"


def features(split: str, prefix: str = "") -> str:
    """The file of all plans' features for the images of a ``split``; ``prefix`` tells one set of plans from another."""
    return f"{_FEATURES}/{prefix}{split}.f32"


def round_prefix(number: int) -> str:
    """The prefix of the features that a search or a race encodes in round ``number``."""
    return f"{_OF_ROUND}{number}-"


def front_prefix() -> str:
    """The prefix of the features of the plans that a search has found."""
    return _OF_FRONT


def healed(after: str) -> str:
    """The file of the healed blocks of one chain: ``after`` says what they follow, such as ``500~2-5``."""
    name = re.sub(r"[^\w.@~+-]", "_", after)
    return f"{_HEALED}{name if len(name) < 100 else hashlib.sha256(after.encode()).hexdigest()[:16]}.safetensors"


def healed_in(folder: Path) -> Iterator[Path]:
    """All files of healed blocks in a run's folder."""
    return folder.glob(f"{_HEALED}*.safetensors")


def latents(layer: object) -> str:
    """The file of the latents X^(layer) of the fit images, kept while maps are fitted on them."""
    return f"{_FEATURES}/{_LATENT}{layer}.f32"


def sums(features: Path) -> Path:
    """The file of the checksums of a file of features."""
    return features.with_suffix(".sums")


def features_and_sums(split: str) -> tuple[str, str]:
    """The files of a run's features for the images of a ``split``, and of their checksums."""
    return features(split), str(sums(Path(features(split))))


def weights(seed: int) -> str:
    """The file of the fine-tuned model of a probe seed."""
    return f"model-seed{seed}.safetensors"


def weights_of_epoch(seed: int, epoch: int) -> str:
    """The file of its best epoch so far, under a name of its own, so that a kill never separates it from the record."""
    return f"model-seed{seed}-epoch{epoch}.safetensors"


def probabilities(seed: int) -> str:
    """The file of the probabilities that the probes of a seed give to all classes."""
    return f"probabilities-seed{seed}.safetensors"


# Every fixed name. The record is last: a folder without one never belonged to a run.
FIXED = (
    features("train"), features("test"), TRANSLATORS, PREDICTIONS, PROJECTION, RESULTS, SUMMARY, SIMILARITY, FINETUNE,
    SEARCH, BASELINES, FRONT, RACE, SEGMENTATION, SEGMENTATION_CLASSES, HEADS, EPOCH, CONFIG, RECORD,
)  # fmt: skip


def features_in(folder: Path) -> Iterator[Path]:
    """All files of features and of latents in a run's folder."""
    return (folder / _FEATURES).glob("*.f32")


def remove_features(folder: Path, kind: str = "") -> None:
    """Remove all features in a run's folder, or those whose names begin with ``kind``, with their checksums."""
    for ending in ("f32", "sums"):
        for file in (folder / _FEATURES).glob(f"{kind}*.{ending}"):
            file.unlink()


def remove_rounds(folder: Path) -> None:
    """Remove the features of all rounds in a run's folder."""
    remove_features(folder, _OF_ROUND)


def remove_latents(folder: Path) -> None:
    """Remove all latents in a run's folder."""
    remove_features(folder, _LATENT)


def epochs_in(folder: Path) -> Iterator[Path]:
    """The files that fine-tuning resumes from."""
    yield folder / EPOCH
    yield from folder.glob("model-seed*-epoch*.safetensors")


def clear(folder: Path) -> None:
    """Remove the files that a run wrote, its record last, and nothing else."""
    for kind in ("train", "test", _LATENT, _OF_ROUND, _OF_FRONT):
        remove_features(folder, kind)
    of_seeds = [file for kind in ("model", "probabilities") for file in folder.glob(f"{kind}-seed*.safetensors")]
    for file in [*of_seeds, *healed_in(folder)]:
        file.unlink()
    for name in FIXED:
        (folder / name).unlink(missing_ok=True)
    if (folder / _FEATURES).is_dir() and not any((folder / _FEATURES).iterdir()):
        (folder / _FEATURES).rmdir()
