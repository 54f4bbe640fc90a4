"""Print what a sweep with ``eval=segmentation`` has measured."""

from collections.abc import Iterable

from toast_cli.report.screen import WHOLE, number, say, show
from toast_cli.runs.segmented import Segmented


def best_of(lines: Iterable[Segmented]) -> list[Segmented]:
    """The plan of the highest mIoU for each number of blocks removed, the fewest first; of equals, the smallest."""
    found: dict[float, Segmented] = {}
    for line in lines:
        other = found.get(line.blocks_removed)
        if other is None or (line.miou, -line.gflops) > (other.miou, -other.gflops):
            found[line.blocks_removed] = line
    return [found[removed] for removed in sorted(found)]


def print_segmented(lines: list[Segmented], rows: str) -> None:
    """Print the table of a run; ``rows``: all, or the best for each number of blocks removed."""
    everything = rows == "all" or len(lines) <= WHOLE
    head, several = lines[0], len({line.fit_images for line in lines}) > 2
    show(
        f"Segmentation: {head.model} on {head.data}, {head.translator} translator, {head.classes} classes",
        lines if everything else best_of(lines),
        [
            ("plan", lambda line: line.plan),
            ("fit", lambda line: "healed" if line.healed else "sequential" * line.sequential),
            ("fit images", lambda line: str(line.fit_images) if several and line.fit_images else ""),
            ("blocks", lambda line: f"-{line.blocks_removed}" if line.blocks_removed else "0"),
            ("mIoU", lambda line: f"{line.miou:.4f}"),
            ("delta", lambda line: f"{line.miou_delta:+.4f}"),
            ("pixel accuracy", lambda line: f"{line.pixel_accuracy:.4f}"),
            ("params", lambda line: f"{line.params_ratio:.3f}"),
            ("GFLOPs", lambda line: f"{line.gflops_ratio:.3f}"),
            ("R²", lambda line: number(line.fit_r2) if everything else ""),
        ],
    )
    say("")
    if not everything:
        say(
            f"The best of {len(lines) - 1} plans for each number of blocks removed, chosen on test, which flatters it; rows=all shows all."
        )
    say(
        f"delta is that of mIoU, over the pixels of {head.test_images} test images; params and GFLOPs are ratios to the original's."
    )
