"""An export by its name: a folder on this disk, or else a repository on the hub, of which its recipe and its model file are fetched.

No other file of a repository is asked for, so that none of its code ever lies on this disk because of toast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toast_cli.errors import ToastError
from toast_cli.folders import typed_path
from toast_cli.hub.repository import Repository, export_of, is_name
from toast_cli.surgery.recipe import RECIPE, WEIGHTS


@dataclass(frozen=True)
class Export:
    """The ``folder`` of an export, whose recipe is there. ``source``: the repository that its model file comes from, if any."""

    folder: Path
    source: Repository | None = None

    @classmethod
    def find(cls, given: str | Path) -> "Export":
        """The export that ``given`` names: a folder, or as text ``<user>/<name>`` or ``<user>/<name>@<revision>`` on the hub. If there
        is a folder of that name, that is meant.

        Raises ToastError for what the hub does not have, does not give out or cannot send.
        """
        folder = typed_path(given)
        name, _, revision = str(given).partition("@")
        if isinstance(given, Path) or folder.exists() or not is_name(name):
            return cls(folder)

        from toast_cli.hub.fetching import newest
        from toast_cli.hub.refusals import refusal

        asked = export_of(name)
        try:
            recipe = newest(asked, RECIPE, revision or None)
        except ToastError:
            raise
        except Exception as e:
            raise ToastError(f"There is no folder {folder} here, so the hub is meant: {refusal(e, asked)}") from e
        if recipe is None:
            raise ToastError(
                f"The hub has {asked}, but no {RECIPE} in it, so it is not an export of toast: give a repository that toast export push= wrote."
            )
        return cls(recipe.parent, asked)

    def require(self, file: str) -> None:
        """Bring the model ``file`` beside the recipe, from the same commit. Raises ToastError if it cannot be fetched."""
        if self.source is None:
            return

        from toast_cli.hub.fetching import cached, fetch, reach
        from toast_cli.hub.refusals import refusal

        asked, commit = self.source, self.folder.name
        if cached(asked, file, commit) is not None:
            return
        try:
            found = reach(asked, file, commit)
            if found is None:
                raise ToastError(
                    f"The hub has {asked}, but not {file}, which its {RECIPE} describes: give <dir> with a copy."
                )
            fetch(asked, {file: found.size or 0}, commit)
        except ToastError:
            raise
        except Exception as e:
            raise refusal(e, asked) from e

    def weights(self, recipe: Mapping[str, Any]) -> Path:
        """Where its safetensors file is, fetched if it is not there. Raises ToastError if its ``recipe`` knows none, or it cannot be had."""
        if recipe.get("file") == WEIGHTS:
            self.require(WEIGHTS)
        file = self.folder / WEIGHTS
        if recipe.get("weights") is None or not file.is_file():
            raise ToastError(
                f"{self.folder} holds no {WEIGHTS}: load reads exports with format=safetensors; run others with their own runtime."
            )
        return file
