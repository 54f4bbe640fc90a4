"""An ONNX file in int8, made of one in fp32 by onnxruntime's own quantisation.

As onnxruntime advises for transformers, the products with weights (MatMul, Gemm) are taken in int8, with a scale for each channel of a
weight. The patch projection, attention's two products of activations, norms, softmax and activation functions stay in fp32.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WAYS = ("dynamic", "static")
_PRODUCTS = ["MatMul", "Gemm"]


def quantise(source: Path, target: Path, calibration: "Iterable[Tensor] | None" = None) -> None:
    """Write the model of ``source``, an ONNX file in fp32 with the input ``images``, to ``target``, in int8.

    With ``calibration``, batches of normalised images (N, 3, H, W), the ranges of activations are the lowest and the highest
    values there (static). Without, each product finds the range of its input while it runs (dynamic).
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    how: dict[str, Any] = {"op_types_to_quantize": _PRODUCTS, "per_channel": True, "weight_type": QuantType.QInt8}
    with _quiet(), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        # ONNX's own shape inference is enough behind onnxruntime's optimiser: the symbolic one gives the same file, and takes far longer.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        how["nodes_to_exclude"] = _of_activations(prepared)
        if calibration is None:
            quantize_dynamic(prepared, target, **how)
        else:
            # Products stay in fp32 until their bias is added: to round them in between would cost accuracy and save nothing.
            options = {"OpTypesToExcludeOutputQuantization": _PRODUCTS}
            quantize_static(
                prepared,
                target,
                _Reader(calibration),
                **how,
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                extra_options=options,
            )


def _of_activations(file: Path) -> list[str]:
    """The names of the products of two activations: onnxruntime's own switch for them does nothing where it calibrates."""
    import onnx

    graph = onnx.load(file).graph
    weights = {each.name for each in graph.initializer}
    return [node.name for node in graph.node if node.op_type in _PRODUCTS and node.input[1] not in weights]


class _Reader:
    """Batches of images (N, 3, H, W), as onnxruntime asks for them."""

    def __init__(self, batches: "Iterable[Tensor]") -> None:
        self._batches = iter(batches)

    def get_next(self) -> "dict[str, np.ndarray] | None":
        """The next inputs; None behind the last."""
        images = next(self._batches, None)
        return None if images is None else {"images": images.numpy()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Let onnxruntime's advice on other settings out: it logs it at the root, which would also set up a handler there for good."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
