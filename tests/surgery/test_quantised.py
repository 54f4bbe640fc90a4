"""int8 by onnxruntime: what is quantised, with which scales, and what is left alone."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from toast_cli.surgery.formats import run_onnx  # noqa: E402
from toast_cli.surgery.quantised import quantise  # noqa: E402

RNG = np.random.default_rng(0)
WEIGHT = (RNG.standard_normal((12, 8)) * np.geomspace(0.01, 10, 8)).astype(np.float32)  # each output has its own size
BATCHES = [torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """images -> Flatten -> MatMul with WEIGHT -> Softmax(A Aᵀ) A, a product of activations."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["a"], name="product"),
        helper.make_node("Transpose", ["a"], ["a_t"]),
        helper.make_node("MatMul", ["a", "a_t"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["chances"]),
        helper.make_node("MatMul", ["chances", "a"], ["outputs"], name="mixed"),
    ]
    takes = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 2, 2])
    gives = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph(nodes, "g", [takes], [gives], [numpy_helper.from_array(WEIGHT, "weight")])
    file = tmp_path / "fp32.onnx"
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)]), file)
    return file


def numbers(file: Path) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}


def test_static_scales_are_those_of_the_calibration_images(source: Path, tmp_path: Path):
    quantise(source, tmp_path / "int8.onnx", BATCHES)
    found = numbers(tmp_path / "int8.onnx")
    seen = torch.cat(BATCHES).numpy()
    low, high = min(seen.min(), 0), max(seen.max(), 0)
    scale, zero = next(
        (v, found[n.replace("scale", "zero_point")]) for n, v in found.items() if n.endswith("_scale") and v.ndim == 0
    )
    assert scale == pytest.approx((high - low) / 255, rel=1e-5)
    assert zero.dtype == np.uint8
    assert int(zero) == round(-low / scale)
    whole = next(value for value in found.values() if value.dtype == np.int8 and value.ndim == 2)
    channel = next(value for name, value in found.items() if name.endswith("_scale") and value.ndim == 1)
    assert channel == pytest.approx(np.abs(WEIGHT).max(0) / 127, rel=1e-5), "one for each output"
    assert (np.abs(whole * channel - WEIGHT) <= 0.51 * channel).all()


@pytest.mark.parametrize("batches", [None, BATCHES])
def test_only_products_with_weights_are_in_int8(source: Path, tmp_path: Path, batches):
    before = logging.getLogger().handlers[:], logging.root.manager.disable
    quantise(source, tmp_path / "int8.onnx", batches)
    assert (logging.getLogger().handlers, logging.root.manager.disable) == before
    graph = onnx.load(tmp_path / "int8.onnx").graph
    assert sum(value.dtype == np.int8 and value.ndim == 2 for value in numbers(tmp_path / "int8.onnx").values()) == 1
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in ("scores", "mixed"):
            assert not {made[name].op_type for name in node.input} & {"DequantizeLinear", "QuantizeLinear"}
    images = BATCHES[0]
    fp32, int8 = run_onnx(source)(images), run_onnx(tmp_path / "int8.onnx")(images)
    rows = images.flatten(1).numpy() @ WEIGHT
    scores = np.exp(rows @ rows.T - (rows @ rows.T).max(1, keepdims=True))
    assert fp32.numpy() == pytest.approx(scores / scores.sum(1, keepdims=True) @ rows, rel=1e-3, abs=1e-3)
    assert 0 < (int8 - fp32).abs().max() < 0.05 * fp32.abs().max()
    assert {path.name for path in tmp_path.iterdir()} == {"fp32.onnx", "int8.onnx"}
