"""Where a model's weights come from, and under which licence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import get_pretrained_cfg

from toast_cli.hub.repository import is_name

_OWN = "pkg://toast_cli/"


@dataclass(frozen=True)
class Origin:
    """``told`` says it in words. ``repository``: its name on the hub, if it has one; ``licence``: as timm states it, if it does."""

    told: str
    repository: str | None = None
    licence: str | None = None


def origin_of(settings: Mapping[str, Any]) -> Origin:
    """The origin of the weights of a model with these ``settings``, the group ``model`` of a run's config."""
    name, checkpoint = str(settings.get("name", "")), settings.get("checkpoint")
    if checkpoint is not None:
        if str(checkpoint).startswith(_OWN):
            return Origin("the small model that toast carries", licence="mit")
        return Origin("a file of weights whose origin toast does not know")
    if settings.get("pretrained") is False:
        return Origin("random weights")
    kind, colon, place = name.partition(":")
    if colon:
        repository = place.partition("@")[0]
        if kind != "local-dir" and is_name(repository):
            return Origin(f"the repository {repository}", repository)
        return Origin("a folder of weights whose origin toast does not know")
    config = get_pretrained_cfg(name)
    found = str(config.hf_hub_id or "").partition("@")[0] if config is not None else ""
    licence = config.license if config is not None else None
    return Origin(f"timm's {name}", found if is_name(found) else None, licence)
