"""A GPU without a GPU: tensors on ``cuda`` that have a shape and no values, and a watch on what would make a program wait for it.

torch's FakeTensorMode raises by itself where a result depends on values. Copies to the CPU it lets pass, so these are refused
here, with copies to the GPU that are not ``non_blocking``: torch waits for both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_M = TypeVar("_M", bound=nn.Module)
CUDA = torch.device("cuda")


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls.append(str(func))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            into, source = (
                (args[0].device, args[1]) if "copy_" in str(func).split(".") else (kwargs.get("device"), args[0])
            )
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            moved = {source.device.type, torch.device(into or source.device).type} == {"cuda", "cpu"}
            if moved and source.device.type == "cuda":
                raise AssertionError("a copy from the GPU, for which the program waits")
            if moved and waits:
                raise AssertionError("a copy to the GPU, for which the program waits")
        return func(*args, **kwargs)


@contextmanager
def fake_gpu() -> Iterator[list[str]]:
    """Inside, ``cuda`` is a device. Gives the names of all operations so far."""
    with FakeTensorMode(allow_non_fake_inputs=True), _Watch() as watch:
        yield watch.calls


def on_gpu(module: _M) -> _M:
    """``module`` with all of its tensors on the fake GPU."""
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, value in own.items():
                if value is not None:
                    there = of(value.shape, value.dtype)
                    own[name] = nn.Parameter(there, requires_grad=False) if own is part._parameters else there
    return module


def of(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of ``shape`` on the fake GPU."""
    return torch.empty(tuple(shape), dtype=dtype, device=CUDA)
