"""The predictions that a run keeps."""

from pathlib import Path

import numpy as np
import pytest

from toast_cli.errors import ToastError
from toast_cli.files import encode_arrays
from toast_cli.runs.predictions import read
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row


def test_kept_predictions_are_those_of_the_rows(runs):
    stored = read(runs / "linear0" / "predictions.safetensors")
    rows = read_csv(runs / "linear0" / "results.csv", Row)
    for seed, predicted in stored.by_seed.items():
        accuracies = [row.accuracy for row in rows if row.seed == seed]
        assert (predicted == stored.truth).mean(axis=1).tolist() == accuracies
    assert len(stored.images) == 48


@pytest.mark.parametrize("kind", [np.float32, np.bool_, np.uint8])
@pytest.mark.parametrize("shape", [(4,), (2, 2), ()])
def test_only_class_numbers_in_a_row_are_predictions(tmp_path: Path, kind: type, shape: tuple[int, ...]):
    truth = np.ones(shape, kind)
    (tmp_path / "p").write_bytes(
        encode_arrays({"truth": truth, "images": np.ones(shape, np.int64), "seed0": np.ones((2, *shape), np.int32)})
    )
    with pytest.raises(ToastError, match="holds no class numbers: restore it, or run it again with fresh=true"):
        read(tmp_path / "p")
