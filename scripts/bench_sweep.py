"""How fast a sweep is, compared with a plain procedure and with what the machine itself can do.

    python scripts/bench_sweep.py --quick                      the embedded model, 3 minutes
    python scripts/bench_sweep.py model=dinov2_s model.checkpoint=w.safetensors data=cifar10 data.path=cifar10

Takes the settings of `toast run`; both use the same machine, model, images and probe. Everything is measured on parts
that fit into half an hour, and what is extrapolated from them says so. Prints its tables and writes each as
<out>/<table>.csv.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from toast_cli.data.dataset import Data
from toast_cli.data.images import Images
from toast_cli.machine.console import say
from toast_cli.machine.device import Compute
from toast_cli.machine.side_by_side import in_parts
from toast_cli.machine.team import ALONE
from toast_cli.models.factory import Backbone
from toast_cli.models.fused import Dense
from toast_cli.moments import Moments
from toast_cli.plans import Plan, Span
from toast_cli.probes.batched import LinearProbe
from toast_cli.registry import CONF
from toast_cli.runs.features import FeatureFile
from toast_cli.runs.folder import open_folder
from toast_cli.runs.naming import register_resolvers
from toast_cli.stages.walk import Encoder, Node, latents
from toast_cli.surgery import shorten
from toast_cli.surgery.costs import Costs
from toast_cli.translators.closed_form import Linear
from toast_cli.verbs.run import run

_P = ParamSpec("_P")
_T = TypeVar("_T")
WHOLE = {"fit": 500, "train": 1000, "test": 500}  # the sweep that measured rates are extrapolated to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of toast run: model=... data=... device=...")
    parser.add_argument("--quick", action="store_true", help="fewer images, fewer tables")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_sweep"), help="where the CSV files go")
    args = parser.parse_args()
    images = {"fit": 64, "train": 64, "test": 32} if args.quick else {"fit": 500, "train": 96, "test": 48}
    fitting = 4 if args.quick else 32  # batches
    register_resolvers()
    counts = [f"data.{name}_images={count}" for name, count in images.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*args.overrides, *counts])
    backbone, data = instantiate(cfg.model, _convert_="all"), instantiate(cfg.data, _convert_="all")
    cfg.spans = [str(span) for span in paper_spans(backbone.depth)]
    args.out.mkdir(parents=True, exist_ok=True)

    def show(name: str, rows: list[dict]) -> None:
        frame = pd.DataFrame(rows)
        frame.to_csv(args.out / f"{name}.csv", index=False, float_format="%.6g")
        print(f"\n{name}\n{frame.to_string(index=False, float_format=lambda value: f'{value:.4g}')}", flush=True)

    compute = Compute.pick(cfg.device, "fp32", backbone.width)
    batch = compute.batch_size(cfg.batch_size, backbone.tokens, backbone.width)
    backbone.to(compute.device)
    pixels = sample(data.train, backbone, 4 * batch).to(compute.device)
    show("machine", [machine(backbone, compute, batch)])
    maps, fit_rows = fit(backbone, sample(data.fit[0], backbone, fitting * batch).to(compute.device), batch)
    show("fit", fit_rows)
    show("efficiency", [efficiency(backbone, pixels[: 2 * batch], maps, dtype) for dtype in dtypes(backbone, compute)])
    show("exactness", exactness(backbone, pixels[:batch], maps))
    sweeps = sweep(cfg, backbone, data, compute, batch)
    show("sweep", sweeps)
    show("decode", decode(backbone, data, sweeps, batch))
    if not args.quick:
        show("probes", [probes(sweeps)])


def paper_spans(depth: int) -> list[Span]:
    """Every span that keeps block 0."""
    return [Span(s, e) for s in range(depth - 1) for e in range(s + 1, depth)]


def dtypes(backbone: Backbone, compute: Compute) -> list[torch.dtype]:
    return [torch.float32, torch.bfloat16] if compute.device.type in ("cpu", "cuda") else [torch.float32]


def sample(images: Images, backbone: Backbone, count: int) -> Tensor:
    """``count`` of the images, uint8 (N, 3, H, W), some more than once if there are fewer."""
    pixels = next(images.batches(backbone.transform, min(count, len(images)))).pixels
    return pixels.repeat(-(-count // len(pixels)), 1, 1, 1)[:count]


def seconds(call: Callable[[], object], repeat: int = 5) -> float:
    """Median over ``repeat`` calls after one as a warm-up; each includes all the work it gives the device."""
    times = []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def machine(backbone: Backbone, compute: Compute, batch: int) -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    gpu = torch.cuda.get_device_name() if compute.device.type == "cuda" else None
    auto = Compute.pick(str(compute.device), "auto", backbone.width).precision
    return {
        "device": gpu or name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": backbone.label,
        "tokens": backbone.tokens,
        "width": backbone.width,
        "batch": batch,
        "auto": auto,
    }


# --- the plain procedure: one span at a time, written to be read ---------------------------------------------------


@torch.inference_mode()
def naive_latents(backbone: Backbone, data: Data, batch: int) -> list[Tensor]:
    """The latents after each block (n, D), of all tokens of the fit images, kept in memory."""
    after: list[list[Tensor]] = [[] for _ in range(backbone.depth)]
    for pixels in decoded(data.fit[0], backbone, batch):
        x, _ = backbone.stem(pixels)
        for i in range(backbone.depth):
            x = backbone.vit.blocks[i](x)
            after[i].append(x.flatten(0, 1).float())
    return [torch.cat(parts) for parts in after]


@torch.inference_mode()
def naive_fit(stored: list[Tensor], span: Span) -> nn.Module:
    """Least squares on the stacked tokens (n, D) of each layer."""
    x, y = stored[int(span.start)], stored[int(span.end)]
    module = nn.Linear(x.shape[1], y.shape[1], bias=False, device=x.device)
    module.weight.copy_(torch.linalg.lstsq(x, y, driver="gels").solution.T)
    return module


@torch.inference_mode()
def naive_encode(backbone: Backbone, model: nn.Module, images: Images, batch: int) -> Tensor:
    """Every image decoded and run through the shortened model: features (N, F)."""
    return torch.cat([model(backbone.normalise(pixels)).float().cpu() for pixels in decoded(images, backbone, batch)])


def naive_probe(train: Tensor, labels: np.ndarray, classes: int) -> nn.Module:
    """One linear layer, Adam, five epochs, on features (N, F) and labels (N,)."""
    probe, target = nn.Linear(train.shape[1], classes), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-2)
    for _ in range(5):
        for rows in torch.randperm(len(train)).split(256):
            optimizer.zero_grad()
            nn.functional.cross_entropy(probe(train[rows].clone()), target[rows]).backward()
            optimizer.step()
    return probe


def decoded(images: Images, backbone: Backbone, batch: int) -> Iterator[Tensor]:
    for decoded_batch in images.batches(backbone.transform, batch):
        yield decoded_batch.pixels.to(backbone.mean.device)


def naive(backbone: Backbone, data: Data, batch: int, precision: str = "fp32") -> dict:
    """Measure four spans, fit seconds = images × (a + b × blocks) to their encoding, and add up all plans.

    In bf16 everything runs under torch's autocast, maps too, as people would have it.
    """
    with torch.autocast(backbone.mean.device.type, torch.bfloat16, enabled=precision == "bf16"):
        row = naive_sweep(backbone, data, batch)
    return {"procedure": "plain", "precision": precision, **row}


def naive_sweep(backbone: Backbone, data: Data, batch: int) -> dict:
    depth = backbone.depth
    storing, stored = timed(lambda: naive_latents(backbone, data, batch))
    measured = []
    for span in (
        Span(0, depth - 1),
        Span(depth // 3, 2 * depth // 3),
        Span(depth - 4, depth - 2),
        Span(depth - 2, depth - 1),
    ):
        fitting, module = timed(naive_fit, stored, span)
        model = shorten(backbone, Plan((span,)), {span: module})
        encoding, train = timed(naive_encode, backbone, model, data.train, batch)
        encoding += timed(naive_encode, backbone, model, data.test, batch)[0]
        probing, _ = timed(naive_probe, train, data.train.labels, len(data.classes))
        measured.append((depth - (span.end - span.start), encoding, fitting, probing))
        say(f"plain procedure, span {span}: fit {fitting:.1f} s, encode {encoding:.1f} s")
    kept, encode, fits, probes = map(np.array, zip(*measured, strict=True))
    images = len(data.train) + len(data.test)
    b, a = np.polyfit(kept, encode / images, 1)
    error = float(np.abs(images * (a + b * kept) / encode - 1).max())
    whole = WHOLE["train"] + WHOLE["test"]
    spans = paper_spans(depth)
    blocks = sum(depth - (span.end - span.start) for span in spans) + depth
    total = whole * (a * (len(spans) + 1) + b * blocks)
    total += (storing + float(np.mean(fits)) * len(spans)) * WHOLE["fit"] / len(data.fit[0])
    total += float(np.mean(probes)) * WHOLE["train"] / len(data.train) * (len(spans) + 1)
    return {"blocks_an_image": blocks, "measured_images": images, "ms_a_block": 1e3 * b,
            "ms_an_image": 1e3 * (a * (len(spans) + 1) + b * blocks), "cost_model_error": error, "whole_s": total}  # fmt: skip


# --- toast ----------------------------------------------------------------------------------------------------------


def sweep(cfg: DictConfig, backbone: Backbone, data: Data, compute: Compute, batch: int) -> list[dict]:
    """The whole sweep, extrapolated to WHOLE from each stage's rate: the plain procedure, then `toast run` itself."""
    auto = Compute.pick(str(compute.device), "auto", backbone.width).precision
    plain = {precision: naive(backbone, data, batch, precision) for precision in dict.fromkeys(["fp32", auto])}
    rows = list(plain.values())
    for precision in plain:
        cfg.precision = precision
        with tempfile.TemporaryDirectory() as place, open_folder(Path(place) / "run", cfg, []) as folder:
            run(cfg, folder, ALONE)
            took = folder.record["seconds"]
        images = len(data.train) + len(data.test)
        whole = {
            "fit_s": took["fit"] * WHOLE["fit"] / len(data.fit[0]),
            "encode_s": took["encode"] * (WHOLE["train"] + WHOLE["test"]) / images,
            "probe_s": took["probe"] * WHOLE["train"] / len(data.train),
        }
        total = took["load"] + sum(whole.values())
        evaluations = Encoder(
            backbone, [Plan(), *(Plan((span,)) for span in paper_spans(backbone.depth))], {}
        ).trie.evaluations()
        rows.append({"procedure": "toast", "precision": precision, "blocks_an_image": evaluations, "measured_images": images,
                     "ms_an_image": 1e3 * took["encode"] / images, **whole, "load_s": took["load"], "whole_s": total,
                     "ratio": plain[precision]["whole_s"] / total, "is_auto": precision == auto})  # fmt: skip
    return rows


def fit(backbone: Backbone, pixels: Tensor, batch: int) -> tuple[dict[Span, nn.Module], list[dict]]:
    """The maps of all pairs, what their sums and solves take next to encoding, and how far fp32 moves them from float64."""
    spans = paper_spans(backbone.depth)
    single, double = Moments((s.start, s.end) for s in spans), Moments((s.start, s.end) for s in spans)
    encode, sums = [], []
    for part in pixels.split(batch):
        encoding, summing = timed(latents, backbone, part)
        encode.append(encoding)
        sums.append(timed(single.update, summing)[0])
        double.update(
            {layer: x.double() if x.device.type != "mps" else x.cpu().double() for layer, x in summing.items()}
        )
    solve, fitted = timed(lambda: {s: Linear().fit(single.pair(s.start, s.end)) for s in spans})
    cka, _ = timed(lambda: [single.pair(s.start, s.end).cka() for s in spans])
    moved, r2 = [], []
    for span in spans:
        pair = dataclasses.replace(double.pair(span.start, span.end), dtype=single.dtype)  # the same notion of rank
        exact, ours = Linear().fit(pair), fitted[span].weight_.double()
        change = ours - exact.weight_.double()
        size = (exact.weight_.double() * (pair.xx @ exact.weight_.double())).sum()
        moved.append(((change * (pair.xx @ change)).sum() / size).sqrt().item())
        r2.append(abs(fitted[span].r2_ - exact.r2_))
    later = slice(1, None)  # the first batch is a warm-up, and sets the bases
    extra, steady = sums[0] - statistics.median(sums[later]), statistics.median(sums[later]) / batch
    whole = steady * WHOLE["fit"] + max(extra, 0) + solve
    once = statistics.median(encode[later]) / batch
    row = {"pairs": len(spans), "images": len(pixels), "encode_ms": 1e3 * once, "sums_ms": 1e3 * steady, "first_batch_s": extra,
           "solve_s": solve, "cka_s": cka, f"share_at_{WHOLE['fit']}": whole / (once * WHOLE["fit"]),
           "prediction_moved_max": max(moved), "r2_moved_max": max(r2)}  # fmt: skip
    device = pixels.device
    return {span: translator.to_module().to(device) for span, translator in fitted.items()}, [row]


def timed(call: Callable[_P, _T], *values: _P.args, **named: _P.kwargs) -> tuple[float, _T]:
    begun = time.perf_counter()
    result = call(*values, **named)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun, result


def plans_of(maps: dict[Span, nn.Module]) -> list[Plan]:
    return [Plan(), *(Plan((span,)) for span in maps)]


def efficiency(backbone: Backbone, pixels: Tensor, maps: dict[Span, nn.Module], dtype: torch.dtype) -> dict:
    """FLOP/s of the walk over those of the four products of a block at the same number of rows, measured before and after."""
    batch = len(pixels) // 2
    costs = Costs(backbone, maps)

    def gflops(node: Node, shortened: bool = False) -> float:
        """What the walk computes for all tokens; operations for the readout's tokens alone are not counted."""
        total = 0.0
        for operation, child in node.children.items():
            below = shortened or isinstance(operation, Span)
            if child.children or not below or backbone.readout_tokens is None:
                total += costs.operations[operation].gflops
            total += gflops(child, below)
        return total

    backbone = backbone.on(pixels.device, dtype)
    encoder = Encoder(backbone, plans_of(maps), maps)
    peaks, walks = [products(backbone, batch, dtype)], []
    for _ in range(3):  # in turn, and for equally long: a machine may slow down under a lasting load
        walks.append(timed(lambda: encoder(pixels[:batch]))[0] / batch)
        peaks.append(products(backbone, batch, dtype))
    took, peak = statistics.median(walks), statistics.median(peaks)
    i = backbone.depth // 2
    (latent, extras), fused = backbone.stem(pixels[:batch]), backbone.fused_block(i)
    with torch.inference_mode():
        plain_ms, fused_ms, rows_ms = (
            1e3 * seconds(call, 9) / batch
            for call in (
                lambda: backbone.block(i, latent, extras),
                lambda: fused(latent, extras, None),
                lambda: fused(latent, extras, 1),
            )
        )
    achieved = (gflops(encoder.trie) + costs.ends.gflops) / took / 1e3
    return {"precision": str(dtype).removeprefix("torch."), "peak_tflops": peak, "walk_tflops": achieved, "efficiency": achieved / peak,
            "walk_ms": 1e3 * took, "timm_block_ms": plain_ms, "fused_block_ms": fused_ms, "class_token_block_ms": rows_ms}  # fmt: skip


def products(backbone: Backbone, batch: int, dtype: torch.dtype, at_least: float = 3.0) -> float:
    """TFLOP/s of qkv, projection and MLP as bare products, over ``at_least`` seconds: the best of the ways that there are.

    On CPUs these are torch's own product and oneDNN's with packed weights, with all threads sharing each or each
    multiplying rows of its own; the first into existing buffers.
    """
    tokens, d, device = backbone.tokens, backbone.width, backbone.mean.device
    shapes = ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d))
    inputs = {wide: torch.randn(batch, tokens, wide, device=device).to(dtype) for wide in (d, 4 * d)}
    weights = [torch.randn(narrow, wide, device=device).to(dtype) for wide, narrow in shapes]
    buffers = [torch.empty(batch * tokens, narrow, device=device, dtype=dtype) for _, narrow in shapes]
    layers = [Dense(weight, None, dtype) for weight in weights]

    def into_buffers() -> None:
        for weight, buffer in zip(weights, buffers, strict=True):
            torch.mm(inputs[weight.shape[1]].flatten(0, 1), weight.T, out=buffer)

    def layer_by_layer(part: Tensor) -> Tensor:
        with torch.inference_mode():
            for layer, (wide, _) in zip(layers, shapes, strict=True):
                layer(inputs[wide][: len(part)])
        return part

    numbers = torch.arange(batch)
    ways = [into_buffers, lambda: layer_by_layer(numbers), lambda: in_parts(layer_by_layer, numbers)]
    took = min(
        seconds(way, repeat=max(9, int(at_least / 3 / max(seconds(way, 1), 1e-6)) if at_least else 9)) for way in ways
    )
    return 24 * batch * tokens * d * d / took / 1e12


def exactness(backbone: Backbone, pixels: Tensor, maps: dict[Span, nn.Module]) -> list[dict]:
    """Relative differences of features over spans: fp32 against the shortened timm models, and bf16 against fp32."""
    plans = plans_of(maps)
    exact = Encoder(backbone, plans, maps)(pixels)
    chosen = range(0, len(plans), max(1, len(plans) // 8))
    with torch.inference_mode():
        timms = [shorten(backbone, plans[i], maps)(backbone.normalise(pixels)) for i in chosen]
    rows = [
        difference(
            "walk in fp32 against the shortened timm model",
            [relative(exact[:, i], t) for i, t in zip(chosen, timms, strict=True)],
        )
    ]
    rounded = Encoder(backbone.on(pixels.device, torch.bfloat16), plans, maps)(pixels)
    rows.append(
        difference(
            "walk in bf16 against the walk in fp32", [relative(rounded[:, i], exact[:, i]) for i in range(len(plans))]
        )
    )
    return rows


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def difference(what: str, values: list[float]) -> dict:
    return {"compared": what, "plans": len(values), "mean": statistics.mean(values), "max": max(values)}


def decode(backbone: Backbone, data: Data, sweeps: list[dict], batch: int) -> list[dict]:
    """Images per second of decoding and preprocessing alone, in this process, next to those of the model."""
    took, _ = timed(lambda: [None for _ in data.train.batches(backbone.transform, batch)])
    rows = [{"what": "decode and preprocess, one process", "images_per_s": len(data.train) / took}]
    rows += [
        {"what": f"toast, every span, {row['precision']}", "images_per_s": 1e3 / row["ms_an_image"]}
        for row in sweeps[1:]
    ]
    return rows


def probes(sweeps: list[dict], images: int = 4096, plans: int = 67, width: int = 384, classes: int = 10) -> dict:
    """A probe of all plans from features on disk, extrapolated to 50 000 images and 3 seeds, next to encoding them."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        file = FeatureFile(Path(place) / "features.f32", images, plans, width)
        for _ in range(0, images, 512):
            file.append(generator.standard_normal((512, plans, width), dtype=np.float32))
        took, _ = timed(lambda: LinearProbe().fit(file.read(), generator.integers(0, classes, images), classes, seed=0))
    whole = 3 * took * 50_000 / images
    encoding = 50_000 * min(row["ms_an_image"] for row in sweeps[1:]) / 1e3
    return {"images": images, "plans": plans, "width": width, "one_seed_s": took, "three_seeds_at_50000_s": whole,
            "encoding_50000_s": encoding, "share": whole / (whole + encoding)}  # fmt: skip


if __name__ == "__main__":
    main()
