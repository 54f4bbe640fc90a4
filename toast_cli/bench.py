"""What `toast bench` measures: latency, throughput and peak memory of a model and of its shortened versions, side by side.

Nothing is fitted: how long a map takes does not depend on the numbers in it.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from toast_cli.compute import Compute, out_of_memory
from toast_cli.console import say
from toast_cli.costs import Costs
from toast_cli.errors import ToastError, is_number
from toast_cli.memory import peak_memory
from toast_cli.plans import parse_plans
from toast_cli.results import write_csv
from toast_cli.run import named
from toast_cli.surgery import shorten
from toast_cli.tokens import example
from toast_cli.translators import Translator

_LARGEST_BATCH = 1024
_LONGEST_CALL = 20.0  # seconds; a batch that takes longer is not doubled


@dataclass(frozen=True)
class Timing:
    """One model of a bench; the order of the fields is that of the columns of ``bench.csv``.

    Times and rates are medians over ``rounds``, in which every model is run once; ``_low`` and ``_high`` are the
    quartiles. Ratios are to the original, medians of the ratios within a round. ``batch_size`` is the original's best,
    used for all. ``peak_memory_mb`` (1e6 bytes) is what the model and one such batch take at most; empty where it cannot
    be had (CPUs without Linux, Apple's GPUs).
    """

    model: str
    translator: str
    plan: str
    blocks_removed: int
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    latency_ratio: float
    latency_rounds: int
    batch_size: int
    images_per_s: float
    images_per_s_low: float
    images_per_s_high: float
    images_per_s_ratio: float
    throughput_rounds: int
    peak_memory_mb: float | None
    peak_memory_ratio: float | None
    precision: str
    device: str
    threads: int


def bench(cfg: DictConfig, path: Path) -> None:
    """Measure, print the table and write ``bench.csv`` into ``path``. Raises ToastError for what a person must mend."""
    seconds = cfg.seconds
    if not is_number(seconds) or seconds <= 0:
        raise ToastError(f"seconds={seconds} is not a time to measure for: use a number above 0, such as seconds=5.")
    backbone, translator = instantiate(cfg.model, _convert_="all"), instantiate(cfg.translator)
    if not isinstance(translator, Translator):
        raise ToastError(
            f"translator={type(translator).__name__} is no translator: derive it from toast_cli.translators.Translator."
        )
    spans = OmegaConf.to_object(cfg.spans) if OmegaConf.is_config(cfg.spans) else cfg.spans
    plans = parse_plans(spans, backbone.depth)  # type: ignore[arg-type]  # it checks
    compute = Compute.pick(cfg.device, cfg.precision, backbone.width)
    made = {
        name: example(each, backbone.width, backbone.prefix_tokens, backbone.tokens)
        for name, each in ({"": translator} | named(plans, translator)).items()
    }
    maps = {span: made[span.translator] for plan in plans for span in plan.spans}
    models = [shorten(backbone, plan, maps).to(compute.device, compute.dtype) for plan in plans]
    shape = (3, backbone.image_size, backbone.image_size)

    def images(count: int) -> Tensor:
        return torch.zeros(count, *shape, device=compute.device, dtype=compute.dtype)

    say(f"{backbone.label}: {len(plans)} models, {compute.precision} on {compute.device}")
    latency = rounds([call(model, images(1)) for model in models], seconds)
    say("latency is measured; looking for the best batch of the original")
    size = _best_batch(models[0], images)
    throughput = rounds([call(model, images(size)) for model in models], seconds)
    say(f"throughput is measured with {size} images at a time; looking at memory")
    memory = [peak_memory(model.cpu(), (size, *shape), compute.device) for model in models]
    costs = Costs(backbone, maps)
    rows = []
    for number, plan in enumerate(plans):
        lows, middles, highs = zip(*(_quartiles(times[number]) for times in (latency, throughput)), strict=True)
        rows.append(
            Timing(
                model=backbone.label,
                translator=translator.name,
                plan=str(plan),
                blocks_removed=plan.blocks_removed,
                **costs.columns(plan),
                latency_ms=1e3 * middles[0],
                latency_ms_low=1e3 * lows[0],
                latency_ms_high=1e3 * highs[0],
                latency_ratio=_ratio(latency[number], latency[0]),
                latency_rounds=len(latency[number]),
                batch_size=size,
                images_per_s=size / middles[1],
                images_per_s_low=size / highs[1],
                images_per_s_high=size / lows[1],
                images_per_s_ratio=1 / _ratio(throughput[number], throughput[0]),
                throughput_rounds=len(throughput[number]),
                peak_memory_mb=memory[number],
                peak_memory_ratio=_fraction(memory[number], memory[0]),
                precision=compute.precision,
                device=compute.device.type,
                threads=torch.get_num_threads(),
            )
        )
    path.mkdir(parents=True, exist_ok=True)
    write_csv(path / "bench.csv", rows, Timing)
    _print(rows)
    print(path / "bench.csv")


def call(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """One forward pass that returns when it is finished."""

    @torch.inference_mode()
    def forward() -> None:
        model(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        elif images.device.type == "mps":
            torch.mps.synchronize()

    return forward


def rounds(calls: list[Callable[[], None]], seconds: float, least: int = 5, most: int = 1000) -> list[list[float]]:
    """Seconds of each call, for some ``seconds`` each: in turn, so that a machine that slows down does so for all alike."""
    for call in calls * 3:  # warm-up
        call()
    times: list[list[float]] = [[] for _ in calls]
    begun = time.perf_counter()
    while len(times[0]) < least or (len(times[0]) < most and time.perf_counter() - begun < seconds * len(calls)):
        for call, seen in zip(calls, times, strict=True):
            before = time.perf_counter()
            call()
            seen.append(time.perf_counter() - before)
    return times


def _best_batch(model: nn.Module, images: Callable[[int], Tensor]) -> int:
    """The power of two with the highest rate; stops when memory runs out or two doublings in a row bring nothing."""
    best, best_rate, in_vain = 1, 0.0, 0
    for size in itertools.takewhile(lambda size: size <= _LARGEST_BATCH, (2**i for i in itertools.count())):
        try:
            took = min(rounds([call(model, images(size))], 0, least=5)[0])
        except Exception as e:
            if not out_of_memory(e):
                raise
            break
        in_vain = 0 if size / took > 1.02 * best_rate else in_vain + 1
        if size / took > best_rate:
            best, best_rate = size, size / took
        if in_vain == 2 or took > _LONGEST_CALL:
            break
    return best


def _quartiles(times: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def _ratio(times: list[float], original: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(times, original, strict=True))


def _fraction(value: float | None, whole: float | None) -> float | None:
    return value / whole if value and whole else None


def _print(rows: list[Timing]) -> None:
    head = rows[0]
    table = Table(
        title=f"{head.model}, {head.translator} translator, {head.precision} on {head.device}, {head.threads} threads"
    )
    for column in ("plan", "params", "GFLOPs", "ms", "ratio", "images/s", "ratio", "peak MB", "ratio"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.plan,
            f"{row.params_ratio:.3f}",
            f"{row.gflops_ratio:.3f}",
            f"{row.latency_ms:.2f}",
            f"{row.latency_ratio:.2f}",
            f"{row.images_per_s:.1f}",
            f"{row.images_per_s_ratio:.2f}",
            "" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}",
            "" if row.peak_memory_ratio is None else f"{row.peak_memory_ratio:.2f}",
        )
    console = Console(highlight=False, markup=False)
    console.print(table, crop=False)
    console.print(
        f"ms for one image; images/s and peak memory with {head.batch_size} at a time: medians, ratios to the original; "
        "bench.csv has the quartiles",
        soft_wrap=True,
    )
