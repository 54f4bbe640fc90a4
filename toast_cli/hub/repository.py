"""What is asked of the hub: a repository of weights, of images or of an export, and how a person gets it in another way."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from toast_cli.errors import ToastError

_NAME = re.compile(r"\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b", re.ASCII)


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, and its relatives: names that a person may have meant instead.

    ``what`` it is, in words. ``instead`` is the end of a sentence, the settings that do without it, such as
    ``give data.path=<dir> with a copy``.
    """

    name: str
    kind: Literal["model", "dataset"]
    what: str
    instead: str
    relatives: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def page(self, endpoint: str) -> str:
        """Where a person reads about it and accepts its terms."""
        return f"{endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def copied(self) -> str:
        """The command that fetches it on another machine."""
        kind = " --repo-type dataset" if self.kind == "dataset" else ""
        return f"hf download {self.name}{kind} --local-dir <dir>"


def weights_of(name: str, relatives: Iterable[str] = ()) -> Repository:
    """The repository ``name`` of a model's weights."""
    return Repository(name, "model", "weights", "give model.checkpoint=<dir>/model.safetensors", tuple(relatives))


def images_of(name: str, relatives: Iterable[str] = ()) -> Repository:
    """The repository ``name`` of a data set."""
    return Repository(name, "dataset", "data set", "give data.path=<dir>", tuple(relatives))


def export_of(name: str) -> Repository:
    """The repository ``name`` of what toast export wrote."""
    return Repository(name, "model", "export", "give <dir>")


def is_name(text: str) -> bool:
    """Whether ``text`` is ``<user>/<name>`` as the hub writes it."""
    return _NAME.fullmatch(text) is not None and not re.search(r"--|\.\.|\.git$", text)


def require_name(given: object) -> None:
    """Raises ToastError unless ``given``, which was given as ``push``, is the name of a repository."""
    if not isinstance(given, str) or not is_name(given):
        raise ToastError(
            f"push={given} is not the name of a repository: give push=<user>/<name>, letters, digits, - _ and . in both, such as push=me/vit-9-11."
        )
