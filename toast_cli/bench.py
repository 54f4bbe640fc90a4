"""``toast bench``: latency, throughput and peak memory of a model and of its shortened versions. Config in, bench.csv out.

Nothing is fitted: how long a map takes does not depend on the numbers in it.
"""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from toast_cli.compute import Compute
from toast_cli.console import say
from toast_cli.costs import Costs
from toast_cli.errors import ToastError, is_number
from toast_cli.memory import peak_memory
from toast_cli.plans import parse_plans
from toast_cli.results import write_csv
from toast_cli.rows import Timing
from toast_cli.run import named
from toast_cli.screen import print_timings
from toast_cli.surgery import shorten
from toast_cli.timing import best_batch, call, quartiles, ratio, rounds
from toast_cli.tokens import example
from toast_cli.translators import Translator


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
    say(f"{backbone.label}: {len(plans)} models, {compute.precision} on {compute.device}")
    measured = _measure(models, backbone.image_size, compute, seconds)
    costs = Costs(backbone, maps)
    same = {
        "model": backbone.label,
        "translator": translator.name,
        "precision": compute.precision,
        "device": compute.device.type,
        "threads": torch.get_num_threads(),
    }
    rows = [
        Timing(**same, plan=str(plan), blocks_removed=plan.blocks_removed, **costs.columns(plan), **columns)
        for plan, columns in zip(plans, measured, strict=True)
    ]
    path.mkdir(parents=True, exist_ok=True)
    write_csv(path / "bench.csv", rows, Timing)
    print_timings(rows)
    print(path / "bench.csv")


def _measure(models: list[Any], image_size: int, compute: Compute, seconds: float) -> list[dict[str, Any]]:
    """The measured columns of each model, the original first."""
    shape = (3, image_size, image_size)

    def images(count: int) -> Tensor:
        return torch.zeros(count, *shape, device=compute.device, dtype=compute.dtype)

    latency = rounds([call(model, images(1)) for model in models], seconds)
    say("latency is measured; looking for the best batch of the original")
    size = best_batch(models[0], images)
    throughput = rounds([call(model, images(size)) for model in models], seconds)
    say(f"throughput is measured with {size} images at a time; looking at memory")
    memory = [peak_memory(model.cpu(), (size, *shape), compute.device) for model in models]
    found = []
    for alone, together, peak in zip(latency, throughput, memory, strict=True):
        (low, middle, high), (fast, usual, slow) = quartiles(alone), quartiles(together)
        found.append(
            {
                "latency_ms": 1e3 * middle,
                "latency_ms_low": 1e3 * low,
                "latency_ms_high": 1e3 * high,
                "latency_ratio": ratio(alone, latency[0]),
                "latency_rounds": len(alone),
                "batch_size": size,
                "images_per_s": size / usual,
                "images_per_s_low": size / slow,
                "images_per_s_high": size / fast,
                "images_per_s_ratio": 1 / ratio(together, throughput[0]),
                "throughput_rounds": len(together),
                "peak_memory_mb": peak,
                "peak_memory_ratio": peak / memory[0] if peak and memory[0] else None,
            }
        )
    return found
