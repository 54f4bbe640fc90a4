"""Memory: what to do when it runs out, how much a process holds, and the peak of a model and a batch.

A peak is measured by CUDA's allocator on a GPU, and in a separate process on a CPU (Linux).
"""

import ctypes
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from toast_cli.errors import SingleImageError, out_of_memory
from toast_cli.sentences import shortage

_T = TypeVar("_T")
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD in malloc.h


def halving(
    attempt: Callable[[int], _T], size: int, pixels: Sequence[int], say: Callable[[str], None]
) -> tuple[_T, int]:
    """What ``attempt(size)`` returns, and that ``size``: a number of images, halved whenever memory runs out.

    ``pixels`` are the height and width (H, W) of an image, for the error. Raises SingleImageError if not even one image fits.
    """
    while True:
        try:
            return attempt(size), size
        except Exception as e:
            if not out_of_memory(e):
                raise
            if "create a primitive" in str(e):
                torch.backends.mkldnn.set_flags(False)  # once short of memory, oneDNN refuses in this thread ever after
            if size == 1:
                raise SingleImageError(
                    f"Memory ran out with a single image of {' × '.join(map(str, pixels))} pixels{shortage(e)}: "
                    "use a smaller model or image size, or another device=."
                ) from e
        say(f"Memory ran out with {size} images at a time: continuing with {size // 2}.")
        size //= 2
        _release()  # only now: the exception's frames held the tensors of the failed attempt


def _release() -> None:
    """Give back what nothing refers to any more, to the device and to the system."""
    gc.collect()
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory for itself, and others such as oneDNN cannot have it
        libc.mallopt(_MMAP_THRESHOLD, 2**20)  # from now on, large tensors are not among what it keeps
        libc.malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_on(device: torch.device) -> int:
    """Bytes that are free in a GPU's memory; 0 for other devices, whose memory is everybody's."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


class Halving:
    """``function`` on batches (N, …, H, W), in pieces that are halved whenever memory runs out and never grow again.

    Raises SingleImageError if not even one image fits.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], say: Callable[[str], None]) -> None:
        self.function = function
        self.say = say
        self.limit: int | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        def attempt(size: int) -> Tensor:
            return torch.cat([self.function(piece) for piece in batch.split(size)])

        first = min(self.limit or len(batch), len(batch))
        result, size = halving(attempt, first, batch.shape[-2:], self.say)
        if size < first:
            self.limit = size
        return result


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
