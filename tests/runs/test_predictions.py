"""The predictions that a run keeps."""

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
