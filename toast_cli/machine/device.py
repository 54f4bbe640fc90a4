"""The device and the precision that a run computes in. What is wrong with the settings shows before torch is imported."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toast_cli.errors import ToastError
from toast_cli.machine.team import expected, local_rank

if TYPE_CHECKING:
    import torch

_PRECISIONS = ("auto", "fp32", "bf16")
_NARROW = 192  # below this width the casts cost more than the faster bf16 products save
_WORTH_ROUNDING = 1.3  # how much faster bf16 must be for `auto` to take it
_CPU_ELEMENTS = 2**21  # in one latent: small batches, which stay in the cache, are faster on a CPU
_GPU_ELEMENTS = 2**25


@dataclass(frozen=True)
class Compute:
    """A device and a precision, ``fp32`` or ``bf16``."""

    device: "torch.device"
    precision: str

    @classmethod
    def pick(cls, device: str, precision: str, width: int) -> "Compute":
        """The device and the precision for a model of ``width`` D, with ``auto`` resolved.

        Raises ToastError for a device that is not available or an unknown precision.
        """
        import torch

        require_precision(precision)
        chosen = pick_device(device)
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # or what names no GPU, NCCL among it, would go to the first
        torch.backends.cudnn.allow_tf32 = False  # otherwise the stem's convolution would use TF32 for fp32
        if precision == "auto":
            precision = "bf16" if width >= _NARROW and _faster_in_bf16(chosen, width) else "fp32"
        return cls(chosen, precision)

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def batch_size(self, wanted: str | int, tokens: int, width: int) -> int:
        """Images at a time: ``wanted``, or for ``auto`` the power of two whose latents have the right size for the device.

        Raises ToastError for anything other than ``auto`` or a whole number above 0.
        """
        if wanted == "auto":
            elements = _CPU_ELEMENTS if self.device.type == "cpu" else _GPU_ELEMENTS
            return 2 ** min(max((elements // (tokens * width)).bit_length() - 1, 0), 9)
        require_batch_size(wanted)
        return int(wanted)


def require_precision(given: object) -> None:
    """Raises ToastError for anything but the name of a precision, or ``auto``."""
    if given not in _PRECISIONS:
        raise ToastError(f"precision={given} is not a precision: use {', '.join(_PRECISIONS)}.")


def require_batch_size(given: object) -> None:
    """Raises ToastError for anything but ``auto`` or a whole number from 1."""
    if given != "auto" and (type(given) is not int or given < 1):
        raise ToastError(f"batch_size={given} is not a number of images: use auto or a whole number from 1.")


def pick_device(text: str) -> "torch.device":
    """The device that ``text`` names. With several processes on a machine, ``auto`` and ``cuda`` give each its own GPU.

    Raises ToastError for one that this machine does not have.
    """
    import torch

    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if text == "auto":
        return pick_device(next((name for name in ("cuda", "mps") if name in available), "cpu"))
    if text == "cuda" and text in available and expected() > 1:
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    if text not in available:
        raise ToastError(
            f"device={text} is not available: this machine has {', '.join(available)}; use one of these or auto."
        )
    return torch.device(text)


def _faster_in_bf16(device: "torch.device", width: int) -> bool:
    """Whether bf16 is faster: on CUDA from Ampere on; on CPUs with AMX or AVX512-BF16 if a product as in an MLP shows it.

    The instructions alone do not decide it: AVX512-BF16 without AMX was 2.7 times as fast as fp32 on one processor (AMD
    Zen 4) and 0.6 times on another (Intel, model 207).
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return False
    return matmul_seconds(width, torch.float32) > _WORTH_ROUNDING * matmul_seconds(width, torch.bfloat16)


def matmul_seconds(width: int, dtype: "torch.dtype", rows: int = 2048) -> float:
    """Seconds for (rows, D) x (D, 4D) on the CPU, the shortest of a few runs."""
    import torch

    x, weight = torch.ones(rows, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(x, weight)
        times.append(time.perf_counter() - begun)
    return min(times)
