"""``toast report``: any number of runs in; one table, its pictures and a page to read out."""

from pathlib import Path

from matplotlib.figure import Figure

from toast_cli import figures, gallery, likeness, page, tables
from toast_cli.console import progress, say
from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.findings import Finding, merge
from toast_cli.results import read_csv, write_csv
from toast_cli.rows import Similarity, Tuned
from toast_cli.runs import Run, find, settings


def report(places: list[Path], out: Path) -> Path:
    """Write everything into ``out``; returns the page. Raises ToastError for what cannot be read or compared."""
    for place in places:
        if not place.is_dir():
            raise ToastError(
                f"{place} is not a folder: give folders of runs, or one that holds them, such as outputs/run."
            )
    runs = [Run.read(path) for path in _complete(places, "results.csv")]
    similarities = [
        row for path in _complete(places, "similarity.csv") for row in read_csv(path / "similarity.csv", Similarity)
    ]
    tuned = [
        (row, settings(path))
        for path in _complete(places, "finetune.csv")
        for row in read_csv(path / "finetune.csv", Tuned)
    ]
    if not runs and not similarities and not tuned:
        raise ToastError(
            f"No complete run lies in {', '.join(map(str, places))}: give folders that toast run, similarity or finetune wrote."
        )
    sources = [path for file in ("results.csv", "similarity.csv", "finetune.csv") for path in find(places, file)[0]]
    findings = merge(runs)
    out.mkdir(parents=True, exist_ok=True)
    found = tables.by_model(findings) + tables.of_tuned(tuned)
    for name, rows, kind in (
        ("results", findings, Finding),
        ("similarity", similarities, Similarity),
        ("finetune", [row for row, _ in tuned], Tuned),
    ):
        if rows:
            write_csv(out / f"{name}.csv", rows, kind)
    write_atomically(out / "tables.md", "\n".join(map(tables.markdown, found)))
    write_atomically(out / "tables.tex", "\n".join(map(tables.latex, found)))
    depths = {run.rows[0].model: run.record["depth"] for run in runs}
    pictures = {
        **gallery.of_findings(findings, depths),
        **likeness.of_guides(findings, similarities),
        **likeness.of_similarity(similarities),
        **gallery.of_projections(runs),
    }
    shown = _draw(pictures, out / "figures")
    write_atomically(out / "report.html", page.render(sources, found, shown))
    return out / "report.html"


def _complete(places: list[Path], file: str) -> list[Path]:
    complete, others = find(places, file)
    for path in others:
        say(f"{path} is not complete and left out: the command that began it finishes it.")
    return complete


def _draw(pictures: dict[str, Figure], folder: Path) -> dict[str, bytes]:
    """Every picture as PNG and PDF in ``folder``; the PNGs by name."""
    if pictures:
        folder.mkdir(exist_ok=True)
    drawn = {}
    with progress("figures", len(pictures), unit="figures") as advance:
        for name, figure in pictures.items():
            figures.save(figure, folder / name)
            drawn[name] = (folder / f"{name}.png").read_bytes()
            advance(1)
    return drawn
