"""Every command that a page shows is run as it stands, page by page, one after the other in one folder.

A command that needs the hub runs with blank weights and two thousand blank images, and ends where its first image would be
encoded; so does one that takes a minute or more by its own comment. One that runs to its end has fewer of the embedded images,
and measures for a moment. Commands of scripts are parsed, and so are the words of torchrun.
"""

import io
import re
import runpy
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch.distributed.run import parse_args
from torch.overrides import TorchFunctionMode

from tests.docs.commands import PAGES, ROOT, Command, commands_of, inline_of
from tests.scenes import save_scenes
from toast_cli.data.streamed import Rows, StreamedRows
from toast_cli.machine import timing
from toast_cli.models import factory
from toast_cli.models.imagenet import ids_of_outputs
from toast_cli.stages.job import Job
from toast_cli.verbs import VERBS

_CREATE, _ROUNDS = timm.create_model, timing.rounds
# source -> splits, and the classes of each label column, as many or by name
_HUB = {
    "uoft-cs/cifar10": (("train", "test"), "img", {"label": 10}),
    "uoft-cs/cifar100": (("train", "test"), "img", {"fine_label": 100, "coarse_label": 20}),
    "ylecun/mnist": (("train", "test"), "image", {"label": 10}),
    "zalando-datasets/fashion_mnist": (("train", "test"), "image", {"label": 10}),
    "ILSVRC/imagenet-1k": (("train", "validation"), "image", {"label": 1000}),
    "barkermrl/imagenet-a": (("train",), "image", {"label": ids_of_outputs(1000)[:200]}),
    "axiong/imagenet-r": (("test",), "image", {"wnid": ids_of_outputs(1000)[-200:]}),
}
_ROWS, _STREAMED_ROWS = 2000, 100_000  # of each split: as many as a page asks for
_FEW = {"data.fit_images": 64, "data.train_images": 100, "data.test_images": 50}


class FirstImageReachedError(Exception):
    """All settings are right, the model and the data are loaded, and the work begins."""


def _reached(*_: object, **__: object) -> None:
    raise FirstImageReachedError


def _blank(rows: int, image: str, labels: dict[str, int | list[str]]) -> datasets.Dataset:
    """One picture as often as there are ``rows``, every class in turn."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    columns = {image: pa.repeat(pa.scalar({"bytes": buffer.getvalue(), "path": None}), rows)}
    features = {image: datasets.Image()}
    for name, classes in labels.items():
        names = [f"class {i}" for i in range(classes)] if isinstance(classes, int) else classes
        columns[name] = pa.array(np.arange(rows) % len(names))
        features[name] = datasets.ClassLabel(names=names)
    return datasets.Dataset(pa.table(columns)).cast(datasets.Features(features))


def _read_hub(source: str, config: str | None, names: Sequence[str], streaming: bool) -> dict[str, Rows]:
    splits, image, labels = _HUB[source]
    assert set(names) <= set(splits)
    if not streaming:
        return {name: _blank(_ROWS, image, labels) for name in names}
    for name in names:
        _blank(_STREAMED_ROWS, image, labels).to_parquet(f"{name}.parquet")
    return {name: StreamedRows([str(Path(f"{name}.parquet").absolute())]) for name in names}


class _Blank(TorchFunctionMode):
    """Weights are 0: random numbers take most of the time in which a large model is made."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ not in ("kaiming_uniform_", "uniform_", "normal_", "erfinv_"):
            return func(*args, **(kwargs or {}))
        weight = args[0] if args else kwargs["tensor"]
        weight.detach().zero_()
        return weight


def _random_model(name: str, **settings: object) -> torch.nn.Module:
    """timm's model with random weights, unless they lie in a folder."""
    return _CREATE(name, **settings if name.startswith("local-dir:") else {**settings, "pretrained": False})


def _blank_model(*words: object, **settings: object) -> torch.nn.Module:
    with _Blank():
        return _random_model(*words, **settings)


def _short_rounds(calls: list[Callable[[], None]], seconds: float, **least: int) -> list[list[float]]:
    return _ROUNDS(calls, min(seconds, 0.05), **least)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the names of dinov2_s."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = _CREATE("vit_small_patch14_dinov2", num_classes=0)
    safetensors.torch.save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets with masks, one with as many images as a run takes for its maps, and with VOC's splits."""
    root = tmp_path_factory.mktemp("scenes")
    save_scenes(root / "scenes")
    save_scenes(root / "voc", train=500)
    (root / "voc" / "test.parquet").rename(root / "voc" / "val.parquet")
    return root


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture in each of the 1 000 folders of ImageNet-V2."""
    path = tmp_path_factory.mktemp("v2")
    Image.new("RGB", (32, 32)).save(path / "picture.png")
    for number in range(1000):
        folder = path / "imagenetv2-matched-frequency-format-val" / str(number)
        folder.mkdir(parents=True)
        (folder / "0.png").symlink_to(path / "picture.png")
    return path


@pytest.fixture
def stand_ins(tmp_path: Path, weights: Path, scenes: Path, numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that pages name, and a hub of random weights and blank images."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label in ("cat", "dog"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8))
                picture.save(tmp_path / "photos" / split / label / f"{i}.jpg")
    _pack(tmp_path / "photos", tmp_path / "shards")
    for name in ("scenes", "voc"):
        (tmp_path / name).symlink_to(scenes / name)
    (tmp_path / "w.safetensors").symlink_to(weights)
    (tmp_path / "v2").symlink_to(numbered)
    safetensors.torch.save_file({"text": torch.randn(100, 512)}, tmp_path / "text.safetensors")
    (tmp_path / "cifar10").mkdir()
    for split, rows in (("train", 4000), ("test", 2000)):
        _blank(rows, "img", {"label": 10}).to_parquet(tmp_path / "cifar10" / f"{split}.parquet")
    monkeypatch.setattr(factory.timm, "create_model", _random_model)
    monkeypatch.setattr("toast_cli.machine.memory.peak_memory", lambda *_: 1.0)  # measured in tests/machine
    monkeypatch.setattr("toast_cli.report.figures._DPI", 30)
    monkeypatch.setattr(timing, "rounds", _short_rounds)
    monkeypatch.setattr(timing, "_LARGEST_BATCH", 8)
    monkeypatch.setattr(factory, "published", lambda name: {})
    monkeypatch.setattr("toast_cli.data.sources.read_hub", _read_hub)
    monkeypatch.syspath_prepend(ROOT / "tests" / "report" / "trackers")


def _pack(photos: Path, shards: Path) -> None:
    """A tar file of each split, with the class number beside each image."""
    shards.mkdir()
    for split in ("train", "test"):
        with tarfile.open(shards / f"{split}-000000.tar", "w") as tar:
            for number, picture in enumerate(sorted((photos / split).rglob("*.jpg"))):
                label = tarfile.TarInfo(f"{number:04}.cls")
                label.size = 1
                tar.add(picture, f"{number:04}.jpg")
                tar.addfile(label, io.BytesIO(b"%d" % (picture.parent.name == "dog")))


def stop_at_the_first_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands end there. Their models need no weights then."""
    monkeypatch.setattr(Job, "batches", _reached)
    monkeypatch.setattr(timing, "rounds", _reached)
    monkeypatch.setattr(factory.timm, "create_model", _blank_model)


def write_configs(page: Path, folder: Path) -> None:
    """The YAML files that a page prints below their names."""
    for name, content in re.findall(r"`(my_conf/[\w/]+\.yaml)`:?\n\n```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(c.toast for c in commands_of(page))], ids=lambda p: p.stem
)
def test_commands_do_what_the_page_says(page: Path, stand_ins, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_configs(page, tmp_path)
    for command in commands_of(page):
        if command.toast is None:
            continue
        if command.words[0] == "torchrun":
            check_torchrun(command)
        if command.to_its_end:
            status, _, err = toast(*command.toast, *few(command.toast))
            assert status == 0, f"{command}\n{err}"
        else:
            with monkeypatch.context() as stopped:
                stop_at_the_first_image(stopped)
                stopped.setattr("toast_cli.stages.forecast.Forecast.check", lambda *_: None)  # of somebody else's disk
                check_reached(command, toast)
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        run_python(block)


def run_python(block: str) -> None:
    """With a few random images of the size that the block's model takes."""
    small = "toast_cli.load" in block and "create_model" not in block  # the embedded model, as the page has exported it
    images = torch.randn(4, 3, *((8, 8) if small else (224, 224)))
    exec(compile(block, "page", "exec"), {"images": images})


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if inline_of(page)], ids=lambda page: page.stem)
def test_commands_in_running_text_begin(page: Path, stand_ins, toast, monkeypatch: pytest.MonkeyPatch):
    stop_at_the_first_image(monkeypatch)
    for command in inline_of(page):
        check_reached(command, toast)


HELPS = {name: verb.HELP for name, verb in VERBS.items() if hasattr(verb, "HELP")}


@pytest.mark.slow
@pytest.mark.parametrize("verb", HELPS)
def test_examples_of_the_help_begin(verb: str, stand_ins, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_configs(ROOT / "docs" / "data.md", tmp_path)
    for split in ("train", "test"):  # enough of one's own images for the default number of fit images
        for folder in (tmp_path / "photos" / split).iterdir():
            for i in range(260):
                (folder / f"{i + 100}.jpg").symlink_to(folder / "0.jpg")
    stop_at_the_first_image(monkeypatch)
    lines = [re.split(r" {2,}", line)[0] for line in HELPS[verb].examples.splitlines()]
    assert all(line.startswith(f"toast {verb}") for line in lines)
    for line in lines:
        if "<run>" not in line:
            check_reached(Command(ROOT, line), toast)


def check_reached(command: Command, toast) -> None:
    """All runs of a multirun have to reach their first image; a run that is complete already only prints its table.

    Other processes, which a launcher starts, would not know that they have to stop there.
    """
    here = [word for word in command.toast or [] if not word.startswith(("hydra/launcher=", "hydra.launcher."))]
    try:
        status, out, err = toast(*here)
    except FirstImageReachedError:
        return
    if status == 0:
        return
    reasons = [line for line in err.splitlines() if line.startswith("  ")]
    assert status == 1, f"{command}\n{out}"
    assert reasons, f"{command}\n{err}"
    assert all("FirstImageReachedError" in line for line in reasons), f"{command}\n{err}"


def few(words: list[str]) -> list[str]:
    """Settings that give a command fewer of the embedded images, unless it names a number or has others or none."""
    others = any(word.startswith("data=") and not word.startswith("data=digits") for word in words)
    if words[0] not in ("run", "search", "similarity", "finetune") or "--help" in words or others:
        return []
    return [f"{key}={number}" for key, number in _FEW.items() if not any(word.startswith(f"{key}=") for word in words)]


def check_torchrun(command: Command) -> None:
    """torchrun takes the words before ``toast_cli`` and starts that; tests/machine has several processes."""
    taken = parse_args(command.words[1:])
    assert (taken.module, taken.training_script) == (True, "toast_cli")
    assert taken.training_script_args == command.toast
    assert int(taken.nproc_per_node) > 1


def scripts() -> Iterator[Command]:
    for page in PAGES:
        yield from (command for command in commands_of(page) if "scripts/" in command.line)


class Parsed(Exception):  # noqa: N818, it is no error
    """The words of a script are those that it takes."""


@pytest.mark.parametrize("command", dict.fromkeys(scripts()), ids=str)
def test_scripts_take_these_words(command: Command, monkeypatch: pytest.MonkeyPatch):
    words = command.words[command.words.index("python") + 1 :]
    path = ROOT / words[0]
    assert path.is_file()
    if "ArgumentParser" not in path.read_text():
        assert words[1:], f"{command} names the folders that it reads"
        return

    def parse(self: ArgumentParser, given: list[str] | None = None) -> None:
        _, unknown = self.parse_known_args(given)
        assert not unknown
        raise Parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name="__main__")


def test_no_other_program_is_shown():
    """What is not run here, CI runs itself, or is installing."""
    known = r"(uv run )?(toast|python scripts/|pytest|pre-commit|lint-imports|ruff|mypy)|torchrun |pip install|uv sync|make |git "
    for page in PAGES:
        for command in commands_of(page):
            assert re.match(known, command.line), f"{page.name}: {command}"
