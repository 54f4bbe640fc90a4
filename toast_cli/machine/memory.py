"""Memory: what to do when it runs out, how much a process holds, and the peak of a model and a batch.

A peak is measured by CUDA's allocator on a GPU, and in a separate process on a CPU (Linux).
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "can't allocate memory" in str(error))
    )


class Halving:
    """``function`` on batches (N, …), in pieces that are halved whenever memory runs out and never grow again.

    Raises ToastError if not even one image fits.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], say: Callable[[str], None]) -> None:
        self.function = function
        self.say = say
        self.limit: int | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        while True:
            try:
                return torch.cat([self.function(piece) for piece in batch.split(self.limit or len(batch))])
            except Exception as e:
                if not out_of_memory(e):
                    raise
                self.limit = halve(self.limit or len(batch), self.say, e)


def halve(size: int, say: Callable[[str], None], error: Exception) -> int:
    """Announce and return half of ``size`` images. Raises ToastError if not even one image fits."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if size == 1:
        raise ToastError(
            "Memory ran out with a single image: use a smaller model or image size, or another device=."
        ) from error
    say(f"Memory ran out with {size} images at a time: continuing with {size // 2}.")
    return size // 2


def peak_memory(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> float | None:
    """The most memory, in 1e6 bytes, that ``model`` and a batch of ``shape`` (N, 3, H, W) take; None if it cannot be measured.

    ``model`` is given on the CPU.
    """
    if device.type == "cuda":
        return _on_cuda(model, shape, device)
    if device.type != "cpu" or sys.platform != "linux":
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        torch.save(model, file)
        modules = ",".join(sorted({type(part).__module__ for part in model.modules()}))
        numbers = map(str, (*shape, torch.get_num_threads()))
        words = [sys.executable, "-m", "toast_cli.machine.memory", str(file), modules, *numbers]
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
def _in_this_process(file: str, modules: str, *numbers: str) -> float:
    """How much the model in ``file``, which toast itself wrote, and a batch raise the resident set, in 1e6 bytes.

    ``modules`` hold the classes of its parts: they are imported first, since their code is not part of the model.
    """
    *shape, threads = map(int, numbers)
    torch.set_num_threads(threads)
    for name in modules.split(","):
        import_module(name)

    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak that the imports left
    model = torch.load(file, mmap=True, weights_only=False)
    model(torch.zeros(*shape, dtype=next(model.parameters()).dtype))
    return (_status("VmHWM") - before) / 1e3


def resident() -> int:
    """Bytes of private memory that this process holds; on systems other than Linux the most it has held so far."""
    if sys.platform == "linux":
        return 1024 * _status("RssAnon")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    """A field of /proc/self/status, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


if __name__ == "__main__":
    print(_in_this_process(*sys.argv[1:]))
