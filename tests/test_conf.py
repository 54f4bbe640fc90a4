"""Every option and every experiment under conf/ composes."""

import re

import hydra
import pytest
import timm
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.conftest import OPTIONS
from toast_cli import plans, probes, translators
from toast_cli.data import dataset as data
from toast_cli.models import factory as models
from toast_cli.registry import CONF
from toast_cli.runs import expected as reported
from toast_cli.runs.naming import folder_name, register_resolvers, scientific, today


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith(("hydra/", "experiment/"))])
def test_every_option_composes(option: str):
    group, name = re.match(r"(\w+)/(.+)", option).groups()
    extra = {"model/timm": ["model.name=vit_tiny_patch16_224"], "data/folder": ["data.path=photos"]}.get(option, [])
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = scientific(compose("config", [f"{group}={name}", *extra]))
    targets = {
        "model": models.load,
        "data": data.load,
        "translator": translators.BaseTranslator,
        "probe": probes.Probe,
    }
    for key, expected in targets.items():
        target = hydra.utils.get_object(today(settings[key]["_target_"]))
        assert target is expected or issubclass(target, expected)
    if group in ("model", "data") and name not in ("timm", "folder"):
        assert settings[group]["label"] == name
    if group == "model" and name not in ("timm", "digits_vit"):
        assert settings["model"]["name"] in timm.list_pretrained("*vit*") + timm.list_pretrained("deit*")
    if group == "protocol":
        assert settings["protocol"] == name
    assert re.match("(# @package _global_\n)?# ", (CONF / f"{option}.yaml").read_text()), (
        "the first line says what it is"
    )


@pytest.mark.slow
@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith("experiment/")])
def test_every_experiment_composes_by_its_own_command(option: str):
    text = (CONF / f"{option}.yaml").read_text()
    verb, name = re.search(r"^#   toast (\w+) experiment=(\S+)", text, re.MULTILINE).groups()
    assert f"experiment/{name}" == option, "the command in its head is its own"
    assert "Take" in text or "Time:" in text
    register_resolvers()
    primary = {"run": "config"}.get(verb, verb)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(primary, [f"experiment={name}"], return_hydra_config=True)
        for key, values in (cfg.hydra.sweeper.params or {}).items():
            for value in str(values).split(","):
                settings = scientific(compose(primary, [f"experiment={name}", f"{key}={value}"]))
                assert plans.parse_plans(settings["spans"], 12)
        stated = OmegaConf.load(CONF / f"{option}.yaml")
        stated.pop("defaults", None)
        for key, value in _leaves(OmegaConf.to_container(stated)):
            assert key == "hydra.mode" or OmegaConf.select(cfg, key) == value, "the experiment has the last word"
    assert name.partition("/")[2] in str(cfg.hydra.run.dir) + str(cfg.hydra.sweep.dir) or name == "smoke/digits"


CROSSCHECKS = [option for option in OPTIONS if "crosscheck" in option]


@pytest.mark.parametrize("option", CROSSCHECKS)
def test_what_others_report_is_for_plans_that_are_measured(option: str):
    name = option.removeprefix("experiment/")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"experiment={name}"])
    figures = reported.check(cfg.expected)
    depth = 24 if cfg.model.label == "vit_l" else 12
    assert set(figures) == {str(plan) for plan in plans.parse_plans(OmegaConf.to_object(cfg.spans), depth)}
    assert (cfg.translator["_target_"], cfg.probe["_target_"]) == (
        "toast_cli.translators.Linear", "toast_cli.probes.LinearProbe",
    )  # fmt: skip
    assert cfg.seeds == [0, 1, 2]
    named = folder_name(cfg)
    cfg.expected = None
    assert folder_name(cfg) == named
    assert "expected" not in scientific(cfg)


def test_every_figure_has_an_experiment():
    assert {option.rpartition("crosscheck_")[2] for option in CROSSCHECKS} == {
        "deit_s", "deit_b", "vit_l", "vit_l_cifar100", "dinov2_b_cifar100", "deit_s_cifar100",
    }  # fmt: skip


def _leaves(tree: object, key: str = "") -> list[tuple[str, object]]:
    if not isinstance(tree, dict) or key == "hydra.sweeper.params":
        return [] if "${" in str(tree) or key == "hydra.sweeper.params" else [(key, tree)]
    return [leaf for name, inside in tree.items() for leaf in _leaves(inside, f"{key}.{name}" if key else str(name))]
