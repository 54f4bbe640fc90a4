"""probes=[…]: several probes on features that are encoded once, each run as it is alone."""

import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.conftest import SMALL
from toast_cli.probes import LogisticProbe
from toast_cli.registry import CONF
from toast_cli.runs.naming import folder_name, register_resolvers
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages import walk
from toast_cli.stages.beside import further

FEW = [*SMALL, "spans=[9-11]"]
PLACES = ("here", "here-knn", "here-logistic")


def test_each_is_as_it_is_alone_and_nothing_is_encoded_twice(toast, tmp_path, monkeypatch: pytest.MonkeyPatch):
    assert toast("run", *FEW, "probe=knn", "hydra.run.dir=alone")[0] == 0
    encoded, real = [], walk.Encoder.__call__

    def counted(self: walk.Encoder, images: torch.Tensor) -> torch.Tensor:
        encoded.append(len(images))
        return real(self, images)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(walk.Encoder, "__call__", counted)
    command = ["run", *FEW, "probes=[knn,logistic]", "probe.epochs=2", "hydra.run.dir=here"]
    with monkeypatch.context() as killed:
        killed.setattr(LogisticProbe, "fit", interrupt)
        assert toast(*command)[0] == 130
    assert sum(encoded) == 96 + 48
    status, out, err = toast(*command)
    assert status == 0, err
    assert sum(encoded) == 96 + 48, "the features of the first serve all, after an interruption too"
    tables = {place: read_csv(tmp_path / place / "results.csv", Row) for place in PLACES}
    assert [{row.probe for row in rows} for rows in tables.values()] == [{"linear"}, {"knn"}, {"logistic"}]
    assert tables["here-knn"] == read_csv(tmp_path / "alone" / "results.csv", Row)
    assert not any(list((tmp_path / place / "features").iterdir()) for place in PLACES)
    for plan in ("none", "9-11"):
        line = re.search(rf"^{plan} .*$", out, re.MULTILINE)[0]
        own = [next(row for row in tables[place] if row.plan == plan) for place in PLACES]
        assert line.split()[1:] == [
            text for row in own for text in (f"{row.accuracy:.4f}", f"({row.accuracy_delta:+.4f})")
        ]
    assert out.splitlines()[-1] == str(tmp_path / "here" / "results.csv")
    assert f"knn: {tmp_path / 'here-knn'}\n" in out
    monkeypatch.setattr("toast_cli.verbs.run.run", lambda *_: pytest.fail("all are complete"))
    assert toast(*command)[:2] == (0, out)


def settings(*words: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*FEW, *words])


def test_folders_are_those_of_the_probes_alone(tmp_path):
    cfg, knn = settings("probes=[linear,knn,knn]"), folder_name(settings("probe=knn"))
    assert folder_name(cfg) == folder_name(settings())
    found = [place for _, place in further(cfg, tmp_path / folder_name(cfg), [])]
    assert found == [tmp_path / knn], "its own probe and a second knn are not repeated"
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "near.yaml").write_text("_target_: toast_cli.probes.KnnProbe\nneighbours: 3\n")
    ((own, place),) = further(settings("probes=[near]"), tmp_path / "here", [tmp_path])
    assert (own.probe.neighbours, place) == (3, tmp_path / "here-near")


def test_features_that_were_asked_for_stay(toast, tmp_path):
    assert toast("run", *FEW, "keep_features=true", "hydra.run.dir=here")[0] == 0
    assert toast("run", *FEW, "probes=[knn]", "hydra.run.dir=here")[0] == 0
    kept = {place: len(list((tmp_path / place / "features").iterdir())) for place in PLACES[:2]}
    assert kept == {"here": 4, "here-knn": 0}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("probes=[svm]", "probes=[svm]: svm is not a probe: use knn, linear, logistic, mlp, pretrained_head"),
        ("probes=knn", "probes=knn is not a list of probes: write probes=[knn]."),
        ("probes=[knn] sweep=race", "probes is for a full sweep in one process: leave it out with sweep=race"),
    ],
)
def test_what_cannot_be_used_is_said(words: str, told: str, toast, tmp_path):
    status, out, err = toast("run", *FEW, *words.split())
    assert (status, out) == (1, "")
    assert err.startswith(f"toast: {told}")
    assert not list(tmp_path.rglob("run.json"))
