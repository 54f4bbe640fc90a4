"""Memory: what its lack looks like, batches that are halved then, and peaks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toast_cli.errors import SingleImageError, ToastError, out_of_memory
from toast_cli.machine import memory
from toast_cli.machine.memory import Halving
from toast_cli.room import in_words
from toast_cli.sentences import sentence

SHORT = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10,), np.dtype("f4")),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("can't start new thread"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    OSError(12, "Cannot allocate memory"),
]  # fmt: skip
OTHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory lane"), OSError(2, "No such file"), KeyError("x"),
    SystemError("a bug"), SingleImageError("Memory ran out with a single image"), RuntimeError("could not create a primitive descriptor"),
]  # fmt: skip


@pytest.mark.parametrize("error", SHORT, ids=repr)
def test_what_its_lack_looks_like(error):
    assert out_of_memory(error)
    assert sentence(error).startswith("Memory ran out")


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_what_looks_like_something_else(error):
    assert not out_of_memory(error)


def test_a_library_that_blames_something_else():
    error = OSError(2, "No such file or directory", "weights.safetensors")
    error.__cause__ = MemoryError()
    assert out_of_memory(error)
    assert "weights" not in sentence(error)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (950, "950 B"),
        (9_949, "9.9 kB"),
        (147_456, "147 kB"),
        (1e6, "1.0 MB"),
        (999.6e6, "1.0 GB"),
        (3.2e13, "32 TB"),
    ],
)
def test_sizes_in_words(size, words):
    assert in_words(size) == words


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_counts_weights_and_activations():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4_000_000, bias=False), torch.nn.Flatten())  # 128 MB
    small, large = (memory.peak_memory(model, (n, 1, 1, 8), torch.device("cpu")) for n in (1, 8))
    assert small == pytest.approx(128 + 16, rel=0.2)
    assert large - small == pytest.approx(7 * 16, rel=0.2)


def test_memory_for_not_even_one_image_is_named():
    tried = []

    def never(batch):
        tried.append(len(batch))
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9000000 bytes.")

    with pytest.raises(ToastError) as raised:
        Halving(never, lambda _: None)(torch.zeros(5, 3, 32, 24))
    assert tried == [5, 2, 1]
    assert str(raised.value).startswith(
        "Memory ran out with a single image of 32 × 24 pixels (9.0 MB more were asked for"
    )
    assert "use a smaller model or image size, or another device=." in str(raised.value)


def test_a_batch_that_was_halved_stays_halved():
    sizes = []

    def few(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise MemoryError
        return batch + 1

    halving, batch = Halving(few, lambda _: None), torch.arange(12.0).reshape(12, 1, 1)
    assert torch.equal(halving(batch), batch + 1)
    sizes.clear()
    assert torch.equal(halving(batch), batch + 1)
    assert sizes == [3, 3, 3, 3]


def test_a_failed_attempt_is_freed_before_the_next():
    class Holder:
        alive = 0

        def __init__(self):
            Holder.alive += 1

        def __del__(self):
            Holder.alive -= 1

    def attempt(batch):
        assert Holder.alive == 0
        held = Holder()
        if len(batch) > 1:
            raise MemoryError
        del held
        return batch

    assert len(Halving(attempt, lambda _: None)(torch.zeros(8, 1, 1))) == 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS as Linux has it")
def test_a_run_under_a_limit_of_its_address_space(toast, tmp_path):
    """It ends well, or with one sentence about memory, as libraries need. Then it goes on without the limit."""
    words = ["run", "experiment=smoke/digits", "hydra.run.dir=here", "batch_size=512"]
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2); from toast_cli.cli import main; main(sys.argv[1:])"
    limited_words = [sys.executable, "-c", limited, "2500000000", *words]
    told = subprocess.run(limited_words, cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in told.stderr
    assert told.returncode in (0, 1), told.stderr
    assert told.returncode == 0 or told.stderr.splitlines()[-1].startswith("toast: Memory ran out")
    status, _, err = toast(*words)
    assert status == 0, err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_memory_of_a_gpu_that_runs_out():
    device = torch.device("cuda")

    def large(batch):
        torch.empty(len(batch) * 2**30, dtype=torch.uint8, device=device)
        return batch * 2

    said = []
    torch.cuda.set_per_process_memory_fraction(3.5 * 2**30 / torch.cuda.get_device_properties(device).total_memory)
    try:
        batch = torch.arange(8.0, device=device).reshape(8, 1, 1)
        assert torch.equal(Halving(large, said.append)(batch), batch * 2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert said == [f"Memory ran out with {n} images at a time: continuing with {n // 2}." for n in (8, 4)]
