import csv
import dataclasses
import io
import itertools
import random
from fractions import Fraction
from pathlib import Path
from statistics import stdev

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toast_cli.errors import ToastError
from toast_cli.runs.results import csv_of, read_csv, relative_change, rows_of, summarise, write_csv
from toast_cli.runs.rows import Row, Summary

COLUMNS = (
    "model, data, translator, plan, spans_start_end, blocks_removed, seed, fit_data, fit_images, data_seed, train_images, test_images, "
    "probe, accuracy, accuracy_original, accuracy_delta, params, params_original, params_ratio, gflops, gflops_original, gflops_ratio, "
    "fit_r2, fit_rank, sequential, tokens, solver, readout, protocol, precision, device, accuracy_delta_relative, held_out_r2, healed, ece"
)


def row(plan: str = "none", seed: int = 0, accuracy: float = 0.9, gflops: float = 2.0) -> Row:
    fitted = plan != "none"
    return Row(
        model="m", data="d", translator="linear", plan=plan, spans_start_end="[[9, 11]]" if fitted else "[]",
        blocks_removed=2 * fitted, seed=seed, fit_data="d", fit_images=500 * fitted, data_seed=0, train_images=10, test_images=3, probe="linear",
        accuracy=accuracy, accuracy_original=0.9, accuracy_delta=accuracy - 0.9, params=100, params_original=200, params_ratio=0.5,
        gflops=gflops, gflops_original=2.0, gflops_ratio=gflops / 2, fit_r2=1 / 3 if fitted else None, fit_rank=7 if fitted else None,
        sequential=False, tokens="shared", solver="exact", readout="model", protocol="clean", precision="fp32", device="cpu",
        accuracy_delta_relative=accuracy / 0.9 - 1, held_out_r2=0.25 if fitted else None,
    )  # fmt: skip


def test_columns_and_their_order(tmp_path):
    write_csv(tmp_path / "results.csv", [row()], Row)
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == COLUMNS.replace(" ", "")


def test_rows_read_back_exactly(tmp_path):
    rows = [row(), row("9-11", accuracy=0.1 + 0.2), row("9-11", 1, 1 / 3)]
    write_csv(tmp_path / "results.csv", rows, Row)
    assert read_csv(tmp_path / "results.csv", Row) == rows
    stored = pd.read_csv(tmp_path / "results.csv", dtype=str)["accuracy"]
    assert [float(number) for number in stored] == [r.accuracy for r in rows]
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


# Columns that the first version did not write, with what they are where they are missing.
ADDED = {"accuracy_delta_relative": None, "held_out_r2": None, "healed": False, "ece": None}


@pytest.mark.parametrize("missing", range(len(ADDED) + 1))
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_of_an_earlier_version_ends_before_later_columns(missing: int, line_end: str):
    rows = [row(), row("9-11", accuracy=0.1 + 0.2)]
    cells = [line.rsplit(",", missing)[0] for line in csv_of(rows, Row).splitlines()]
    expected = [dataclasses.replace(each, **dict(list(ADDED.items())[len(ADDED) - missing :])) for each in rows]
    assert rows_of(line_end.join([*cells, ""]), Row, Path("here.csv")) == expected


def test_columns_without_a_default_may_not_be_missing():
    assert [f.name for f in dataclasses.fields(Row) if f.default is not dataclasses.MISSING] == list(ADDED)
    for missing in (1, 2, 3, 4, 32):
        lines = [line.rsplit(",", missing)[0] for line in csv_of([row()], Row).splitlines()]
        if missing > len(ADDED):
            with pytest.raises(ToastError, match="does not have the columns"):
                rows_of("\n".join([*lines, ""]), Row, Path("here.csv"))
    head, line = csv_of([row()], Row).splitlines()
    short = head.rpartition(",")[0]
    for text in (f"{short}\n{line}\n", f"{head}\n{line.rpartition(',')[0]}\n"):
        with pytest.raises(ToastError, match=r"Line 2 of here.csv cannot be read"):
            rows_of(text, Row, Path("here.csv"))


def test_a_relative_change_is_that_of_whole_numbers():
    for right, before in itertools.product(range(8), repeat=2):
        found = relative_change(right / 7, before / 7, 7)
        assert found == ((right - before) / before if before else None), "divided once"


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
    assert short.ece is None


def test_the_calibration_error_of_a_summary_is_the_mean_of_all_its_rows():
    rows = [dataclasses.replace(row(seed=seed), ece=error) for seed, error in enumerate((0.1, 0.3))]
    assert summarise(rows)[0].ece == pytest.approx(0.2)
    rows[0] = dataclasses.replace(rows[0], ece=None)  # from an earlier version, which began the run
    assert summarise(rows)[0].ece is None


def test_best_trade_offs_are_the_pareto_front():
    rows = [
        row("none", accuracy=0.9, gflops=4),
        row("a", accuracy=0.9, gflops=3),
        row("b", accuracy=0.5, gflops=3),
        row("c", accuracy=0.6, gflops=1),
    ]
    assert [line.plan for line in summarise(rows) if line.best_trade_off] == ["a", "c"]


# Text as people have it in labels; NUL cannot be in a file of text, and lone surrogates cannot be encoded.
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
_TRICKY = st.text(st.sampled_from("=+-@\t\r\n',\"; 1A"), max_size=6)


@given(_TEXT | _TRICKY, _TEXT | _TRICKY, st.floats(allow_nan=False), st.none() | st.floats(allow_nan=False))
def test_any_text_and_number_reads_back_exactly(label: str, data: str, accuracy: float, explained: float | None):
    rows = [dataclasses.replace(row(), model=label, data=data, accuracy=accuracy, fit_r2=explained), row("9-11")]
    text = csv_of(rows, Row)
    for given_as in (text, text.encode()):
        assert rows_of(given_as, Row, Path("here.csv")) == rows
    cells = list(csv.reader(io.StringIO(text, newline="")))[1]
    assert cells[0][:1] not in set("=+-@\t\r\n"), "no spreadsheet takes it for a formula"


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-", "=a,b", '="x"'])
def test_a_formula_is_kept_as_text(label: str):
    written = dataclasses.replace(row(), model=label, accuracy_delta=-0.5)
    text = csv_of([written], Row)
    cells = list(csv.reader(io.StringIO(text, newline="")))[1]
    assert (cells[0], cells[15]) == (f"'{label}", "-0.5"), "numbers stay numbers"
    assert rows_of(text, Row, Path("here.csv")) == [written]


def test_ordinary_text_is_written_as_it_is():
    plain = dataclasses.replace(row(), model="it's 'quoted', a=b", data="1_0")
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([COLUMNS.split(", "), dataclasses.astuple(plain)])
    assert csv_of([plain], Row) == written.getvalue()


LINE = csv_of([row()], Row).splitlines()[1]


@pytest.mark.parametrize(
    "damaged",
    {
        "not UTF-8": LINE.encode().replace(b"linear", b"lin\xe9ar", 1),
        "a NUL": LINE.replace("linear", "lin\0ar", 1),
        "a quote that is not closed": f'"{LINE}',
        "text after a quote": f'"m"m{LINE[1:]}',
        "a cell too few": LINE.rpartition(",")[0],
        "a cell too many": f"{LINE},cpu",
        "a count that is not a number": LINE.replace(",10,", ",nan,", 1),
        "an infinite count": LINE.replace(",10,", ",inf,", 1),
        "a broken count": LINE.replace(",10,", ",10.5,", 1),
        "no count": LINE.replace(",10,", ",,", 1),
        "neither true nor false": LINE.replace(",False,", ",false,", 1),
        "a carriage return in a line": LINE.replace("linear", "lin\rear", 1),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_line_is_named(damaged: tuple[str, str | bytes]):
    line = damaged[1] if isinstance(damaged[1], bytes) else damaged[1].encode()
    two_lines = dataclasses.replace(row(), model="two\nlines")
    before = csv_of([two_lines], Row).encode()
    with pytest.raises(ToastError) as caught:
        rows_of(before + line + b"\n" + LINE.encode() + b"\n", Row, Path("here.csv"))
    assert str(caught.value) == "Line 4 of here.csv cannot be read: restore the file, or use fresh=true."


@pytest.mark.parametrize("cut", range(1, len(LINE) + 1, 7))
def test_a_file_that_ends_in_a_line_is_refused(cut: int):
    with pytest.raises(ToastError, match="Line 2 of here.csv cannot be read: restore the file, or use fresh=true."):
        rows_of(csv_of([row()], Row)[:-cut], Row, Path("here.csv"))


def test_lines_of_windows_and_empty_lines_are_read():
    assert rows_of(csv_of([row()], Row).replace("\n", "\r\n") + "\n", Row, Path("here.csv")) == [row()]


def _plan_rows(name: str, right: tuple[int, ...], flops: int, images: int, original: tuple[int, ...]) -> list[Row]:
    return [
        dataclasses.replace(
            row(name, seed, count / images, flops / 1e9),
            test_images=images,
            accuracy_original=best / images,
            accuracy_delta=count / images - best / images,
        )
        for seed, (count, best) in enumerate(zip(right, original, strict=True))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_means_and_stars_are_those_of_whole_numbers(seed: int):
    """Few images and few sizes, so that ties are many; every order of the seeds gives the same numbers."""
    draw = random.Random(seed)
    images, seeds = draw.choice([3, 7, 10, 49]), draw.choice([1, 2, 3, 5])
    plans = {
        f"{number}-{number + 1}": (
            tuple(draw.randint(0, min(images, 6)) for _ in range(seeds)), draw.choice([1_234_567_891, 3, 2**40 + 1])
        )
        for number in range(12)
    }  # fmt: skip
    original = tuple(draw.randint(0, images) for _ in range(seeds))
    rows = [line for name, (right, flops) in plans.items() for line in _plan_rows(name, right, flops, images, original)]
    draw.shuffle(rows)
    for line in summarise(rows):
        right, flops = plans[line.plan]
        assert line.accuracy_mean == sum(right) / (images * seeds), "both whole, divided once"
        assert line.accuracy_delta_mean == (sum(right) - sum(original)) / (images * seeds)
        relative = [Fraction(one - best, best) for one, best in zip(right, original, strict=True) if best]
        known = float(sum(relative) / seeds) if len(relative) == seeds else None
        assert line.accuracy_delta_relative_mean == known
        if seeds > 1:
            gains = [Fraction(one - best, images) for one, best in zip(right, original, strict=True)]
            assert line.accuracy_std == float(stdev(Fraction(one, images) for one in right))
            assert line.accuracy_delta_std == float(stdev(gains))
        better = [
            other
            for other, size in plans.values()
            if (sum(other) > sum(right) and size <= flops) or (sum(other) == sum(right) and size < flops)
        ]
        assert line.best_trade_off == (not better)


def test_equal_plans_are_starred_together():
    """Three seeds whose accuracies add up to the same number of images, in every order."""
    rows = [
        line
        for number, right in enumerate(itertools.permutations([1, 2, 6]))
        for line in _plan_rows(f"{number}-{number + 1}", right, 5, 10, (7, 7, 7))
    ]
    assert {(line.accuracy_mean, line.accuracy_delta_mean) for line in summarise(rows)} == {(0.3, -0.4)}
    assert all(line.best_trade_off for line in summarise(rows))
