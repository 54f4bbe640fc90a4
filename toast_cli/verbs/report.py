"""``toast report``: any number of runs in; tables, figures and a page out."""

from pathlib import Path
from typing import TYPE_CHECKING

from toast_cli.errors import Parser, ToastError
from toast_cli.runs.contents import FINETUNE, RACE, RESULTS, SIMILARITY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from toast_cli.report.classes import ClassChange
    from toast_cli.report.findings import Finding
    from toast_cli.runs.archive import CompleteRun
    from toast_cli.runs.measured import Similarity, Tuned
    from toast_cli.runs.rows import Raced

    Tunings = list[tuple[Tuned, dict[str, object]]]  # rows, each with the settings of its run

CLASSES = "classes.csv"

USAGE = "report <folders>"
SUMMARY = "tables, figures and a page from any number of runs"


def main(argv: list[str]) -> None:
    """Write the report, and print where its page is."""
    parser = Parser(
        prog="toast report",
        description="One table, its figures and a page to read, from any number of runs.",
        epilog="example: toast report outputs/run outputs/similarity --out report",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs, or folders that hold them")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/report"), help="where the report is written (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    for page in report(args.folders, args.out):
        print(page)


def report(places: list[Path], out: Path) -> list[Path]:
    """Write everything into ``out``; returns the pages.

    Runs that cannot be in one table get a report for each group that can, in a folder of ``out`` that is named after them.

    Raises ToastError for what cannot be read.
    """
    from toast_cli.machine.console import say
    from toast_cli.report.labels import folder_of
    from toast_cli.report.samples import apart
    from toast_cli.runs.archive import require_accuracies

    for place in places:
        if not place.is_dir():
            raise ToastError(
                f"{place} is not a folder: give folders of runs, or one that holds them, such as outputs/run."
            )
    runs, similarities, tunings = _read(places)
    read = _tables_in(places)
    notes = _notes(read)
    if not runs and not similarities and not tunings:
        for place in places:
            require_accuracies(place)
        raise ToastError(
            f"There is no complete run in {', '.join(map(str, places))}: give folders that toast run, similarity or finetune wrote."
        )
    groups, reasons = apart(runs)
    if len(groups) == 1:
        return [_write(out, runs, similarities, tunings, read, notes)]
    say(f"note: the runs get {len(groups)} reports, since not all can be in one table. {' '.join(reasons)}")
    pages = []
    for group in groups:
        own = [run.path / RESULTS for run in group]
        told = [*notes, f"Other runs are in a report of their own. {' '.join(reasons)}"]
        pages.append(_write(out / folder_of([run.path for run in group]), group, [], [], own, told))
    others = [file for file in read if file.name != RESULTS]
    return [*pages, *([_write(out, [], similarities, tunings, others, notes)] if others else [])]


def _tables_in(places: list[Path]) -> list[Path]:
    """The tables of all complete runs in ``places``."""
    from toast_cli.runs.archive import find

    return [path / name for name in (RESULTS, SIMILARITY, FINETUNE) for path in find(places, name)[0]]


def _write(
    out: Path,
    runs: "list[CompleteRun]",
    similarities: "list[Similarity]",
    tunings: "Tunings",
    read: list[Path],
    notes: list[str],
) -> Path:
    """Write one report, of what was ``read`` from these files, into ``out``; returns its page."""
    from toast_cli.files import write_atomically
    from toast_cli.report import best, classes, page, side_tables, tables, tuned
    from toast_cli.report.findings import findings_of
    from toast_cli.runs.archive import settings

    findings, raced = findings_of(runs), _races(runs)
    told = [
        f"{path} is a race: {left} of its {plans} plans left it on fewer images, and are in a table of their own."
        for path, plans, left in (
            (path, len(rows) - 1, sum(row.outcome != "finished" for row in rows)) for path, rows in raced.items()
        )
        if left
    ]
    notes = [*notes, *told]
    races = [row for rows in raced.values() for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    others = side_tables.against_expected(findings) + side_tables.left_races(races) + tuned.of_tuned(tunings)
    found = [table.noting(notes) for table in tables.by_model(findings) + others]
    wide = [table.noting(notes) for table in tables.by_model(findings, changes=True)]
    answers = best.best_tables(findings, runs, best.held_out_choices([run.path for run in runs]))
    answers = [table.noting(notes) for table in answers]
    folded = [table.noting(notes) for table in side_tables.worst_classes(findings)]
    _write_tables(out, findings, classes.changes_of(runs), similarities, tunings, races)
    if answers:
        write_atomically(out / "best.md", "\n".join(map(tables.markdown, answers)))
        write_atomically(out / "best.tex", "\n".join(map(tables.latex_float, answers)))
    write_atomically(out / "tables.md", "\n".join(map(tables.markdown, found)))
    write_atomically(out / "tables.tex", "\n".join(map(tables.latex, found)))
    sources = [file.parent for file in read]
    ran = {path: settings(path) for path in sources}
    shown = _draw(_pictures(runs, findings, similarities), out / "figures")
    write_atomically(out / "report.html", page.render(sources, answers + others, shown, notes, [*wide, *folded], ran))
    return out / "report.html"


def _read(places: list[Path]) -> "tuple[list[CompleteRun], list[Similarity], Tunings]":
    """The complete runs in ``places``, and the rows of similarity and fine-tuning runs."""
    from toast_cli.report.alike import meaning_of
    from toast_cli.runs.archive import CompleteRun, settings
    from toast_cli.runs.measured import Similarity, Tuned
    from toast_cli.runs.results import read_csv

    runs = [CompleteRun.read(path) for path in _complete(places, RESULTS)]
    similarities = [
        row for path in _complete(places, SIMILARITY) for row in meaning_of(read_csv(path / SIMILARITY, Similarity))
    ]
    tunings = [
        (row, settings(path)) for path in _complete(places, FINETUNE) for row in read_csv(path / FINETUNE, Tuned)
    ]
    return runs, similarities, tunings


def _races(runs: "list[CompleteRun]") -> "dict[Path, list[Raced]]":
    """The plans of those runs that are races, by the run's folder."""
    from toast_cli.report.changed import read_table
    from toast_cli.runs.rows import Raced

    found = {run.path: read_table(run.path / RACE, Raced) for run in runs}
    return {path: rows for path, rows in found.items() if rows}


def _notes(files: list[Path]) -> list[str]:
    """A sentence for each table that was changed after its run wrote it; they are said, and part of the report."""
    from toast_cli.machine.console import say
    from toast_cli.report.changed import sentence
    from toast_cli.runs.record import changed

    notes = [f"{sentence(file)}." for file in files if changed(file)]
    for note in notes:
        say(f"note: {note}")
    return notes


def _complete(places: list[Path], file: str) -> list[Path]:
    from toast_cli.machine.console import say
    from toast_cli.runs.archive import find

    complete, others = find(places, file)
    for path in others:
        say(f"{path} is not complete and is left out: run its command again to finish it.")
    return complete


def _write_tables(
    out: Path,
    findings: "list[Finding]",
    changes: "list[ClassChange]",
    similarities: "list[Similarity]",
    tunings: "Tunings",
    races: "list[Raced]",
) -> None:
    """The CSV tables, those that have rows."""
    from toast_cli.report.classes import ClassChange
    from toast_cli.report.findings import Finding
    from toast_cli.runs.measured import Similarity, Tuned
    from toast_cli.runs.results import write_csv
    from toast_cli.runs.rows import Raced

    for name, rows, kind in (
        (RESULTS, findings, Finding),
        (CLASSES, changes, ClassChange),
        (SIMILARITY, similarities, Similarity),
        (FINETUNE, [row for row, _ in tunings], Tuned),
        (RACE, races, Raced),
    ):
        if rows:
            write_csv(out / name, rows, kind)


def _pictures(
    runs: "list[CompleteRun]", findings: "list[Finding]", similarities: "list[Similarity]"
) -> "dict[str, Figure]":
    """Every figure, by the name of its file."""
    from toast_cli.report import gallery, projections, similarity

    depths = {run.rows[0].model: run.record["depth"] for run in runs}
    return {
        **gallery.of_findings(findings, depths),
        **similarity.of_guides(findings, similarities),
        **similarity.of_similarity(similarities),
        **projections.of_projections(runs),
    }


def _draw(pictures: "dict[str, Figure]", folder: Path) -> dict[str, bytes]:
    """Save every figure as PNG and PDF in ``folder``; returns the PNGs by name."""
    from toast_cli.machine.console import progress
    from toast_cli.report import figures

    if pictures:
        folder.mkdir(exist_ok=True)
    drawn = {}
    with progress("figures", len(pictures), unit="figures") as advance:
        for name, figure in pictures.items():
            figures.save(figure, folder / name)
            drawn[name] = (folder / f"{name}.png").read_bytes()
            advance(1)
    return drawn
