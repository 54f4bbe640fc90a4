"""What int8 costs and saves: accuracy, size and speed beside fp32 and fp16, on the screen and in the model card."""

from collections.abc import Callable, Iterator, Sequence

from toast_cli.report.screen import number, show
from toast_cli.runs.measured import Compared

COMPARISON = "comparison.csv"  # where an export in int8 keeps these rows


def print_compared(rows: Sequence[Compared]) -> None:
    """Print the files beside each other on stderr, since the export's folder is the command's result."""
    head, counted = rows[0], {row.batch_size for row in rows}
    show(
        f"The same model in ONNX on {head.test_images} test images, by onnxruntime {head.onnxruntime} on this machine's CPU",
        rows,
        [
            *_WHAT_IT_DOES,
            ("ms", lambda row: f"{row.latency_ms:.2f}"),
            ("ratio", lambda row: f"{row.latency_ratio:.2f}"),
            *((f"ms for {size}", lambda row: f"{row.batch_ms:.2f}") for size in sorted(counted)),
            ("ratio", lambda row: f"{row.batch_ratio:.2f}"),
        ],
        stderr=True,
    )


def _interval(row: Compared) -> str:
    low, high = row.accuracy_delta_low, row.accuracy_delta_high
    return "" if low is None or high is None else f"{low:+.4f} … {high:+.4f}"


_WHAT_IT_DOES: list[tuple[str, Callable[[Compared], str]]] = [  # on any machine, but for what a CPU rounds
    ("dtype", lambda row: f"{row.dtype} {row.quantisation}".strip()),
    ("MB", lambda row: f"{row.size / 1e6:.1f}"),
    ("accuracy", lambda row: number(row.accuracy, "{:.4f}")),
    ("delta", lambda row: number(row.accuracy_delta, "{:+.4f}")),
    ("95% interval", _interval),
    ("same class", lambda row: f"{row.same_class:.3f}"),
]


def lines_of(rows: Sequence[Compared]) -> Iterator[str]:
    """The same in Markdown for the model card, without times, which are those of one machine."""
    last = rows[-1]
    how = (
        "with ranges of activations found while it runs"
        if last.quantisation == "dynamic"
        else f"with ranges of activations found on {last.calibration_images} fit images"
    )
    yield (
        f"The file is that model with its products with weights in int8, quantised by onnxruntime {last.onnxruntime} ({last.quantisation}: {how}). "
        f"It was measured on {last.test_images} test images beside the same model in fp32 and fp16. Delta is the change of accuracy from fp32, "
        "same class the share of images whose largest output is that of fp32."
    )
    yield ""
    for line in (
        [heading for heading, _ in _WHAT_IT_DOES],
        ["---"] * len(_WHAT_IT_DOES),
        *([cell(row) for _, cell in _WHAT_IT_DOES] for row in rows),
    ):
        yield f"| {' | '.join(line)} |"


def findings(row: Compared) -> list[str]:
    """What a person has to know of the file in int8: where it is slower than fp32, and whether it loses accuracy.

    It is slower where it was in three rounds of four, and loses accuracy if the interval of its change lies below 0.
    """
    slower = [
        f"{ratio:.2f} times as long for {images}"
        for images, ratio, low in (
            ("one image", row.latency_ratio, row.latency_ratio_low),
            (f"{row.batch_size} images", row.batch_ratio, row.batch_ratio_low),
        )
        if low > 1
    ]
    told = [f"note: int8 is slower than fp32 on this machine: it takes {' and '.join(slower)}"] if slower else []
    if row.accuracy_delta_high is not None and row.accuracy_delta_high < 0:
        other = "quantisation=dynamic or dtype=fp16" if row.quantisation == "static" else "dtype=fp16"
        told.append(
            f"note: int8 is less accurate than fp32, by more than noise explains: {row.accuracy_delta:+.4f} ({_interval(row)}); {other} may lose less"
        )
    return told
