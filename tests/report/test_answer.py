"""Which plan the terminal says to take, and how its tables fit."""

import io
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs.test_results import row
from toast_cli import probes
from toast_cli.errors import ToastError
from toast_cli.probes.base import Probe
from toast_cli.report import answer, screen, sweep
from toast_cli.report.answer import Interval, best, export_command, taken
from toast_cli.report.findings import findings_of
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.results import read_csv, summarise
from toast_cli.runs.rows import Row, Summary

LONG = "1a-1+2a-2+3a-3+4a-5+6a-6+7a-7:identity+8a-8:identity+9a-9+10a-10:identity"


def measured(plan: str, removed: float, accuracy: float, gflops: float, images: int = 500) -> Row:
    return replace(row(plan, accuracy=accuracy, gflops=gflops), blocks_removed=removed, fit_images=images)


def summary(*rows: Row) -> list[Summary]:
    return summarise([row(), *rows])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_best_for_each_number_of_blocks_is_the_most_accurate_then_the_smallest():
    lines = summary(
        measured("0-1", 1, 0.8, 1.8), measured("1-2", 1, 0.85, 1.8), measured("2-3", 1, 0.85, 1.7),
        measured("0-2", 2, 0.7, 1.5), measured("0-2", 2, 0.75, 1.5, images=10),
    )  # fmt: skip
    assert [(line.plan, line.fit_images) for line in best(lines)] == [("none", 0), ("2-3", 500), ("0-2", 500)]


def test_the_smallest_that_is_not_measurably_worse_is_taken():
    lines = best(summary(measured("0-1", 1, 0.9, 1.8), measured("0-2", 2, 0.88, 1.5), measured("0-3", 3, 0.7, 1.2)))
    held = [None, Interval(-0.01, 0.01), Interval(-0.05, 0.0), Interval(-0.3, -0.1)]
    assert taken(lines, held).plan == "0-2"
    assert taken(lines, [None, *[Interval(-0.3, -0.1)] * 3]).plan == "0-1", "all are worse: the most accurate"
    assert taken(lines, [None] * 4).plan == "0-1"
    assert taken(lines[:1], [None]) is None
    assert [interval.noise for interval in held[1:]] == [True, True, False]
    assert not Interval(0.01, 0.02).noise, "measurably better"


def test_intervals_are_those_of_a_report(runs):
    path = runs / "linear0"
    found = {f.plan: (f.delta_low, f.delta_high) for f in findings_of([CompleteRun.read(path)])}
    known = answer.Measured(path)
    for line in read_csv(path / "summary.csv", Summary):
        interval = known.interval(line)
        assert found[line.plan] == ((None, None) if interval is None else (interval.low, interval.high))
    assert known.interval(read_csv(path / "summary.csv", Summary)[1]) is not None


@pytest.mark.parametrize("name", ["run", "a b", "it's", "a=b", "$(x)"])
def test_the_command_is_what_a_shell_reads(name: str, tmp_path: Path):
    words = shlex.split(export_command(tmp_path / name, "2-3:identity+9-11", [row()]))
    assert words == ["toast", "export", f"run={name}" if "=" in name else name, "plan=2-3:identity+9-11"]
    assert shlex.split(export_command(Path("/else/where"), "0-1", [row(seed=3), row(seed=2)])) == [
        "toast", "export", "/else/where", "plan=0-1", "seed=2",
    ]  # fmt: skip
    assert export_command(tmp_path, "0-1", [replace(row(), probe="knn")]).endswith(" head=none")


def test_probes_without_a_head_are_named():
    kinds = [
        each
        for each in (getattr(probes, name) for name in probes.__all__)
        if isinstance(each, type) and hasattr(each, "name")
    ]
    assert {kind.name for kind in kinds if kind.to_module is Probe.to_module} == set(answer.NO_HEAD)


def test_a_long_plan_goes_on_below_between_its_spans():
    text = screen.folded(LONG, 20).plain
    assert text.replace("\n", "") == LONG
    assert all(len(line) <= 20 and re.fullmatch(r"[+\da-z:-]+", line) for line in text.split("\n"))
    assert all(line.startswith("+") for line in text.split("\n")[1:])
    assert screen.folded("x" * 25, 10).plain == "\n".join(["x" * 10, "x" * 10, "x" * 5])
    assert "\x1b" not in screen.folded("\x1b[31m", 10).plain


def test_a_terminal_of_80_columns_holds_the_table(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((80, 24)))
    lines = summary(*(measured(LONG, i / 2, 0.9 - i / 100, 2 - i / 10) for i in range(1, 4)))
    lines = [replace(line, accuracy_std=0.01, healed=line.blocks_removed == 1) for line in lines]
    monkeypatch.setattr(sweep, "Measured", lambda path: Known())
    sweep.print_sweep(lines, Path("here"))
    *table, command = terminal.getvalue().splitlines()
    assert max(map(len, table)) <= 80
    assert command == f"toast export here plan={LONG}", "whole, on a line of its own"


class Known:
    """Predictions of which every plan's interval is the same."""

    rows = (row(),)

    def interval(self, line: Summary) -> Interval | None:
        return None if line.plan == "none" else Interval(-0.123, 0.012)


def test_a_pipe_gets_each_plan_on_one_line(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep, "Measured", lambda path: Known())
    monkeypatch.setenv("COLUMNS", "40")
    sweep.print_sweep(summary(measured(LONG, 3, 0.8, 1.2)), Path("here"))
    assert any(re.match(rf"{re.escape(LONG)} +-3 +0.8000 +-0.1000 +-0.123 … \+0.012  ≈ ", line)
               for line in capsys.readouterr().out.splitlines())  # fmt: skip


def test_many_plans_are_shown_by_their_best_unless_all_are_asked_for(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sweep, "Measured", lambda path: Known())
    lines = summary(*(measured(f"{i}-{i + 1 + i % 2}", 1 + i % 2, 0.5 + i / 100, 1.0) for i in range(20)))
    shown = {}
    for rows in sweep.ROWS:
        sweep.print_sweep(lines, Path("here"), rows)
        out = capsys.readouterr().out
        shown[rows] = re.findall(r"^(none|\d+-\d+) ", out, re.MULTILINE)
        assert out.splitlines()[-1] == "toast export here plan=19-21"
    assert shown == {"best": ["none", "18-19", "19-21"], "all": [line.plan for line in lines]}


def test_other_rows_are_a_sentence():
    with pytest.raises(ToastError, match=r"^rows=some is not known: use best, all\.$"):
        sweep.require_rows("some")
