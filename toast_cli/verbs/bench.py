"""``toast bench``: latency, throughput and peak memory of a model and its shortened versions.

Config in, bench.csv out. Nothing is fitted: how long a map takes does not depend on the numbers in it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli.errors import ToastError, is_number, require_flag
from toast_cli.launch import launch
from toast_cli.report.settings import Help
from toast_cli.runs import contents

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor, nn

    from toast_cli.machine.device import Compute
    from toast_cli.models.backbone import Backbone
    from toast_cli.plans import Step, Variant

USAGE = "bench [key=value ...]"
SUMMARY = "latency, throughput, peak memory of shortened models"
_NO_IMAGES = 0  # nothing is fitted
HELP = Help(
    "latency (one image), throughput (at the original's best batch size) and peak memory of a model and its shortened versions.",
    """\
toast bench                                            the embedded model without its last two blocks
toast bench model=dinov2_s spans=[9-11,7-11]           a model from the hub, two plans
toast bench model=vit_b model.pretrained=false         random weights are as fast as any
toast bench translator=identity precision=fp32 seconds=20""",
    "Results are in outputs/bench/<model>/bench.csv; hydra.run.dir=<dir> puts them elsewhere.",
)


def main(argv: list[str]) -> None:
    """Measure, print the table and write ``bench.csv`` into the folder that the settings name."""
    launch("bench", "bench", argv, HELP, bench)


def bench(cfg: "DictConfig", path: Path) -> None:
    """Measure, print the table and write ``bench.csv`` into ``path``. Raises ToastError for invalid settings."""
    from toast_cli.stages.settings import check_model, plain

    seconds, heal = cfg.seconds, require_flag(cfg.fit.heal, "fit.heal")
    if not is_number(seconds) or seconds <= 0:
        raise ToastError(f"seconds={seconds} is not a time to measure for: use a number above 0, such as seconds=5.")
    check_model(cfg)

    from toast_cli.machine.console import say
    from toast_cli.machine.device import Compute
    from toast_cli.models.branches import require_branches
    from toast_cli.models.halves import require_halves
    from toast_cli.plans import Variant, parse_plans
    from toast_cli.report.screen import print_timings
    from toast_cli.runs.measured import Timing
    from toast_cli.runs.results import write_csv
    from toast_cli.stages.load import make, make_translator, of_spans
    from toast_cli.surgery.costs import Costs
    from toast_cli.surgery.shortened import shorten
    from toast_cli.translators.by_token import example

    backbone, translator = make(cfg, "model"), make_translator(cfg)
    plans = parse_plans(plain(cfg.spans), backbone.depth)
    require_halves(plans, backbone.blocks)
    if heal:
        require_branches(backbone.blocks)
    compute = Compute.pick(cfg.device, cfg.precision, backbone.width)
    examples = {
        name: example(each, backbone.width, backbone.prefix_tokens, backbone.tokens)
        for name, each in ({"": translator} | of_spans(plans, translator)).items()
    }
    variants = [Variant(plan, _NO_IMAGES, healed=heal and bool(plan.spans)) for plan in plans]
    modules = _modules(backbone, variants, examples)
    models = [shorten(backbone, variant, modules).to(compute.device, compute.dtype) for variant in variants]
    say(f"{backbone.label}: {len(plans)} models, {compute.precision} on {compute.device}")
    measured = _measure(models, backbone.image_shape, compute, seconds)
    costs = Costs(backbone, modules)
    same = {"model": backbone.label, "translator": translator.name, **_where(compute)}
    rows = [
        Timing(**same, **_plan_columns(variant), **costs.columns(variant), **columns)
        for variant, columns in zip(variants, measured, strict=True)
    ]
    path.mkdir(parents=True, exist_ok=True)
    write_csv(path / contents.BENCH, rows, Timing)
    print_timings(rows)
    print(path / contents.BENCH)


def _modules(
    backbone: "Backbone", variants: "Sequence[Variant]", examples: "Mapping[str, nn.Module]"
) -> "dict[Step, nn.Module]":
    """What stands for the maps and the healed blocks of the variants; ``examples`` holds a map by the name of its translator."""
    from toast_cli.models.branches import example_tensors
    from toast_cli.plans import HealedBlock, Map

    found: dict[Step, nn.Module] = {}
    for step in {step for variant in variants for step in variant.operations(backbone.depth)}:
        if isinstance(step, Map):
            found[step] = examples[step.span.translator]
        elif isinstance(step, HealedBlock):
            found[step] = backbone.healed(step.block, example_tensors(backbone.part(step.block)))
    return found


def _plan_columns(variant: "Variant") -> dict[str, Any]:
    return {"plan": str(variant), "blocks_removed": variant.plan.blocks_removed, "healed": variant.healed}


def _where(compute: "Compute") -> dict[str, Any]:
    """The columns that say what the times were measured on."""
    import torch

    return {"precision": compute.precision, "device": compute.device.type, "threads": torch.get_num_threads()}


def _measure(
    models: "Sequence[nn.Module]", shape: tuple[int, int, int], compute: "Compute", seconds: float
) -> list[dict[str, Any]]:
    """The measured columns of each model, the original first."""
    import torch

    from toast_cli.machine.console import say
    from toast_cli.machine.memory import peak_memory
    from toast_cli.machine.timing import best_batch, call, rounds

    def images(count: int) -> "Tensor":
        """As many images of zeros (N, C, H, W)."""
        return torch.zeros(count, *shape, device=compute.device, dtype=compute.dtype)

    latency = rounds([call(model, images(1)) for model in models], seconds)
    say("latency measured; looking for the best batch size of the original")
    size = best_batch(models[0], images)
    throughput = rounds([call(model, images(size)) for model in models], seconds)
    say(f"throughput measured with {size} images at a time; measuring peak memory")
    memory = [peak_memory(model.cpu(), (size, *shape), compute.device) for model in models]
    return [
        {
            **_latency_columns(alone, latency[0]),
            **_throughput_columns(together, throughput[0], size),
            "peak_memory_mb": peak,
            "peak_memory_ratio": peak / memory[0] if peak and memory[0] else None,
        }
        for alone, together, peak in zip(latency, throughput, memory, strict=True)
    ]


def _latency_columns(times: list[float], original: list[float]) -> dict[str, Any]:
    from toast_cli.machine.timing import quartiles, ratio

    low, middle, high = quartiles(times)
    return {
        "latency_ms": 1e3 * middle,
        "latency_ms_low": 1e3 * low,
        "latency_ms_high": 1e3 * high,
        "latency_ratio": ratio(times, original),
        "latency_rounds": len(times),
    }


def _throughput_columns(times: list[float], original: list[float], size: int) -> dict[str, Any]:
    from toast_cli.machine.timing import quartiles, ratio

    fast, usual, slow = quartiles(times)
    return {
        "batch_size": size,
        "images_per_s": size / usual,
        "images_per_s_low": size / slow,
        "images_per_s_high": size / fast,
        "images_per_s_ratio": 1 / ratio(times, original),
        "throughput_rounds": len(times),
    }
