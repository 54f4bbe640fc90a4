"""A setting that a later version added leaves the folders of earlier runs their names."""

import pytest
from omegaconf import OmegaConf

from toast_cli.data.decoding import MAX_PIXELS
from toast_cli.registry import CONF
from toast_cli.runs.naming import folder_name, scientific

SETTINGS = {
    "model": {"label": "a"},
    "data": {"label": "b", "path": None},
    "fit_data": {"path": None},
    "translator": {"_target_": "toast_cli.translators.Linear"},
}


def named(**groups: dict) -> str:
    return folder_name(
        OmegaConf.create(groups | {name: each | groups.get(name, {}) for name, each in SETTINGS.items()})
    )


def test_so_does_the_evaluation_that_runs_had():
    assert named(eval="classification") == named()
    assert named(eval="segmentation") != named()


@pytest.mark.parametrize("group", ["data", "fit_data"])
def test_only_another_value_makes_another_run(group: str):
    assert named(**{group: {"max_pixels": MAX_PIXELS}}) == named()
    others = [
        named(**{group: {"max_pixels": value}})
        for value in (MAX_PIXELS - 1, None, str(MAX_PIXELS), float(MAX_PIXELS), True)
    ]
    assert len({named(), *others}) == 6


def test_so_do_the_baselines_of_a_search():
    before, usual = {"beam": 12}, ["last", "influence"]
    assert named(search={"beam": 12, "baselines": usual}) == named(search=before)
    others = [named(search={"beam": 12, "baselines": value}) for value in ([], usual[::-1], [*usual, "random"], None)]
    assert len({named(search=before), *others}) == 5


def test_so_do_the_refits_of_a_search():
    assert named(search={"beam": 12, "refits": None}) == named(search={"beam": 12})
    assert len({named(search={"beam": 12, "refits": value}) for value in (None, 0, 4)}) == 3


def test_so_does_a_search_over_whole_blocks():
    assert named(search={"beam": 12, "halves": False}) == named(search={"beam": 12})
    assert len({named(search={"beam": 12, "halves": value}) for value in (False, True, "false", None, 0)}) == 5


def test_so_does_the_penalty_that_searches_had():
    assert named(search={"beam": 12, "penalty": 1}) == named(search={"beam": 12})
    assert len({named(search={"beam": 12, "penalty": value}) for value in (None, 1, 0.3)}) == 3


def test_the_score_of_maps_on_held_out_images():
    with_fit = {**SETTINGS, "fit": {"sequential": False}}
    names = [
        folder_name(OmegaConf.create({**with_fit, "fit": {"sequential": False, **added}}))
        for added in ({}, {"held_out_r2": True}, {"held_out_r2": False}, {"held_out_r2": "true"})
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_so_does_a_full_sweep():
    assert named(sweep={}) == named()
    race = {"test_images": 512, "confidence": 0.95, "keep": 0.5}
    assert len({named(), named(sweep=race), named(sweep={**race, "keep": 1}), named(sweep="race")}) == 4


def test_what_it_was_before_is_the_default():
    assert OmegaConf.load(CONF / "base.yaml").fit.held_out_r2 is True
    assert OmegaConf.load(CONF / "base.yaml").data.max_pixels == MAX_PIXELS
    assert OmegaConf.load(CONF / "search.yaml").search.baselines == ["last", "influence"]


def test_it_is_not_stored_either():
    cfg = OmegaConf.create({**SETTINGS, "data": {"label": "b", "path": None, "max_pixels": MAX_PIXELS}})
    assert scientific(cfg) == SETTINGS
    cfg.data.max_pixels = 5
    assert scientific(cfg)["data"]["max_pixels"] == 5
