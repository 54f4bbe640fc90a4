"""``toast doctor``: what this machine, its installation and the hub offer, and a self-test.

The self-test checks that a plan that removes nothing changes nothing.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toast_cli import __version__
from toast_cli.errors import Parser

if TYPE_CHECKING:
    from torch import Tensor

USAGE = "doctor"
SUMMARY = "what this machine, its installation and the hub offer; a self-test"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "hydra-core",
    "omegaconf",
    "datasets",
    "huggingface-hub",
    "safetensors",
    "numpy",
)
EXTRAS = ("onnx", "onnxruntime", "onnxscript", "hydra-joblib-launcher", "hydra-submitit-launcher")
_WIDTH = 384  # of a ViT-S, the model that the precision is picked for
_PATIENCE = 5.0  # seconds to wait for the hub's answer
_SCANT = 2e9  # fewer bytes of memory or disk than this are too few

Check = tuple[bool, str]  # whether all is well, and what was found


def main(argv: list[str]) -> None:
    """Print the checks; exit status 1 if something is wrong."""
    parser = Parser(
        prog="toast doctor",
        description="What this machine, its installation and the hub offer, and a self-test; status 1 if something is wrong.",
    )
    parser.parse_args(argv)
    sys.exit(doctor())


def doctor() -> int:
    """Print one line for each check; returns 1 if any of them finds something wrong, else 0."""
    from toast_cli.report.screen import wide_console

    well = True
    for name, check in CHECKS.items():
        for fine, text in check():
            wide_console().print(f"{'ok ' if fine else '!! '} {name}: {text}", markup=False, soft_wrap=True)
            well &= fine
    return 0 if well else 1


def _versions() -> Iterator[Check]:
    yield True, f"toast {__version__}, python {platform.python_version()}, {platform.platform()}"
    yield True, ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield True, "extras: " + ", ".join(f"{name} {_version(name)}" for name in EXTRAS)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> Iterator[Check]:
    import torch

    from toast_cli.machine.device import Compute, matmul_seconds

    compute = Compute.pick("auto", "auto", _WIDTH)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield (
        True,
        f"{compute.device}{f' ({names[0]}; {len(names)} in all)' if names else ''}, {torch.get_num_threads()} threads on {os.cpu_count()} cores",
    )
    if compute.device.type == "cuda":
        why = "bf16 is used from compute capability 8.0 up, and this GPU has " + ".".join(
            map(str, torch.cuda.get_device_capability())
        )
    elif compute.device.type == "cpu":
        ratio = matmul_seconds(_WIDTH, torch.float32) / matmul_seconds(_WIDTH, torch.bfloat16)
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        why = (
            f"a product in bf16 is {ratio:.1f} times as fast as in fp32"
            if native
            else "this processor does not multiply bf16 natively"
        )
    else:
        why = "bf16 is used on CUDA and on CPUs only"
    yield True, f"precision=auto is {compute.precision} for a ViT-S: {why}"


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants, get_token, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
        yield (
            True,
            f"cache {constants.HF_HUB_CACHE} holds {len(cache.repos)} repositories, {cache.size_on_disk / 1e9:.2g} GB",
        )
    except CacheNotFound:
        yield True, f"cache {constants.HF_HUB_CACHE} is empty"
    token = (
        "a token is set"
        if get_token()
        else "no token: set HF_TOKEN for data sets with terms to accept, such as ImageNet-1k"
    )
    yield True, token
    yield True, _reach(constants.ENDPOINT, constants.HF_HUB_OFFLINE)


def _reach(endpoint: str, offline: bool) -> str:
    """Whether the hub answers. It need not: a run uses it only for what is neither in the cache nor given by a path."""
    if offline:
        return "HF_HUB_OFFLINE is set: nothing is fetched, the cache and your own files are used"
    from huggingface_hub import get_session

    begun = time.perf_counter()
    try:
        get_session().head(endpoint, timeout=_PATIENCE)
    except Exception as e:
        return (
            f"{urlsplit(endpoint).netloc} cannot be reached ({type(e).__name__}): give data.path= and model.checkpoint=, or copy a cache "
            "and name it with HF_HOME"
        )
    return f"{urlsplit(endpoint).netloc} answers in {time.perf_counter() - begun:.1f} s"


def _room() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    yield free > _SCANT, f"{free / 1e9:.3g} GB free on the disk of {Path.cwd()}, where outputs/ goes"
    if (table := Path("/proc/meminfo")).is_file():
        sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in table.read_text().splitlines()}
        there = sizes["MemAvailable"]
        yield there > _SCANT, f"{there / 1e9:.3g} GB of {sizes['MemTotal'] / 1e9:.3g} GB of memory available"
    writable = os.access(Path.cwd(), os.W_OK)
    yield writable, f"{Path.cwd()} is {'' if writable else 'not '}writable"


def _self_test() -> Iterator[Check]:
    import torch
    from hydra import compose, initialize_config_dir

    from toast_cli.moments import Moments
    from toast_cli.plans import Plan, Span
    from toast_cli.registry import CONF
    from toast_cli.runs.naming import register_resolvers
    from toast_cli.stages.load import make
    from toast_cli.stages.walk import Encoder, latents
    from toast_cli.surgery import shorten
    from toast_cli.translators import Linear

    begun = time.perf_counter()
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config")
    backbone, data = make(cfg, "model"), make(cfg, "data")
    pixels = next(data.test.batches(backbone.transform, 64)).pixels
    whole = _features(backbone.vit, backbone.normalise(pixels))
    moments = Moments([(9, 11)])
    moments.update(latents(backbone, pixels))
    plan = Plan((Span(9, 11),))
    maps = {plan.spans[0]: Linear().fit(moments.pair(9, 11)).to_module()}
    none, walked = Encoder(backbone, [Plan(), plan], maps)(pixels).unbind(1)
    short = _features(shorten(backbone, plan, maps), backbone.normalise(pixels))
    took = f"{time.perf_counter() - begun:.1f} s"
    same = torch.equal(none, whole)
    yield (
        same,
        f"a plan that removes nothing {'equals' if same else 'DIFFERS FROM'} the untouched model bit for bit, on {len(pixels)} digits ({took})",
    )
    off = ((walked - short).norm() / short.norm()).item()
    yield off < 1e-4, f"the walk and the shortened model differ by {off:.0e} with blocks 10 and 11 replaced"


def _features(vit: Any, images: "Tensor") -> "Tensor":
    """Images (N, 3, H, W) -> what timm's own forward pass hands to a classifier (N, F)."""
    return vit.forward_head(vit.forward_features(images), pre_logits=True)


CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "versions": _versions,
    "device": _device,
    "hub": _hub,
    "room": _room,
    "self-test": _self_test,
}
