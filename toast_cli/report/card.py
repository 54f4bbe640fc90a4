"""The model card of an export: what it is, how accurate it is, how to load it, and what nobody has measured.

Names of models, data sets and classes come from strangers: whatever is in them is set as text.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from toast_cli.files import write_atomically
from toast_cli.hub.repository import is_name
from toast_cli.models.origin import Origin, origin_of
from toast_cli.report.card_loading import BY_TIMM, loading_of
from toast_cli.report.card_plans import is_of_several, plans_of, words_of
from toast_cli.report.card_table import accuracy_of
from toast_cli.report.quantised import COMPARISON, lines_of
from toast_cli.report.tables import in_markdown
from toast_cli.runs.folder import Folder
from toast_cli.runs.measured import Compared
from toast_cli.runs.results import read_csv
from toast_cli.surgery.recipe import WEIGHTS, read_recipe

CARD = "README.md"
# Licences that the hub knows by these names and that weights of vision transformers have.
_LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "unlicense",
}  # fmt: skip
_MOST_CLASSES = 20  # that are named
_SEAL = "<!-- written by toast export, as it is: "


@dataclass(frozen=True)
class Card:
    """The card of the export that ``recipe`` describes, made from the run in the folder ``run``.

    ``repository`` is its name on the hub, None in a folder of one's own; ``licence`` what the hub says of the base, if it was
    asked; ``compared`` what was measured of a file in int8.
    """

    recipe: Mapping[str, Any]
    run: Path
    repository: str | None = None
    licence: str | None = None
    compared: Sequence[Compared] = ()

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Those of the run."""
        return Folder(self.run).settings

    @property
    def origin(self) -> Origin:
        """Where the base's weights come from."""
        return origin_of(self.settings["model"])

    def __str__(self) -> str:
        """The card in the hub's Markdown, with its settings in YAML in front."""
        parts = (
            self._title(),
            words_of(self.recipe),
            self._accuracy(),
            self._loading(),
            self._images(),
            self._licence(),
            self._unknown(),
        )
        front = yaml.safe_dump(self._front(), allow_unicode=True, width=1000)
        text = f"---\n{front}---\n\n" + "\n".join("\n".join(part) + "\n" for part in parts)
        return f"{text}\n{_SEAL}{_digest(text)} -->\n"

    def _front(self) -> dict[str, Any]:
        """What the hub sorts models by."""
        licence, data = self._known_licence(), self.settings["data"]
        source = data.get("source")
        on_hub = isinstance(source, str) and is_name(source) and not data.get("path")
        return {
            **({"base_model": self.origin.repository} if self.origin.repository else {}),
            **({"datasets": [source]} if on_hub else {}),
            "library_name": "timm" if BY_TIMM in self.recipe.get("beside", {}) else "toast",
            **({"license": licence} if licence in _LICENCES else {"license": "other"}),
            **({"license_name": licence} if licence and licence not in _LICENCES else {}),
            "metrics": ["accuracy"],
            "pipeline_tag": "image-classification" if self._has_head else "image-feature-extraction",
            "tags": ["toast", "vision-transformer", "model-compression"],
        }

    def _known_licence(self) -> str | None:
        return self.origin.licence or self.licence

    @property
    def _has_head(self) -> bool:
        return self.plans[0].get("head") is not None

    @cached_property
    def plans(self) -> list[Mapping[str, Any]]:
        """What the recipe of each plan would say."""
        return plans_of(self.recipe)

    def _title(self) -> Iterator[str]:
        first = self.plans[0]
        several = is_of_several(self.recipe)
        what = f", {len(self.plans)} plans in one file" if several else f" {in_markdown(first['plan'])}"
        yield f"# {in_markdown(first['row']['model'])}{what}, {in_markdown(first['row']['data'])}"
        yield ""
        kind = "It classifies images." if self._has_head else "It gives features and has no classifier."
        shorter = f"made shorter{' in several ways' * several}: maps take the place of some of its blocks"
        done = "written as it is" if all(each["plan"] == "none" for each in self.plans) else shorter
        yield f"A vision transformer that toast {in_markdown(self.recipe['versions']['toast'])} has {done}. {kind}"
        yield ""
        there = self.origin.repository
        page = f", [{there}](https://huggingface.co/{there})" if there else ""
        yield f"- Base: {in_markdown(self.origin.told)}{page}"
        yield f"- Architecture: timm's {in_markdown(self.recipe['architecture']['name'])}"
        sizes = sorted({each["params"] for each in self.plans})
        size = " to ".join(f"{each:,}" for each in dict.fromkeys((sizes[0], sizes[-1])))
        whole = "with all that a plan needs" if several else "with all that is in the file"
        yield f"- Size: {size} parameters {whole}, stored in {self.recipe['dtype']}"

    def _accuracy(self) -> Iterator[str]:
        yield "## Accuracy"
        yield ""
        yield from accuracy_of(self.recipe, self.run)
        if self.compared:
            yield ""
            yield from lines_of(self.compared)

    def _loading(self) -> Iterator[str]:
        yield "## Load it"
        yield ""
        yield from loading_of(self.recipe, self.repository)

    def _images(self) -> Iterator[str]:
        config = self.recipe["pretrained_cfg"]
        yield "## Images and classes"
        yield ""
        shape = ", ".join(map(str, config["input_size"]))
        crop = f"{config['interpolation']}, crop {config['crop_mode']} {config['crop_pct']:.4g}"
        yield f"`images` are (N, {shape}): resized ({crop}) and normalised with mean {config['mean']} and deviation {config['std']}."
        if self.recipe["file"] == WEIGHTS:
            yield "timm builds this transform: `timm.data.create_transform(**timm.data.resolve_model_data_config(model))`."
        names = config.get("label_names") or []
        if names:
            more = f" and {len(names) - _MOST_CLASSES} more, in recipe.json" if len(names) > _MOST_CLASSES else ""
            yield ""
            yield f"{len(names)} classes: {', '.join(map(in_markdown, names[:_MOST_CLASSES]))}{more}."

    def _licence(self) -> Iterator[str]:
        licence = self._known_licence()
        yield "## Licence"
        yield ""
        if licence is None:
            yield "Toast does not know the licence of the base model: whoever publishes this one must find out and say so here."
        else:
            yield f"That of the base model: {in_markdown(licence)}. Whether the training images ask for more was not looked at."

    def _unknown(self) -> Iterator[str]:
        recipe, data = self.recipe, self.plans[0]["row"]["data"]
        yield "## Not measured"
        yield ""
        yield f"- Accuracy on other images than the test images of {in_markdown(data)}."
        if recipe["dtype"] != "fp32" and not self.compared:
            yield f"- Accuracy with weights in {recipe['dtype']}: it was measured before they were rounded."
        if self.compared:
            yield f"- Time on your machine, and memory: `{COMPARISON}` has the times on the one that made the file."
        else:
            yield "- Time and memory, which depend on the machine: `toast bench` measures them."
        yield "- Robustness, calibration, and whom mistakes fall on."
        if recipe.get("compared"):
            yield ""
            yield f"The file was read back and compared with the model that was measured: {recipe['compared']}."


def write_card(folder: Path, run: Path, repository: str | None = None, licence: str | None = None) -> bool:
    """Write the card of the export in ``folder``, made from the ``run``. False if a person has written there: that stays."""
    file = folder / CARD
    if file.exists() and not _untouched(file):
        return False
    recipe = read_recipe(folder)
    compared = read_csv(folder / COMPARISON, Compared) if COMPARISON in recipe.get("beside", {}) else []
    write_atomically(file, str(Card(recipe, run, repository, licence, compared)))
    return True


def _untouched(file: Path) -> bool:
    """Whether toast wrote all of a card."""
    text, seal, digest = file.read_text(encoding="utf-8", errors="replace").rpartition(f"\n{_SEAL}")
    return bool(seal) and digest.strip() == f"{_digest(text)} -->"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
