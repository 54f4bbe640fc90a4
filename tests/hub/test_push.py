"""toast export push=: what goes up, what is said before and after, and what the hub may refuse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.hub.conftest import offline
from tests.hub.stand_in import Hub
from tests.hub.writes import GOOD_TOKEN, READ_TOKEN, front_of
from toast_cli.errors import ToastError
from toast_cli.hub.pushing import licence_of
from toast_cli.hub.refusals import shortened
from toast_cli.hub.repository import is_name
from toast_cli.room import in_words
from toast_cli.runs.measured import Compared
from toast_cli.runs.results import write_csv
from toast_cli.stages.exporting import Settings
from toast_cli.stages.publish import publish
from toast_cli.surgery.recipe import checksum

PINNED = Path(__file__).parents[1] / "pinned" / "outputs"
RUN = PINNED / "run" / "digits_vit-digits-affine-5317bf72"
NAME = "me/vit-0-10"
SETTINGS = Settings("0-10", "safetensors", "fp32", "dynamic", "probe", 0, 48, False, NAME, True, False)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An export of an earlier version, which has no card, and a file of somebody's beside it."""
    folder = tmp_path / "it"
    shutil.copytree(PINNED / "export" / "digits_vit-digits-0-10-safetensors", folder)
    (folder / "notes.txt").write_text("a secret")
    return folder


@pytest.fixture
def signed(empty_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    return empty_hub


def said(out: Path, **changes: object) -> str:
    """The sentence of a push that fails. The export is as it was."""
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.name != "README.md"}
    with pytest.raises(ToastError) as caught:
        publish(out, RUN, replace(SETTINGS, **changes))
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.name != "README.md"} == before
    assert GOOD_TOKEN not in str(caught.value)
    assert READ_TOKEN not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_a_run_is_exported_pushed_and_found_again(signed: Hub, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(PINNED, "outputs")
    command = ["export", f"outputs/run/{RUN.name}", "plan=0-10", "images=48", "out=it", f"push={NAME}"]
    with monkeypatch.context() as broken:
        broken.setattr("toast_cli.hub.fetching._PATIENCE", 0)
        fault = signed.fault("POST /api/models/.*/commit", status=500)
        status, _, err = toast(*command)
        assert status == 1
        last = err.splitlines()[-1]
        assert last.startswith(
            f"toast: The hub is in trouble, it answered 500 Internal Server Error to the push to {NAME}: try again"
        )
        assert last.endswith("the export is in it, and the same command pushes it without making it again.")
        fault.times = 0
        broken.setattr("toast_cli.stages.exported.deployed", lambda *_: pytest.fail("nothing is computed again"))
        status, printed, err = toast(*command)
    assert (status, printed) == (0, "it\n"), err
    assert "%|" not in err, "no bar where there is no terminal"
    stored = signed.stored[NAME]
    assert stored.private
    assert stored.files == {
        ".gitattributes": b"",
        **{file.name: file.read_bytes() for file in (tmp_path / "it").iterdir()},
    }
    assert set(stored.files) == {".gitattributes", "README.md", "recipe.json", "model.safetensors", "modeling.py"}
    assert (
        f"pushed 4 files, {in_words(sum(map(len, stored.files.values())))}: {signed.endpoint}/{NAME}/commit/{stored.commit}"
        in err
    )
    assert front_of(stored.files)["license"] == "mit"
    assert not signed.refused
    assert not any(str(tmp_path).encode() in content for content in stored.files.values()), "no path of this machine"
    assert not any(each.signed for each in signed.requests("^PUT")), "the CDN gets no token"
    commit = stored.commit
    publish(Path("it"), Path("outputs/run", RUN.name), SETTINGS)
    assert stored.commit == commit, "nothing has changed, so that there is no new commit"


def test_a_dry_push_says_what_would_go_up_and_asks_nobody(empty_hub: Hub, out: Path):
    lines = publish(out, RUN, replace(SETTINGS, dry=True))
    assert lines[0].startswith("would upload 3 files, ")
    assert lines[0].endswith(f" to {NAME}, made private if it is not there")
    assert [line.split()[0] for line in lines[1:]] == ["README.md", "recipe.json", "model.safetensors"]
    assert f'toast_cli.load("{NAME}")' in (out / "README.md").read_text()
    assert empty_hub.asked == []


def test_files_of_others_stay_and_replaced_ones_are_in_the_history(signed: Hub, out: Path, capsys):
    before = {"README.md": b"mine", "training.log": b"theirs", "model.safetensors": b"old"}
    stored = signed.add(NAME, dict(before), private=True)
    first = stored.commit
    publish(out, RUN, SETTINGS)
    assert stored.files["training.log"] == b"theirs"
    assert stored.files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert stored.past[first] == before
    err = capsys.readouterr().err
    assert (
        f"{NAME} has README.md, model.safetensors: what differs is replaced in a new commit, and the history keeps it"
        in err
    )
    assert f"{NAME} has training.log too, not of this export: they stay as they are" in err


def test_what_should_be_private_does_not_go_where_everybody_looks(signed: Hub, out: Path, capsys):
    stored = signed.add(NAME, {"README.md": b"mine"})
    assert "is there already and public, and private=true was asked for: add private=false" in said(out)
    assert list(stored.files) == ["README.md"]
    publish(out, RUN, replace(SETTINGS, private=False))
    assert "recipe.json" in stored.files
    stored.private = True
    publish(out, RUN, replace(SETTINGS, private=False))
    assert "is private already and stays so" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "name", "sentence"),
    [
        (READ_TOKEN, NAME, f"The token may not write to {NAME} (403 Forbidden, Forbidden: you don't have the rights"),
        (GOOD_TOKEN, "others/vit", "The token may not write to others/vit (403 Forbidden, "),
        (
            "hf_bad",
            NAME,
            f"The hub does not accept the token for {NAME} (401 Unauthorized, Invalid credentials in Author",
        ),
    ],
)
def test_a_token_that_may_not(
    token: str, name: str, sentence: str, empty_hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", token)
    told = said(out, push=name)
    assert told.startswith(sentence)
    assert token not in told
    assert told.endswith(f"the export is in {out}, and the same command pushes it without making it again.")
    assert empty_hub.stored == {}


@pytest.mark.parametrize(
    ("match", "status", "sentence"),
    [
        (
            "POST /api/repos/create",
            503,
            f"The hub is in trouble, it answered 503 Service Unavailable to the push to {NAME}: try again",
        ),
        ("POST /api/repos/create", 402, f"The hub refuses the push to {NAME} (402 Payment Required): the export is in"),
        (
            "GET /api/models",
            429,
            f"The hub answered 429 Too Many Requests to the push to {NAME}: wait some minutes; the export",
        ),
        ("POST .*preupload", 400, f"The hub refuses the push to {NAME} (400 Bad Request): the export is in"),
        ("PUT ", 400, f"The hub refuses the push to {NAME} (400 Bad Request): the export is in"),
    ],
)
def test_a_hub_that_does_not_take_it(match: str, status: int, sentence: str, signed: Hub, out: Path):
    signed.fault(match, status=status)
    assert said(out, fresh=True).startswith(sentence)


def test_trouble_that_passes_is_waited_out(signed: Hub, out: Path, capsys):
    signed.fault("POST /api/repos/create", status=503, times=2)
    publish(out, RUN, SETTINGS)
    assert capsys.readouterr().err.count(f"asking for {NAME} again in") == 2
    assert "recipe.json" in signed.stored[NAME].files


def test_a_hub_out_of_reach(signed: Hub, out: Path):
    signed.stop()
    told = said(out, fresh=True)
    assert told.startswith(f"{NAME} was not pushed, since {signed.endpoint} cannot be reached (")
    assert told.endswith("and the same command without fresh=true pushes it without making it again.")


def test_files_that_were_changed_since_are_not_pushed(signed: Hub, out: Path):
    (out / "model.safetensors").write_bytes(b"other weights")
    assert "is not the file that recipe.json was written for" in said(out)
    assert signed.stored == {}


def test_what_int8_was_measured_to_do_goes_up_with_it(empty_hub: Hub, out: Path):
    row = Compared("int8", "static", 40, 700000, 360, 0.5, -0.25, -0.5, 0.0, 0.75, 1, 1, 1, 1, 16, 1, 1, 1, 1, "1.32")
    first = replace(row, dtype="fp32", quantisation="", accuracy_delta=None, accuracy_delta_low=None, same_class=1.0)
    write_csv(out / "comparison.csv", [first, row], Compared)
    recipe = json.loads((out / "recipe.json").read_text())
    lines = publish(out, RUN, replace(SETTINGS, dry=True))
    assert "comparison.csv" not in str(lines), "the recipe does not know it"
    known = recipe | {"dtype": "int8", "beside": {"comparison.csv": checksum(out / "comparison.csv")}}
    (out / "recipe.json").write_text(json.dumps(known))
    lines = publish(out, RUN, replace(SETTINGS, dry=True))
    assert [line.split()[0] for line in lines[2:]] == ["recipe.json", "model.safetensors", "comparison.csv"]
    card = (out / "README.md").read_text()
    assert "| int8 static | 0.7 | 0.5000 | -0.2500 | -0.5000 … +0.0000 | 0.750 |" in card
    (out / "comparison.csv").write_text("other numbers")
    assert said(out, dry=True).startswith(f"{out / 'comparison.csv'} is not as toast wrote it")


def test_links_and_other_names_are_not_followed(signed: Hub, out: Path, tmp_path: Path):
    """A stranger's export may hold a link, or a recipe that names other files."""
    (tmp_path / "secret").write_text("secret")
    (out / "README.md").symlink_to(tmp_path / "secret")
    assert said(out).startswith(f"{out / 'README.md'} is a link, which is not pushed")
    (out / "README.md").unlink()
    recipe = json.loads((out / "recipe.json").read_text())
    for beside in ({"../secret": checksum(tmp_path / "secret")}, {"modeling.py": "0"}, ["x"]):
        (out / "recipe.json").write_text(json.dumps({**recipe, "beside": beside}))
        assert "is not as toast wrote it" in said(out)
    assert signed.stored == {}


@pytest.mark.parametrize(("stated", "found"), [("mit", "mit"), ("Do what you like: x", None), (None, None)])
def test_the_licence_on_the_hub(stated: str | None, found: str | None, empty_hub: Hub):
    front = f"---\n{yaml.safe_dump({'license': stated} if stated else {'tags': ['x']})}---\n"
    empty_hub.add("someone/base", {"README.md": front.encode()})
    assert licence_of("someone/base") == found
    assert licence_of("someone/nothing") is None


@pytest.mark.parametrize(
    ("words", "token", "sentence"),
    [
        (["push=vit"], GOOD_TOKEN, "push=vit is not the name of a repository: give push=<user>/<name>"),
        (["push=a/b/c", "dry=true"], None, "push=a/b/c is not the name of a repository"),
        (
            ["push=me/vit"],
            None,
            "push=me/vit needs a token of the hub that may write: run hf auth login, or set HF_TOKEN",
        ),
        (["push=me/vit", "format=torch_export"], GOOD_TOKEN, "format=torch_export is not pushed, since its file names"),
        (["dry=true"], GOOD_TOKEN, "dry=true shows what push= would upload: give push=<user>/<name> with it."),
        (["push=me/vit", "private=no"], GOOD_TOKEN, "private=no is neither true nor false"),
    ],
)
def test_what_is_refused_before_any_work(
    words: list[str], token: str | None, sentence: str, empty_hub: Hub, toast, monkeypatch: pytest.MonkeyPatch
):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    status, out, err = toast("export", "nowhere", *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"toast: {sentence}")
    assert empty_hub.asked == []
    assert not Path("outputs").exists()


def test_names_that_the_hub_has():
    assert all(map(is_name, ("me/vit", "me/vit-9-11", "my_org/vit.v2_b")))
    assert not any(
        map(is_name, ("vit", "a/b/c", "me/a--b", "../vit", "me/..", "me/vit.git", "me/é", "me/vit\n", "-me/vit", "me/"))
    )


def test_offline_nothing_is_begun(signed: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    offline(True, monkeypatch)
    assert toast("export", "nowhere", f"push={NAME}")[2] == (
        f"toast: HF_HUB_OFFLINE is set, so push={NAME} cannot reach the hub: unset it, or add dry=true, which uploads nothing.\n"
    )


def test_a_token_that_a_library_quotes_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_a\x01b")
    assert (
        shortened(f"Illegal header value {b'Bearer hf_a' + bytes([1]) + b'b'!r}")
        == "Illegal header value b'Bearer <token>'"
    )
