import dataclasses

import pandas as pd
import pytest

from toast_cli.errors import ToastError
from toast_cli.report.screen import print_table
from toast_cli.runs.results import read_csv, summarise, write_csv
from toast_cli.runs.rows import Row, Summary

COLUMNS = (
    "model, data, translator, plan, spans_start_end, blocks_removed, seed, fit_data, fit_images, data_seed, train_images, test_images, "
    "probe, accuracy, accuracy_original, accuracy_delta, params, params_original, params_ratio, gflops, gflops_original, gflops_ratio, "
    "fit_r2, fit_rank, sequential, tokens, solver, readout, protocol, precision, device"
)


def row(plan: str = "none", seed: int = 0, accuracy: float = 0.9, gflops: float = 2.0) -> Row:
    fitted = plan != "none"
    return Row(
        model="m", data="d", translator="linear", plan=plan, spans_start_end="[[9, 11]]" if fitted else "[]",
        blocks_removed=2 * fitted, seed=seed, fit_data="d", fit_images=500 * fitted, data_seed=0, train_images=10, test_images=3, probe="linear",
        accuracy=accuracy, accuracy_original=0.9, accuracy_delta=accuracy - 0.9, params=100, params_original=200, params_ratio=0.5,
        gflops=gflops, gflops_original=2.0, gflops_ratio=gflops / 2, fit_r2=1 / 3 if fitted else None, fit_rank=7 if fitted else None,
        sequential=False, tokens="shared", solver="exact", readout="model", protocol="clean", precision="fp32", device="cpu",
    )  # fmt: skip


def test_columns_and_their_order(tmp_path):
    write_csv(tmp_path / "results.csv", [row()], Row)
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == COLUMNS.replace(" ", "")


def test_rows_read_back_exactly(tmp_path):
    rows = [row(), row("9-11", accuracy=0.1 + 0.2), row("9-11", 1, 1 / 3)]
    write_csv(tmp_path / "results.csv", rows, Row)
    assert read_csv(tmp_path / "results.csv", Row) == rows
    assert pd.read_csv(tmp_path / "results.csv", float_precision="round_trip")["accuracy"].tolist() == [
        r.accuracy for r in rows
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"], "no temporary file stays"


def test_no_file_has_no_rows(tmp_path):
    assert read_csv(tmp_path / "results.csv", Row) == []


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "results.csv").write_text("plan,accuracy\nnone,0.9\n")
    with pytest.raises(
        ToastError,
        match="does not have the columns that this version of toast writes: move it away, or use fresh=true.",
    ):
        read_csv(tmp_path / "results.csv", Row)


def test_summary_over_seeds(tmp_path):
    rows = [row(), row("9-11", accuracy=0.8, gflops=1.0), row(seed=1), row("9-11", 1, 0.6, 1.0)]
    none, short = summarise(rows)
    assert (none.plan, none.seeds, none.accuracy_std, none.fit_rank) == ("none", 2, 0.0, None)
    assert short.accuracy_mean == pytest.approx(0.7)
    assert short.accuracy_std == pytest.approx(0.2 / 2**0.5)
    assert short.accuracy_delta_mean == pytest.approx(-0.2)
    assert (short.fit_rank, short.params_ratio) == (7, 0.5)
    write_csv(tmp_path / "summary.csv", [none, short], Summary)
    assert read_csv(tmp_path / "summary.csv", Summary) == [none, short]
    assert summarise(rows[:2])[1].accuracy_std is None


def test_best_trade_offs_are_the_pareto_front():
    rows = [
        row("none", accuracy=0.9, gflops=4),
        row("a", accuracy=0.9, gflops=3),
        row("b", accuracy=0.5, gflops=3),
        row("c", accuracy=0.6, gflops=1),
    ]
    assert [line.plan for line in summarise(rows) if line.best_trade_off] == ["a", "c"]


def test_table_shows_every_plan(capsys: pytest.CaptureFixture):
    print_table(summarise([row(), row("9-11", accuracy=0.85), dataclasses.replace(row("9-11", accuracy=0.75), seed=1)]))
    out = capsys.readouterr().out
    for text in ("m on d, linear translator", "9-11", "0.8000 ± 0.0707", "-0.1000", "0.333", "0.500"):
        assert text in out
