"""Parquet files read in place on the hub: no more than is needed, and trouble told as trouble of the hub."""

import re
from pathlib import Path

import pytest
import torch

from tests.data.conftest import all_pixels
from tests.hub.conftest import CIFAR, RUN, cifar
from tests.hub.stand_in import Hub
from toast_cli.data import dataset as data
from toast_cli.errors import ToastError


def _load(streaming: bool, **settings: object) -> data.Data:
    return data.load(
        "cifar100",
        "uoft-cs/cifar100",
        image_column="img",
        label_column="fine_label",
        fit_images=5,
        streaming=streaming,
        **settings,
    )


def test_labels_are_read_without_the_images(hub: Hub):
    """Row groups of 1.5 MB: reading ahead would take whole ones for the sake of their labels."""
    hub.add(CIFAR, cifar(pictures=10, train=400, test=100))
    whole = sum(len(content) for file, content in hub.stored[CIFAR].files.items() if file.endswith(".parquet"))
    assert whole > 14_000_000
    loaded = _load(streaming=True)
    labels = hub.sent("signature=x")
    assert labels < 0.02 * whole
    assert loaded.train.labels.tolist() == [i % 100 for i in range(400)]
    first = next(loaded.train.batches(lambda image: torch.zeros(1), 1))
    assert first.size == 1
    one_group = hub.sent("signature=x") - labels
    assert one_group < 1.1 * whole / 10, "an image comes with its row group, and nothing else"
    assert hub.requests("GET .*model") == []


def test_streamed_is_what_a_copy_is(hub: Hub):
    plain, streamed = _load(streaming=False), _load(streaming=True)
    assert hub.requests("GET .*parquet.sig")[-1].range is None, "what the cache holds is read there"
    for one, other in ((plain.train, streamed.train), (plain.test, streamed.test), (plain.fit[0], streamed.fit[0])):
        assert (one.labels == other.labels).all()
        assert torch.equal(all_pixels(one), all_pixels(other))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("skip", [True, False])
def test_images_that_do_not_come_are_not_bad_images(
    workers: int, skip: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    """A broken connection must not look like an image that cannot be decoded, and be left out."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    loaded = _load(streaming=True, skip_bad_images=skip)
    hub.fault("GET .*parquet", status=503)
    with pytest.raises(ToastError) as told:
        all_pixels(loaded.train, workers=workers)
    assert str(told.value).startswith(
        "The hub is in trouble, it answered 503 Service Unavailable to the question for uoft-cs/cifar100: run the same command again later"
    )
    assert "\n" not in str(told.value)


def test_a_run_goes_on_where_the_hub_left_it(hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    words = [*RUN, "data.streaming=true", "batch_size=20"]
    assert toast(*words, "hydra.run.dir=undisturbed")[0] == 0
    parquet = r"GET .*parquet.sig"
    fault = hub.fault("never", status=500)
    original = data.Images.batches

    def breaking(self, *words, **settings):
        for number, batch in enumerate(original(self, *words, **settings)):
            yield batch
            if number == 3:
                fault.match = parquet

    monkeypatch.setattr(data.Images, "batches", breaking)
    status, _, err = toast(*words)
    assert status == 1
    assert err.splitlines()[-1].startswith("toast: The hub is in trouble, it answered 500 Internal Server Error")
    monkeypatch.setattr(data.Images, "batches", original)
    fault.match = "never"
    assert toast(*words)[0] == 0
    rows = [Path(folder, "results.csv").read_text() for folder in ("run", "undisturbed")]
    assert re.sub(r"\d\.\d+", "", rows[0]) == re.sub(r"\d\.\d+", "", rows[1])


def test_what_is_not_stored_as_parquet_is_named(hub: Hub):
    hub.add(CIFAR, {"README.md": b"# x", "train.csv": b"img,fine_label\n1,2\n", "test.csv": b"img,fine_label\n1,2\n"})
    with pytest.raises(
        ToastError, match="cifar100 is not stored as parquet files, which data.streaming=true needs: use data.str"
    ):
        _load(streaming=True)
