"""The test images in the plane of the original's two leading principal components, for the original and each plan."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from toast_cli.errors import ToastError
from toast_cli.files import encode_arrays
from toast_cli.runs.features import Features

_IMAGES = 500


def project(features: Features, labels: np.ndarray) -> bytes:
    """Project the features (N, P, F) of up to 500 test images, of classes ``labels`` (N,).

    The file holds points (P, N, 2), explained variance (2,) and labels (N,).
    """
    which = np.linspace(0, len(features) - 1, min(_IMAGES, len(features))).astype(int)
    chosen = features[which].astype(np.float64)  # (N, P, F)
    centre = chosen[:, 0].mean(0)
    _, spread, directions = np.linalg.svd(chosen[:, 0] - centre, full_matrices=False)
    points, shares = np.zeros((*chosen.shape[1::-1], 2)), np.zeros(2)
    there = min(2, len(spread))  # a single image or feature has one direction
    points[..., :there] = np.einsum("npf,kf->pnk", chosen - centre, directions[:there])
    shares[:there] = spread[:there] ** 2 / max((spread**2).sum(), 1e-300)
    arrays = {"points": points.astype("<f4"), "explained": shares.astype("<f4"), "labels": labels[which].astype("<i4")}
    return encode_arrays(arrays)


def read(path: Path) -> dict[str, np.ndarray]:
    """What ``project`` has found: ``points``, ``explained``, ``labels``. Raises ToastError for any other file."""
    try:
        found = load_file(path)
        points, explained, labels = (found[name] for name in ("points", "explained", "labels"))
    except (SafetensorError, OSError, KeyError) as e:
        raise ToastError(
            f"{path} cannot be read as a projection ({type(e).__name__}): restore it, or run it again with fresh=true."
        ) from e
    if points.shape[1:] != (len(labels), 2) or explained.shape != (2,):
        raise ToastError(f"{path} holds no points in a plane: restore it, or run it again with fresh=true.")
    return found
