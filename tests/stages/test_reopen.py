"""features_from: a run that starts from the features of another."""

import pytest

from tests.conftest import SMALL
from toast_cli.stages import walk as encode


@pytest.fixture
def kept(toast):
    assert toast("run", *SMALL, "keep_features=true", "hydra.run.dir=kept")[0] == 0


def test_another_probe_encodes_nothing(kept, toast, tmp_path, monkeypatch):
    assert toast("run", *SMALL, "probe=knn", "seeds=[3]", "hydra.run.dir=plain")[0] == 0
    monkeypatch.setattr(encode.Encoder, "__call__", lambda *_: pytest.fail("nothing is to be encoded"))
    status, _, err = toast("run", *SMALL, "probe=knn", "seeds=[3]", "features_from=kept", "hydra.run.dir=here")
    assert status == 0, err
    assert (tmp_path / "here" / "results.csv").read_text() == (tmp_path / "plain" / "results.csv").read_text()
    assert not list((tmp_path / "here" / "features").iterdir())
    assert len(list((tmp_path / "kept" / "features").iterdir())) == 4, "the other run's stay"


def test_only_probe_and_seeds_may_differ(kept, toast):
    status, _, err = toast("run", *SMALL, "data.seed=1", "features_from=kept", "hydra.run.dir=here")
    assert status == 1
    assert (
        err.strip()
        == "toast: features_from=kept differs in data.seed: give a complete run that differs only in probe and seeds."
    )


def test_a_folder_without_features_is_named(toast):
    status, _, err = toast("run", *SMALL, "features_from=nowhere", "hydra.run.dir=here")
    assert status == 1
    assert (
        "features_from=nowhere holds no features: give the folder of a run that was made with keep_features=true."
        in err
    )
