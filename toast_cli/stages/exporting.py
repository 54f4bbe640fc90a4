"""What an export is to be: its settings, checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toast_cli.errors import ToastError, did_you_mean, require_flag
from toast_cli.hub.repository import require_name

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Settings:
    """The settings in ``conf/export.yaml`` that say what is written, and what of it goes to the hub.

    ``push`` is the name of a repository on the hub, or None; ``private``: one that has to be made is private; ``dry``: nothing
    is uploaded.
    """

    plan: str | None
    format: str
    dtype: str
    head: str
    seed: int
    images: int
    fresh: bool
    push: str | None
    private: bool
    dry: bool

    @classmethod
    def check(cls, cfg: "DictConfig") -> "Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        from toast_cli.surgery.formats import DTYPES, FORMATS

        given = {key: str(cfg[key]).lower() for key in ("format", "dtype", "head")}
        for key, allowed in (("format", tuple(FORMATS)), ("dtype", DTYPES), ("head", ("probe", "none"))):
            if given[key] not in allowed:
                raise ToastError(
                    f"{key}={cfg[key]} is not known{did_you_mean(given[key], allowed)}: use {', '.join(allowed)}."
                )
        runs_in = FORMATS[given["format"]].dtypes
        if given["dtype"] not in runs_in:
            raise ToastError(
                f"format={given['format']} has no runtime for dtype={given['dtype']}: use {', '.join(runs_in)}."
            )
        for key, least in (("seed", 0), ("images", 1)):
            if type(cfg[key]) is not int or cfg[key] < least:
                raise ToastError(f"{key}={cfg[key]} cannot be used: give a whole number from {least}.")
        fresh, private, dry = (require_flag(cfg[key], key) for key in ("fresh", "private", "dry"))
        words = (given["format"], given["dtype"], given["head"])
        settings = cls(cfg.plan, *words, cfg.seed, cfg.images, fresh, cfg.push, private, dry)
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
