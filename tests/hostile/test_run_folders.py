"""A run folder from a stranger is data: whichever verb reads it, nothing that it names is imported, called or resolved."""

import pickle
import shutil
from pathlib import Path

import pytest

from tests.hostile.conftest import WORDS, rewrite
from toast_cli.runs import record

GROUPS = ("model", "data", "translator", "probe", "fit_data")
VERBS = {
    "export": ("export", "stranger", "plan=9-11", "images=8"),
    "report": ("report", "stranger", "--out", "out"),
    "status": ("status", "stranger"),
    "run": ("run", *WORDS, "hydra.run.dir=stranger"),
    "features_from": ("run", *WORDS, "features_from=stranger", "hydra.run.dir=mine"),
    "search": ("search", "hydra.run.dir=stranger"),
    "finetune": ("finetune", "hydra.run.dir=stranger"),
    "similarity": ("similarity", "hydra.run.dir=stranger"),
}


OTHERS = [verb for verb in VERBS if verb != "export"]  # they compare settings with the user's, and make nothing of them


def one_sentence(err: str) -> str:
    assert "Traceback" not in err, err
    last = err.splitlines()[-1]
    assert last.startswith("toast: "), err
    return last


class Boom:
    """What a pickle can do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "called")


@pytest.mark.parametrize(
    ("verb", "group"), [*(("export", group) for group in GROUPS), *((verb, "translator") for verb in OTHERS)]
)
def test_a_target_of_the_strangers_is_not_even_imported(toast, stranger, marker, verb, group):
    rewrite(stranger, lambda settings: settings[group].update(_target_="evil.run"))
    status, _, err = toast(*VERBS[verb])
    assert not marker.exists()
    if verb not in ("report", "status"):  # these do not look at it
        assert status == 1
        one_sentence(err)
    if verb == "export":
        assert f"ask for {group}._target_=evil.run, which is not part of toast" in err
        assert not Path("outputs").exists() or not list(Path("outputs/export").glob("[!.]*"))


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.run", "builtins.exec", "builtins.eval", "shutil.copyfile", "pathlib.Path.write_text",
        "urllib.request.urlopen", "importlib.import_module", "hydra.utils.instantiate", "hydra.utils.call", "torch.load",
        "timm.models._helpers.load_state_dict", "toast_cli.cli.main", "toast_cli.files.write_atomically",
        "toast_cli.models.factory.load", "toast_cli.stages.load.make", "toast_cli.translators.Linear.fit", "", ".", "toast_cli",
    ],
)  # fmt: skip
def test_only_what_conf_names_is_called(toast, stranger, target):
    rewrite(stranger, lambda settings: settings["translator"].update(_target_=target))
    status, _, err = toast(*VERBS["export"])
    assert status == 1
    assert "translator" in one_sentence(err)


def test_a_target_of_another_group_is_not_called(toast, stranger):
    rewrite(stranger, lambda settings: settings["probe"].update(_target_="toast_cli.models.load"))
    assert "ask for probe._target_=toast_cli.models.load" in toast(*VERBS["export"])[2]


@pytest.mark.parametrize(
    "hidden", [{"_target_": "evil.run"}, [{"_target_": "evil.run"}], {"a": {"_target_": "evil.run", "_partial_": True}}]
)
@pytest.mark.parametrize(
    ("group", "key"), [("model", "options"), ("model", "label"), ("data", "fit_images"), ("probe", "epochs")]
)
def test_targets_inside_other_settings_are_data(toast, stranger, marker, group, key, hidden):
    rewrite(stranger, lambda settings: settings[group].update({key: hidden}))
    status, _, err = toast(*VERBS["export"])
    assert not marker.exists()
    assert status == 1
    one_sentence(err)


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_partial_", "_convert_"])
def test_what_hydra_would_obey_is_an_unknown_setting(toast, stranger, key):
    rewrite(stranger, lambda settings: settings["translator"].update({key: ["x"]}))
    status, _, err = toast(*VERBS["export"])
    assert status == 1
    assert "do not fit toast_cli.translators.Linear" in one_sentence(err)


def test_the_pickle_that_was_run_once(toast, stranger, tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Boom(tmp_path / "marker")))
    attack = {
        "_target_": "timm.models._helpers.load_state_dict", "checkpoint_path": "weights.pth", "weights_only": False
    }  # fmt: skip
    for group in ("model", "translator"):
        rewrite(stranger, lambda settings, group=group: settings.update({group: attack}))
        assert toast(*VERBS["export"])[0] == 1
    rewrite(
        stranger, lambda settings: settings["model"].update(_target_="toast_cli.models.load", checkpoint="weights.pth")
    )
    assert toast(*VERBS["export"])[0] == 1
    assert not (tmp_path / "marker").exists()


INTERPOLATIONS = (
    "${oc.env:SECRET}", "${oc.env:SECRET,none}", "${toast_folder:}", "${.x}", "${", "\\${oc.env:SECRET}",
)  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "text"), [*(("export", text) for text in INTERPOLATIONS), *((verb, INTERPOLATIONS[0]) for verb in OTHERS)]
)
def test_nothing_is_resolved(toast, stranger, monkeypatch, verb, text):
    monkeypatch.setenv("SECRET", "hunter2")

    def everywhere(settings):
        for group in ("model", "data", "translator"):
            settings[group].update(label=text, name=text, path=text)

    rewrite(stranger, everywhere)
    status, out, err = toast(*VERBS[verb])
    assert "hunter2" not in out + err
    assert not any(b"hunter2" in file.read_bytes() for file in Path().rglob("*") if file.is_file())
    assert status == (0 if verb in ("report", "status") else 1) or "GrammarParseError" in err


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch marker']\n",
        "a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmodel: *c\n",
        f"model: {'[' * 5000}{']' * 5000}\n",
        "[1, 2]\n",
        "model\n",
        "? [1]\n: 2\n",
        "a: 1\na: 2\n",
        "\x00",
        "model: 2020-01-01\n",
        "",
    ],
)
@pytest.mark.parametrize("verb", ["export", "run"])
def test_yaml_that_toast_never_writes(toast, stranger, verb, text):
    record.write(stranger / "config.yaml", text)
    status, _, err = toast(*VERBS[verb])
    assert status == 1
    one_sentence(err)
    assert not Path("marker").exists()


def test_settings_that_are_not_utf8(toast, stranger):
    record.write(stranger / "config.yaml", b"model: \xff\n")
    assert "config.yaml cannot be read (UnicodeDecodeError)" in one_sentence(toast(*VERBS["export"])[2])


def test_a_checkpoint_inside_a_package_imports_nothing(toast, stranger, marker):
    rewrite(stranger, lambda settings: settings["model"].update(checkpoint="pkg://evil/weights.safetensors"))
    status, _, err = toast(*VERBS["export"])
    assert status == 1
    one_sentence(err)
    assert not marker.exists()


def test_arguments_that_would_read_other_files(toast, stranger, tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Boom(tmp_path / "marker")))
    for options in (
        {"checkpoint_path": "weights.pth"},
        {"pretrained_cfg": {"file": "weights.pth"}, "pretrained": True},
        {"pretrained_cfg_overlay": {"url": "file:weights.pth", "custom_load": True}},
        {"cache_dir": "here"},
    ):
        rewrite(stranger, lambda settings, options=options: settings["model"].update(options=options))
        status, _, err = toast(*VERBS["export"])
        assert status == 1
        one_sentence(err)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "entries",
    [
        {"weights": None}, {"precision": [1]}, {"precision": "int3"}, {"fit_images": 3}, {"fit_images": {"a": "b"}}, {"depth": "x"},
        {"depth": None}, {"depth": 1}, {"seconds": {"fit": "x"}}, {"seconds": 3}, {"stage": 1}, {"process": 1}, {"failed": [1]},
        {"checksums": 3}, {"checksums": {"config.yaml": 3}}, {"complete": "yes"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["export", "report", "status"])
def test_records_that_toast_never_writes(toast, stranger, verb, entries):
    record.note(stranger, **entries)
    _, _, err = toast(*VERBS[verb])
    assert "Traceback" not in err


def test_an_own_translator_needs_the_users_word(toast, stranger, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_linear.py").write_text(
        "from toast_cli.translators import Linear\nclass Halved(Linear):\n    name = 'halved'\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "conf" / "translator").mkdir(parents=True)
    (tmp_path / "conf" / "translator" / "halved.yaml").write_text("_target_: own_linear.Halved\ntokens: shared\n")
    own = ["--config-dir", "conf"]
    assert toast("run", *WORDS, *own, "translator=halved", "hydra.run.dir=own")[0] == 0
    status, _, err = toast("export", "own", "plan=9-11", "images=8")
    assert status == 1
    assert "add --config-dir <dir> with a file translator/<name>.yaml of yours that names it" in one_sentence(err)
    status, _, err = toast("export", "own", "plan=9-11", "images=8", *own)
    assert status == 0, err


def test_a_folder_named_like_an_interpolation(toast, stranger, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    place = tmp_path / "${oc.env:SECRET}"
    place.mkdir()
    shutil.move(stranger, place / "${oc.env:SECRET}")
    monkeypatch.chdir(place)
    for words in (
        ("run", *WORDS),
        ("export", "${oc.env:SECRET}", "plan=9-11", "images=8"),
        ("report", "${oc.env:SECRET}"),
        ("status", "."),
        ("run", *WORDS, "data.path=${oc.env:PWD}"),
    ):
        status, out, err = toast(*words)
        assert "hunter2" not in out + err
        assert "Traceback" not in err
        assert words[-1].startswith("data.path") or status == 0, err
    assert not (tmp_path / "hunter2").exists()
    assert list((place / "outputs" / "run").glob("*/results.csv"))
