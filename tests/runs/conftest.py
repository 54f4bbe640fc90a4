"""The settings of a toast run."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from toast_cli.registry import CONF
from toast_cli.runs.naming import register_resolvers


def config(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))
