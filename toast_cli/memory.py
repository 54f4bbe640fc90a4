"""Peak memory of a model and a batch: on CUDA by its allocator, on a CPU (Linux) by a process of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn


def peak_memory(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> float | None:
    """1e6 bytes that ``model``, given on the CPU, and a batch of ``shape`` (N, 3, H, W) take at most; None where it cannot be had."""
    if device.type == "cuda":
        return _on_cuda(model, shape, device)
    if device.type != "cpu" or sys.platform != "linux":
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        torch.save(model, file)
        words = [sys.executable, "-m", "toast_cli.memory", str(file), *map(str, shape), str(torch.get_num_threads())]
        places = os.pathsep.join(path for path in sys.path if path)
        child = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places})
    return float(child.stdout) if child.returncode == 0 else None


@torch.inference_mode()
def _on_cuda(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> float:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model.to(device)(torch.zeros(shape, device=device, dtype=next(model.parameters()).dtype))
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    model.cpu()
    return peak / 1e6


@torch.inference_mode()
def _in_this_process(file: str, *numbers: str) -> float:
    """1e6 bytes by which the model in ``file``, which we have written ourselves, and a batch raise the resident set."""
    *shape, threads = map(int, numbers)
    torch.set_num_threads(threads)
    import timm.models.vision_transformer  # noqa: F401, what the model's classes need is no part of the model

    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak that the imports have left
    model = torch.load(file, mmap=True, weights_only=False)
    model(torch.zeros(*shape, dtype=next(model.parameters()).dtype))
    return (_status("VmHWM") - before) / 1e3


def resident() -> int:
    """Bytes of memory that this process has for itself; on other systems than Linux the most it has had so far."""
    if sys.platform == "linux":
        return 1024 * _status("RssAnon")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    """Kilobytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


if __name__ == "__main__":
    print(_in_this_process(*sys.argv[1:]))
