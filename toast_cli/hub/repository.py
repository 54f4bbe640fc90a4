"""What is asked of the hub: a repository of weights or of images, and how a person gets it in another way."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, and its relatives: names that a person may have meant instead.

    ``instead`` is the end of a sentence, the settings that do without it, such as ``give data.path=<dir> with a copy``.
    """

    name: str
    kind: Literal["model", "dataset"]
    instead: str
    relatives: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def what(self) -> str:
        return "weights" if self.kind == "model" else "data set"

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
    return Repository(name, "model", "give model.checkpoint=<dir>/model.safetensors", tuple(relatives))


def images_of(name: str, relatives: Iterable[str] = ()) -> Repository:
    """The repository ``name`` of a data set."""
    return Repository(name, "dataset", "give data.path=<dir>", tuple(relatives))
