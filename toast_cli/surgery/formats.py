"""The formats of an export: each writes a model, and reads it back with the runtime that will use it.

A format is a pair of functions, ``write(folder, model, dtype)``, with one of ``DTYPES`` but int8, and ``read(folder)``. The second returns a function
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

_FLOATS = ("fp32", "fp16", "bf16")
INT8 = "int8"  # quantised.py makes it of a file in fp32
DTYPES = (*_FLOATS, INT8)
ONNX, _TORCH_EXPORT = "model.onnx", "model.pt2"
Run: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(frozen=True)
class Format:
    """``file``: what it writes. ``dtypes``: what its runtime computes in. ``executes``: whether it can run code."""

    file: str
    dtypes: tuple[str, ...]
    write: "Callable[[Path, nn.Module, str], None]"
    read: Callable[[Path], Run]
    executes: bool = False


def torch_dtype(name: str) -> "torch.dtype":
    """What torch calls the dtype of this ``name``, which is not int8."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def _write_safetensors(folder: Path, model: "nn.Module", dtype: str) -> None:
    from toast_cli.surgery import saved

    saved.write_weights(folder, model, torch_dtype(dtype))


def read_plan(folder: Path, plan: str | None = None) -> Run:
    """The same for one ``plan`` of an export in safetensors. Raises ToastError as ``toast_cli.load`` does."""
    import torch

    from toast_cli.surgery import saved

    return _call(saved.load(folder, plan=plan), torch.float32)


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
    return model.to(torch_dtype(dtype)), torch.zeros(2, *size, dtype=torch_dtype(dtype))


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


def write_onnx(folder: Path, model: "nn.Module", dtype: str) -> None:
    """Write ``model``, which is changed to ``dtype``, to ``model.onnx``. Raises ToastError without the packages for it."""
    _need("onnx", "onnxscript", "onnxruntime")
    import torch

    model, images = _example(model, dtype)
    torch.onnx.export(
        model,
        (images,),
        folder / ONNX,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=_any_batch(),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    _without_traces(folder / ONNX)


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
    return run_onnx(intact(folder / ONNX, read_recipe(folder)))


def run_onnx(file: Path) -> Run:
    """What an ONNX file computes, by onnxruntime on the CPU. Raises ToastError for a file that it cannot use."""
    _need("onnxruntime")
    import numpy as np
    import onnxruntime
    import torch

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
    "safetensors": Format(WEIGHTS, _FLOATS, _write_safetensors, read_plan),
    "onnx": Format(ONNX, ("fp32", "fp16", INT8), write_onnx, _read_onnx),
    "torch_export": Format(_TORCH_EXPORT, _FLOATS, _write_torch_export, _read_torch_export, executes=True),
}


def check_pair(form: str, dtype: str, quantisation: str) -> None:
    """Raises ToastError for a dtype that the format's runtime does not compute in, and for a quantisation without int8."""
    runs_in = FORMATS[form].dtypes
    if dtype not in runs_in:
        others = [name for name, other in FORMATS.items() if dtype in other.dtypes]
        raise ToastError(
            f"format={form} has no runtime for dtype={dtype}: use {', '.join(runs_in)}, or format={' or '.join(others)}."
        )
    if quantisation != "dynamic" and dtype != INT8:
        raise ToastError(f"quantisation={quantisation} is a way to int8: give format=onnx dtype=int8 with it.")
