"""The picture of a search: what was measured and found, and how well it was foretold."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from toast_cli.figures import COLOURS
from toast_cli.rows import Candidate, Found


def picture(measured: Sequence[Candidate], found: Sequence[Found]) -> Figure:
    """Held-out loss against GFLOPs, and predicted against measured loss."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    figure.suptitle(f"{found[0].model} on {found[0].data}, {measured[0].held_out_images} held-out train images")
    cost, foretold = figure.subplots(1, 2)
    kinds = {
        "one span": [row for row in measured if "+" not in row.plan],
        "several spans": [row for row in measured if "+" in row.plan],
    }
    for number, (name, rows) in enumerate(kinds.items()):
        points = [(row.gflops_ratio, row.loss) for row in rows]
        if points:
            cost.scatter(
                *zip(*points, strict=True),
                s=14,
                color=COLOURS[number],
                marker="os"[number],
                alpha=0.45,
                linewidths=0,
                label=name,
            )
    line = sorted((row.gflops_ratio, row.loss) for row in found)
    cost.plot(
        *zip(*line, strict=True), color=COLOURS[2], marker="D", markersize=4, linewidth=1.3, label="found, refitted"
    )
    cost.axhline(found[0].loss_original, color="0.4", linewidth=0.9, linestyle="--", label="original")
    highest = max(loss for _, loss in line)
    reach = max(highest - found[0].loss_original, 0.01)
    cost.set(xlabel="GFLOPs, ratio to the original's", ylabel="held-out loss")
    cost.set_ylim(
        min(loss for _, loss in [*line, (0, found[0].loss_original)]) - 0.1 * reach, highest + reach
    )  # a few ruinous spans lie above
    pairs = [(row.loss_predicted, row.loss) for row in measured if row.loss_predicted is not None]
    if pairs:
        foretold.scatter(
            *zip(*pairs, strict=True),
            s=14,
            color=COLOURS[1],
            marker="s",
            alpha=0.45,
            linewidths=0,
            label="several spans",
        )
        ends = [min(min(pair) for pair in pairs), max(max(pair) for pair in pairs)]
        foretold.plot(ends, ends, color="0.4", linewidth=0.9, linestyle="--", label="as predicted")
    foretold.set(xlabel="predicted loss", ylabel="measured loss")
    for axes in (cost, foretold):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    return figure
