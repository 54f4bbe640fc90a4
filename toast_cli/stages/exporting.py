"""What an export is to be: its settings, checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toast_cli.errors import ToastError, did_you_mean, require_flag, require_whole
from toast_cli.hub.repository import require_name

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Settings:
    """The settings in ``conf/export.yaml`` that say what is written, and what of it goes to the hub.

    ``plan`` is a list of plans, or ``front``, for an export that holds several. ``push`` is the name of a repository on the
    hub, or None; ``private``: one that has to be made is private; ``dry``: nothing is uploaded.
    """

    plan: str | tuple[str, ...] | None
    format: str
    dtype: str
    quantisation: str
    head: str
    seed: int
    images: int
    fresh: bool
    push: str | None
    private: bool
    dry: bool

    @property
    def several(self) -> bool:
        """Whether the export holds several plans."""
        from toast_cli.stages.choice import ALL_FOUND

        return isinstance(self.plan, tuple) or self.plan == ALL_FOUND

    @property
    def has_head(self) -> bool:
        """Whether it classifies images; else it gives features."""
        return self.head == "probe"

    @classmethod
    def check(cls, cfg: "DictConfig") -> "Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        from toast_cli.stages.choice import given_plans
        from toast_cli.surgery.formats import DTYPES, FORMATS, check_pair
        from toast_cli.surgery.quantised import WAYS

        allowed_values = {"format": tuple(FORMATS), "dtype": DTYPES, "quantisation": WAYS, "head": ("probe", "none")}
        given = {key: str(cfg[key]).lower() for key in allowed_values}
        for key, allowed in allowed_values.items():
            if given[key] not in allowed:
                raise ToastError(
                    f"{key}={cfg[key]} is not known{did_you_mean(given[key], allowed)}: use {', '.join(allowed)}."
                )
        check_pair(given["format"], given["dtype"], given["quantisation"])
        for key, least in (("seed", 0), ("images", 1)):
            require_whole(cfg[key], key, least)
        fresh, private, dry = (require_flag(cfg[key], key) for key in ("fresh", "private", "dry"))
        words = (given["format"], given["dtype"], given["quantisation"], given["head"])
        settings = cls(given_plans(cfg.plan), *words, cfg.seed, cfg.images, fresh, cfg.push, private, dry)
        if settings.several and settings.format != "safetensors":
            raise ToastError(
                f"format={settings.format} holds one plan: give several with format=safetensors, or one, such as plan=9-11."
            )
        settings._check_push()
        return settings

    def _check_push(self) -> None:
        """Check where files are to go, before there are any. Raises ToastError for what could not be pushed."""
        from toast_cli.surgery.formats import FORMATS

        if self.push is None:
            if self.dry:
                raise ToastError("dry=true shows what push= would upload: give push=<user>/<name> with it.")
            return
        require_name(self.push)
        if FORMATS[self.format].executes:
            raise ToastError(
                f"format={self.format} is not pushed, since its file names folders of this machine and can execute code where it is loaded: use "
                "safetensors or onnx."
            )
        if not self.dry:
            from toast_cli.hub.pushing import require_ready

            require_ready(self.push)
