"""Peak memory, and batches that are halved where memory runs out."""

from pathlib import Path

import pytest
import torch

from toast_cli.errors import ToastError
from toast_cli.machine import memory
from toast_cli.machine.memory import Halving


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_counts_weights_and_activations():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4_000_000, bias=False), torch.nn.Flatten())  # 128 MB
    small, large = (memory.peak_memory(model, (n, 1, 1, 8), torch.device("cpu")) for n in (1, 8))
    assert small == pytest.approx(128 + 16, rel=0.2)
    assert large - small == pytest.approx(7 * 16, rel=0.2)


def test_memory_for_not_even_one_image_is_named():
    def never(batch):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    with pytest.raises(ToastError, match="Memory ran out with a single image: use a smaller model"):
        Halving(never, lambda _: None)(torch.zeros(4, 2))
