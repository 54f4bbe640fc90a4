"""toast run with a model and a data set from the hub."""

import io
import pickle
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.hub.conftest import CIFAR, RUN, SMALL, TEST, TRAIN, WEIGHTS, offline
from tests.hub.stand_in import GOOD_TOKEN, Hub
from toast_cli.room import in_words

_FILES = r"^GET .*\.(safetensors|parquet)\b"


def _rows(folder: str = "run") -> list[str]:
    """results.csv without the columns of time."""
    lines = Path(folder, "results.csv").read_text().splitlines()
    return [re.sub(r"\d+\.\d+", "", line) for line in lines]


def test_a_run_fetches_what_it_needs_once(hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    status, _, err = toast(*RUN)
    assert status == 0, err
    stored = [content for name in (WEIGHTS, CIFAR) for content in hub.stored[name].files.items()]
    large = sum(len(content) for file, content in stored if file.endswith((".safetensors", ".parquet")))
    assert hub.sent("signature=x") == large, "each file comes once from the CDN"
    assert not any(each.signed for each in hub.requests("signature=x")), "which gets no token"
    assert all(each.signed for each in hub.requests(r"/resolve/|/tree/"))
    assert re.search(r"fetching timm/vit_base_patch14_dinov2.lvd142m from the hub: \d+ kB to ", err)
    assert re.search(r"fetching uoft-cs/cifar100 from the hub: 1.1 MB to ", err)
    before = len(hub.requests(_FILES))
    assert toast(*RUN, "fresh=true")[0] == 0
    assert len(hub.requests(_FILES)) == before, "the second run finds all in the cache"


def test_a_block_that_a_model_does_not_have_is_named_before_anything_is_fetched(hub: Hub, toast):
    status, _, err = toast("run", "model=dinov2_b", "data=cifar100", "spans=[9-12]")
    assert (status, err) == (1, "toast: span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.\n")
    assert not hub.requests("")


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_full_cache_does_without_the_hub(streaming: str, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    words = [*RUN, f"data.streaming={streaming}"]
    assert toast(*RUN)[0] == 0
    first = _rows()
    offline(True, monkeypatch)
    status, _, err = toast(*words, "hydra.run.dir=offline")
    assert status == 0, err
    assert "uoft-cs/cifar100 is read as the cache holds it (HF_HUB_OFFLINE is set)" in err
    assert _rows("offline") == first
    offline(False, monkeypatch)
    hub.stop()
    status, _, err = toast(*words, "hydra.run.dir=unreachable")
    assert status == 0, err
    assert re.search(
        r"uoft-cs/cifar100 is read as the cache holds it \((ConnectError: Connection refused|ReadError)", err
    )
    assert _rows("unreachable") == first


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_offline_with_an_empty_cache(streaming: str, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    offline(True, monkeypatch)
    status, _, err = toast("run", "data=cifar100", f"data.streaming={streaming}", *SMALL)
    assert (status, err.count("\n")) == (1, 1)
    assert err == (
        f"toast: HF_HUB_OFFLINE is set, so nothing is fetched, and the cache {tmp_path}/cache/hub does not hold uoft-cs/cifar100: unset it; or "
        "run hf download uoft-cs/cifar100 --repo-type dataset --local-dir <dir> where there is internet, bring that folder here and give "
        "data.path=<dir>.\n"
    )
    status, _, err = toast("run", "model=dinov2_b", *SMALL)
    assert (status, err.count("\n")) == (1, 1)
    assert (
        "does not hold timm/vit_base_patch14_dinov2.lvd142m: unset it; or run hf download timm/vit_base_patch14_d"
        in err
    )
    assert (
        "--local-dir <dir> where there is internet, bring that folder here and give model.checkpoint=<dir>/model.safe"
        in err
    )
    assert hub.asked == []


def test_a_dry_run_asks_for_sizes_and_fetches_nothing(hub: Hub, toast, tmp_path: Path):
    status, out, err = toast(*RUN, "dry=true")
    assert status == 0, err
    sizes = {
        name: sum(len(c) for f, c in hub.stored[name].files.items() if f.endswith((".safetensors", ".parquet")))
        for name in (WEIGHTS, CIFAR)
    }
    weights, images, both = map(in_words, (*sizes.values(), sum(sizes.values())))
    assert out.splitlines()[0] == (
        f"fetch {both} from the hub ({weights} timm/vit_base_patch14_dinov2.lvd142m, {images} uoft-cs/cifar100)"
    )
    assert f"images: 20 fit, {TRAIN} train, {TEST} test" in err
    assert hub.requests(_FILES) == []
    assert toast(*RUN)[0] == 0
    status, out, err = toast(*RUN, "dry=true")
    assert status == 0, err
    assert out.startswith("time "), "all is here, and nothing is to be fetched"


def test_a_dry_run_reads_nothing_in_place(hub: Hub, toast):
    status, out, err = toast(*RUN, "dry=true", "data.streaming=true")
    assert status == 0, err
    assert "uoft-cs/cifar100, read in place)" in out.splitlines()[0]
    assert hub.requests(_FILES) == []


def test_a_dry_run_of_a_set_whose_page_says_nothing(hub: Hub, toast):
    del hub.stored[CIFAR].files["README.md"]
    status, _, err = toast(*RUN, "dry=true")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(
        "toast: The hub does not say how many images uoft-cs/cifar100 has, so that dry=true cannot tell what a run takes"
    )
    assert hub.requests(_FILES) == []


@pytest.mark.parametrize(
    "match", [r"GET .*parquet\?sig", "GET .*safetensors.sig", "HEAD .*safetensors", "HEAD .*README"]
)
@pytest.mark.parametrize(
    "what", [{"status": 503}, {"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"reset": 1000}]
)
def test_trouble_that_passes_is_waited_for(match: str, what: dict, hub: Hub, toast):
    if "HEAD" in match and "reset" in what:
        pytest.skip("an answer without a body has nothing to break off")
    fault = hub.fault(match, times=2, **what)
    status, _, err = toast(*RUN)
    assert status == 0, err
    assert fault.times == 0
    if "status" in what and what["status"] != 429:
        assert f"again in 0 s ({what['status']} " in err


def test_half_a_data_set_in_the_cache_is_none(hub: Hub, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Parquet files that were fetched and never copied serve, but not if some of them are missing."""
    assert toast(*RUN)[0] == 0
    first = _rows()
    shutil.rmtree(tmp_path / "cache" / "datasets")
    offline(True, monkeypatch)
    assert toast(*RUN, "hydra.run.dir=files")[0] == 0
    assert _rows("files") == first
    shutil.rmtree(tmp_path / "cache" / "datasets")
    file = next((tmp_path / "cache" / "hub").rglob("train-00000-of-00001.parquet"))
    file.rename(file.with_name("train-00000-of-00002.parquet"))
    for streaming in ("false", "true"):
        status, _, err = toast(*RUN, "hydra.run.dir=half", f"data.streaming={streaming}")
        assert (status, err.count("\n")) == (1, 1), err
        assert err.startswith("toast: HF_HUB_OFFLINE is set, so nothing is fetched, and the cache ")


def test_a_split_that_the_cache_does_not_have(hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    assert toast(*RUN)[0] == 0
    offline(True, monkeypatch)
    status, _, err = toast(*RUN, "hydra.run.dir=other", "data.test_split=val")
    assert status == 1
    assert (
        err
        == "toast: uoft-cs/cifar100 has no split 'val' (it has train, test): set data.train_split or data.test_split.\n"
    )


def test_weights_in_torchs_own_format(hub: Hub, toast):
    """Older repositories have no safetensors; a pickle is read as tensors or not at all."""
    files = hub.stored[WEIGHTS].files
    weights = safetensors.torch.load(files.pop("model.safetensors"))
    first = io.BytesIO()
    torch.save(weights, first)
    files["pytorch_model.bin"] = first.getvalue()
    status, _, err = toast(*RUN)
    assert status == 0, err
    assert len(hub.requests("GET .*pytorch_model.bin.sig")) == 1
    assert toast(*RUN, "fresh=true")[0] == 0
    assert len(hub.requests("GET .*pytorch_model.bin.sig")) == 1


def test_weights_that_would_be_executed(hub: Hub, toast):
    files = hub.stored[WEIGHTS].files
    del files["model.safetensors"]
    files["pytorch_model.bin"] = pickle.dumps(Executed(), protocol=2)
    status, _, err = toast(*RUN)
    assert status == 1
    assert err.splitlines()[-1].startswith(
        "toast: The weights of vit_base_patch14_dinov2.lvd142m that the hub gives cannot be read (RuntimeError): delete them"
    )


class Executed:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('executed')",))
