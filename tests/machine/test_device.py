import pytest
import torch

from toast_cli.machine import device as compute
from toast_cli.machine.device import Compute


@pytest.mark.parametrize(("bf16_seconds", "expected"), [(1.0, "bf16"), (2.0, "fp32"), (3.0, "fp32")])
def test_auto_takes_bf16_where_it_is_measured_to_be_faster(
    bf16_seconds: float, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(
        compute, "matmul_seconds", lambda width, dtype: bf16_seconds if dtype == torch.bfloat16 else 2.0
    )
    assert Compute.pick("cpu", "auto", 384).precision == expected
    assert Compute.pick("cpu", "auto", 64).precision == "fp32", "too narrow to pay"


def test_without_the_instructions_nothing_is_measured(monkeypatch: pytest.MonkeyPatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr(compute, "matmul_seconds", lambda *_: 1 / 0)
    assert Compute.pick("cpu", "auto", 384).precision == "fp32"


@pytest.mark.parametrize(
    ("rank", "device", "chosen"), [(0, "auto", 0), (1, "cuda", 1), (3, "auto", 1), (3, "cuda:0", 0)]
)
def test_each_process_computes_on_a_gpu_of_its_own(
    rank: int, device: str, chosen: int, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 4)):
        monkeypatch.setenv(name, str(value))
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert Compute.pick(device, "fp32", 64).device == torch.device("cuda", chosen)
    assert current == [torch.device("cuda", chosen)], "what names no GPU goes there too"
