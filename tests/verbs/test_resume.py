"""A run that was interrupted goes on to the same rows, and does nothing twice."""

import pytest

from tests.conftest import SMALL
from toast_cli.probes import batched as probes
from toast_cli.runs import features
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages import walk as encode


def reference(toast, tmp_path, *settings: str) -> bytes:
    """The rows of a run that nothing interrupted."""
    assert toast("run", *SMALL, *settings, "hydra.run.dir=reference")[0] == 0
    return (tmp_path / "reference" / "results.csv").read_bytes()


OTHER_CALLS = [pytest.param(call, marks=pytest.mark.slow) for call in (1, 2, 4, 5, 6)]


@pytest.mark.parametrize("call", [3, *OTHER_CALLS])
def test_killed_at_any_batch_it_ends_with_the_same_rows(toast, tmp_path, monkeypatch, call: int):
    expected = reference(toast, tmp_path, "batch_size=32")
    write, calls = features.FeatureFile.write, iter(range(1, 99))

    def killed(self, first, values):
        if next(calls) == call:
            write(self, first, values[:5])  # a write that got no further
            raise KeyboardInterrupt
        write(self, first, values)

    monkeypatch.setattr(features.FeatureFile, "write", killed)
    status, _, err = toast("run", *SMALL, "batch_size=32", "hydra.run.dir=here")
    assert status == (130 if call < 6 else 0)
    interrupted = "toast: Interrupted: what is finished is kept, and the same command goes on from there."
    assert (interrupted in err) == (call < 6)
    encoded: list[int] = []
    monkeypatch.setattr(features.FeatureFile, "write", write)
    walk = encode.Encoder.__call__
    monkeypatch.setattr(encode.Encoder, "__call__", lambda self, x: encoded.append(len(x)) or walk(self, x))
    assert toast("run", *SMALL, "batch_size=32", "hydra.run.dir=here")[0] == 0
    assert (tmp_path / "here" / "results.csv").read_bytes() == expected
    assert sum(encoded) == max(0, 96 + 48 - 32 * (call - 1)), "finished batches are not done again"


@pytest.mark.slow
def test_stopped_between_seeds_it_ends_with_the_same_rows(toast, tmp_path, monkeypatch):
    expected = reference(toast, tmp_path, "seeds=[0,1]")
    fit = probes.LinearProbe.fit
    monkeypatch.setattr(probes.LinearProbe, "fit", lambda self, *a: fit(self, *a) if a[3] == 0 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")
    assert len(read_csv(tmp_path / "here" / "results.csv", Row)) == 4
    seeds: list[int] = []
    monkeypatch.setattr(probes.LinearProbe, "fit", lambda self, *a: seeds.append(a[3]) or fit(self, *a))
    assert toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")[0] == 0
    assert seeds == [1]
    assert (tmp_path / "here" / "results.csv").read_bytes() == expected
