"""toast run sweep=race: who goes on, on how many images, and that those who do get what a full run gives them."""

import json

import pytest

from tests.conftest import SMALL, save_image_folder
from toast_cli.report.findings import findings_of
from toast_cli.runs import features
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Raced, Row
from toast_cli.stages import walk

PLANS = "spans=[stem-0,7-8,9-10,10-11,0-2,8-10,9-11,2-3+10-11]"
SETTINGS = [*SMALL[:3], "device=cpu", PLANS, "seeds=[0,1]", "batch_size=16"]
RACE = ["sweep=race", "sweep.test_images=12"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a full run and of a race."""
    from toast_cli import cli

    root = tmp_path_factory.mktemp("race")
    for name, how in (("full", []), ("raced", RACE)):
        cli.main(["run", *SETTINGS, *how, f"hydra.run.dir={root}/{name}"])
    return root / "full", root / "raced"


def test_plans_that_go_on_have_the_rows_of_a_full_run(folders):
    full, raced = (read_csv(folder / "results.csv", Row) for folder in folders)
    of_full = {(row.plan, row.seed): row for row in full}
    assert raced == [of_full[row.plan, row.seed] for row in raced]
    assert len(raced) < len(full)
    assert {row.blocks_removed for row in raced} == {row.blocks_removed for row in full}, "every size has a plan"


def test_the_table_has_every_plan_with_its_images(folders):
    lines = read_csv(folders[1] / "race.csv", Raced)
    full, raced = (read_csv(folder / "results.csv", Row) for folder in folders)
    assert [line.plan for line in lines] == list(dict.fromkeys(row.plan for row in full))
    went_on = {row.plan for row in raced}
    images = {1: (24, 12), 2: (48, 24), 3: (96, 48)}
    for line in lines:
        assert (line.outcome == "finished") == (line.plan in went_on)
        assert (line.round == 3) == (line.outcome == "finished")
        assert (line.train_images, line.test_images) == images[line.round]
        assert line.accuracy_low <= line.accuracy <= line.accuracy_high
        assert line.accuracy * 2 * line.test_images == pytest.approx(round(line.accuracy * 2 * line.test_images))
        assert (line.seeds, line.fit_images) == (2, 40 if line.plan != "none" else 0)
    of_two = [line for line in lines if line.blocks_removed == 2]
    kept = [sum(line.round > number for line in of_two) for number in range(3)]
    assert kept == [4, 2, 1], "half of a size after each round"
    left = [line for line in of_two if line.outcome != "finished"]
    assert all(line.behind_low < line.behind < line.behind_high for line in left)
    assert all(line.score == pytest.approx(round(line.score * 3 * images) / (3 * images)) for line in left
               for images in [line.train_images + line.test_images])  # fmt: skip


def test_it_counts_what_it_saved(folders):
    counted = json.loads((folders[1] / "run.json").read_text())["race"]
    assert (
        counted["of"]
        == (96 + 48) * walk.build_trie(_plans(read_csv(folders[0] / "results.csv", Row)), 12).evaluations()
    )
    expected = 0.0
    lines = read_csv(folders[1] / "race.csv", Raced)
    for number, images in enumerate((36, 36, 72)):
        own = [line for line in lines if line.round > number]
        expected += images * walk.build_trie(_plans(own), 12).evaluations()
    assert counted["block_evaluations"] == expected < counted["of"]


def _plans(rows):
    from toast_cli.plans import Plan

    return [Plan.parse(text) for text in dict.fromkeys(row.plan for row in rows)]


@pytest.mark.parametrize("call", [8, pytest.param(14, marks=pytest.mark.slow)])
def test_killed_in_a_later_round_it_ends_with_the_same_files(folders, toast, tmp_path, monkeypatch, call: int):
    """Round 1 writes to its files three times, round 2 twice for train and once for test from call 4 on; 14 copies rows."""
    write, calls = features.FeatureFile.write, iter(range(1, 99))

    def killed(self, first, values):
        if next(calls) == call:
            write(self, first, values[:5])
            raise KeyboardInterrupt
        write(self, first, values)

    monkeypatch.setattr(features.FeatureFile, "write", killed)
    assert toast("run", *SETTINGS, *RACE, "hydra.run.dir=here")[0] == 130
    finished = max(line.round for line in read_csv(tmp_path / "here" / "race.csv", Raced))
    assert finished >= 1, "a round was over"
    monkeypatch.setattr(features.FeatureFile, "write", write)
    status, _, err = toast("run", *SETTINGS, *RACE, "hydra.run.dir=here")
    assert status == 0
    assert "probe round 1" not in err, "what is decided stays so"
    for name in ("race.csv", "results.csv", "summary.csv", "predictions.safetensors"):
        assert (tmp_path / "here" / name).read_bytes() == (folders[1] / name).read_bytes()
    assert not list((tmp_path / "here" / "features").iterdir())


def test_a_report_keeps_apart_what_had_fewer_images(folders, toast, tmp_path):
    alone, both = ([CompleteRun.read(folder) for folder in places] for places in (folders[:1], folders))
    assert findings_of(both) == findings_of(alone), "plans that went on are the full run's"
    assert toast("report", *map(str, folders), "--out", "both")[0] == 0
    left = [line for line in read_csv(tmp_path / "both" / "race.csv", Raced) if line.outcome != "finished"]
    for name in ("tables.md", "tables.tex", "report.html"):
        text = (tmp_path / "both" / name).read_text()
        assert "plans that left a race" in text
        assert f"raced is a race: {len(left)} of its 8 plans left it" in text
        assert f"{left[0].accuracy_high:.4f}" in text


def test_a_forecast_says_what_it_costs_at_least_and_at_most(folders, toast):
    status, out, err = toast("run", *SETTINGS, *RACE, "dry=true")
    assert status == 0
    counted = json.loads((folders[1] / "run.json").read_text())["race"]
    words = next(line for line in err.splitlines() if "sweep=race" in line).split()
    few, many = (float(words[words.index("times") - back]) for back in (3, 1))
    assert "the first on 24 train and 12 test images" in err
    assert few - 0.05 <= counted["of"] / counted["block_evaluations"] <= many + 0.05
    assert " in a race (" in out


@pytest.mark.slow
def test_with_few_test_images_it_is_a_full_run(folders, toast, tmp_path):
    status, out, err = toast("run", *SETTINGS, "sweep=race", "hydra.run.dir=here")
    assert status == 0
    assert "there are no more than sweep.test_images=512 test images" in err
    assert (tmp_path / "here" / "results.csv").read_bytes() == (folders[0] / "results.csv").read_bytes()
    assert "no plan has left" in out


def test_it_takes_one_process(toast, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}.items():
        monkeypatch.setenv(name, value)
    status, _, err = toast("run", *SETTINGS, *RACE)
    assert (status, err) == (
        1,
        "toast: sweep=race works in one process: start it without torchrun, or use sweep=full.\n",
    )


VARIED = {
    "several fits": ["data.fit_images=[20,40]", "fit.sequential=true"],
    "healed": ["fit.heal=true"],
    "another probe": ["probe=knn", "translator=ridge"],
    "half blocks": ["spans=[7-8a,8a-8,9-10a,9a-10,9-11,8-10,10-11]"],
    "nothing in the place of blocks": ["translator=identity", "probe=logistic", "probe.strengths=[0.01]"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_other_settings_race_too(name: str, toast, tmp_path):
    rows = {}
    for folder, how in (("full", []), ("raced", RACE)):
        assert toast("run", *SETTINGS, *VARIED[name], *how, f"hydra.run.dir={folder}")[0] == 0
        rows[folder] = read_csv(tmp_path / folder / "results.csv", Row)
    full = {(row.plan, row.seed, row.fit_images, row.sequential, row.healed): row for row in rows["full"]}
    for row in rows["raced"]:
        assert row == full[row.plan, row.seed, row.fit_images, row.sequential, row.healed]
    assert len(rows["raced"]) < len(rows["full"])
    assert {(row.blocks_removed, row.fit_images) for row in rows["raced"]} == {
        (row.blocks_removed, row.fit_images) for row in rows["full"]
    }
    lines = read_csv(tmp_path / "raced" / "race.csv", Raced)
    assert len(lines) == len(rows["full"]) / 2
    assert {line.healed for line in lines} == {row.healed for row in rows["full"]}


@pytest.mark.slow
def test_images_that_cannot_be_decoded_are_left_out_as_in_a_full_run(toast, tmp_path):
    images = save_image_folder(tmp_path / "images", per_class=16)
    for bad in ("train/kind0/3.png", "test/kind1/5.png", "test/kind0/0.png"):
        (images / bad).write_bytes(b"no image")
    own = ["data=folder", f"data.path={images}", "data.fit_images=8", "data.skip_bad_images=true", "spans=single"]
    rows = {}
    for folder, how in (("full", []), ("raced", ["sweep=race", "sweep.test_images=8"])):
        assert toast("run", "device=cpu", *own, *how, f"hydra.run.dir={folder}")[0] == 0
        rows[folder] = {row.plan: row for row in read_csv(tmp_path / folder / "results.csv", Row)}
    assert rows["raced"].items() <= rows["full"].items()
    assert {(row.train_images, row.test_images) for row in rows["raced"].values()} == {(31, 30)}
    assert len(rows["raced"]) < len(rows["full"])
