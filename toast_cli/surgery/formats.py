"""The formats of an export: each writes a model, and reads it back with the runtime that will use it.

A format is a pair of functions, ``write(folder, model, dtype)``, with one of ``DTYPES``, and ``read(folder)``. The second returns a function
from normalised float32 images (N, 3, H, W) to float32 outputs, (N, C) or (N, F); it raises ToastError if the model file
is not the one that the folder's recipe was written for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from toast_cli.errors import ToastError
from toast_cli.surgery.recipe import WEIGHTS, intact, read_recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DTYPES = ("fp32", "fp16", "bf16")
_ONNX, _TORCH_EXPORT = "model.onnx", "model.pt2"
Run: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(frozen=True)
class Format:
    """``file``: what it writes. ``dtypes``: what its runtime computes in. ``executes``: whether it can run code."""

    file: str
    dtypes: tuple[str, ...]
    write: "Callable[[Path, nn.Module, str], None]"
    read: Callable[[Path], Run]
    executes: bool = False


def _dtype(name: str) -> "torch.dtype":
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def _write_safetensors(folder: Path, model: "nn.Module", dtype: str) -> None:
    from toast_cli.surgery import saved

    saved.write_weights(folder, model, _dtype(dtype))


def _read_safetensors(folder: Path) -> Run:
    import torch

    from toast_cli.surgery import saved

    return _call(saved.load(folder), torch.float32)


def _call(model: "nn.Module", dtype: "torch.dtype") -> Run:
    import torch

    @torch.inference_mode()
    def run(images: "Tensor") -> "Tensor":
        """(N, 3, H, W) -> (N, C) or (N, F)."""
        return model(images.to(dtype)).float()

    return run


def _example(model: "nn.Module", dtype: str) -> "tuple[nn.Module, Tensor]":
    """The model in ``dtype`` and two images: with one, exporters take the batch size for a constant."""
    import torch

    size = model.pretrained_cfg["input_size"]  # type: ignore[index]
    return model.to(_dtype(dtype)), torch.zeros(2, *size, dtype=_dtype(dtype))


def _any_batch() -> "tuple[dict[int, torch.export.Dim], ...]":
    """Any batch size up to a limit: older versions of torch confuse an unlimited batch with the largest integer."""
    import torch

    return ({0: torch.export.Dim("batch", min=1, max=2**20)},)


def _write_torch_export(folder: Path, model: "nn.Module", dtype: str) -> None:
    import torch

    model, images = _example(model, dtype)
    program = torch.export.export(model, (images,), dynamic_shapes=_any_batch())
    torch.export.save(program, folder / _TORCH_EXPORT)


def _read_torch_export(folder: Path) -> Run:
    import torch

    program = torch.export.load(intact(folder / _TORCH_EXPORT, read_recipe(folder)))
    dtype = next(iter(program.state_dict.values())).dtype
    return _call(program.module(), dtype)


def _write_onnx(folder: Path, model: "nn.Module", dtype: str) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    import torch

    model, images = _example(model, dtype)
    torch.onnx.export(
        model,
        (images,),
        folder / _ONNX,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=_any_batch(),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    _without_traces(folder / _ONNX)


def _without_traces(file: Path) -> None:
    """Take out of an ONNX file where in torch's and timm's code each node comes from: that names folders of this machine."""
    import onnx

    program = onnx.load(file)
    for graph in (program.graph, *program.functions):
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    onnx.save(program, file)


def _read_onnx(folder: Path) -> Run:
    _need("onnxruntime")
    import numpy as np
    import onnxruntime
    import torch

    file = intact(folder / _ONNX, read_recipe(folder))
    with _told(file):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: it warns of every constant that it does not compute beforehand
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        half = session.get_inputs()[0].type == "tensor(float16)"

    def run(images: "Tensor") -> "Tensor":
        """(N, 3, H, W) -> (N, C) or (N, F)."""
        values = images.numpy().astype(np.float16 if half else np.float32)
        with _told(file):
            return torch.from_numpy(np.asarray(session.run(None, {"images": values})[0])).float()

    return run


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Turn whatever onnxruntime raises for a file that is not such a model into a ToastError; its own types share no base."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as e:
        reason = " ".join(str(e).split())[:200]
        raise ToastError(f"{file} cannot be used by onnxruntime ({reason}): export the model again.") from e


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ToastError(f"format=onnx needs {', '.join(missing)}: pip install 'toast-cli[onnx]'.")


FORMATS = {
    "safetensors": Format(WEIGHTS, DTYPES, _write_safetensors, _read_safetensors),
    "onnx": Format(_ONNX, ("fp32", "fp16"), _write_onnx, _read_onnx),
    "torch_export": Format(_TORCH_EXPORT, DTYPES, _write_torch_export, _read_torch_export, executes=True),
}
