import itertools
import math
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest

from toast_cli.runs.record import note, read_record
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Baseline, Candidate, Found
from toast_cli.search import baselines, front
from toast_cli.search import measured as survey
from toast_cli.stages import encode as encode_stage
from toast_cli.stages.choice import rows_of

FEW = [
    "data.fit_images=60", "data.train_images=160", "data.test_images=60", "device=cpu",
    "search.blocks=3", "search.beam=3", "search.rounds=2", "search.halves=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search that was not disturbed."""
    from toast_cli import cli

    path = tmp_path_factory.mktemp("search")
    cli.main(["search", *FEW, "seeds=[0,1]", f"hydra.run.dir={path / 'run'}"])
    return path / "run"


def test_the_best_of_what_was_measured_for_each_number_of_blocks(found):
    plans, measured = read_csv(found / "front.csv", Found), read_csv(found / "search.csv", Candidate)
    assert [row.blocks_removed for row in plans] == [1, 2, 3]
    for row in plans:
        rivals = [other for other in measured if other.blocks_removed == row.blocks_removed]
        best = min(rivals, key=lambda other: other.loss)
        assert row.plan == best.plan
        assert row.loss <= best.loss + 1e-9, "the better of two fits"
        assert row.measured == len(rivals)
        spans = [other for other in rivals if "+" not in other.plan and ":" not in other.plan]
        assert (row.rival, row.rival_loss) == min(
            ((other.plan, other.loss) for other in spans), key=lambda each: each[1]
        )
        assert not row.chosen
    singles = [row for row in measured if row.round == 0]
    assert len(singles) == 2 * (12 + 11 + 10)
    assert all(row.loss_predicted is None and "+" not in row.plan for row in singles)
    several = [row for row in measured if row.round > 0]
    assert several
    assert all(row.loss_predicted is not None for row in several)


def test_test_accuracies_are_those_of_the_rows(found):
    rows = read_csv(found / "results.csv", Row)
    for line in read_csv(found / "front.csv", Found):
        own = [row.accuracy for row in rows if (row.plan, row.sequential) == (line.plan, line.sequential)]
        assert line.accuracy_mean == pytest.approx(sum(own) / 2)
        assert line.seeds == len(own) == 2
        rivals = [row.accuracy for row in rows if row.plan == line.rival]
        assert line.rival_accuracy == pytest.approx(sum(rivals) / 2)
    assert not list((found / "features").glob("*"))


def test_baselines_stand_beside_the_plans_found(found):
    lines, plans = read_csv(found / "baselines.csv", Baseline), read_csv(found / "front.csv", Found)
    rows, measured = read_csv(found / "results.csv", Row), read_csv(found / "search.csv", Candidate)
    influence = read_record(found)["block_influence"]
    assert len(influence) == 12
    assert [(line.blocks_removed, line.baseline) for line in lines] == [
        (row.blocks_removed, name) for row in plans for name in ("last", "influence")
    ]
    originals = {row.seed: row.accuracy for row in rows if row.plan == "none"}
    for line in lines:
        size = line.blocks_removed
        least = sorted(range(12), key=lambda i: influence[i])[:size]
        assert removed_by(line.plan) == (set(range(12 - size, 12)) if line.baseline == "last" else set(least))
        assert all(part.endswith(":identity") for part in line.plan.split("+"))
        own = [row for row in rows if row.plan == line.plan and not row.sequential]
        assert line.seeds == len(own) == 2
        assert line.draws == 1
        assert line.accuracy_mean == pytest.approx(mean(row.accuracy for row in own))
        assert line.accuracy_std == pytest.approx(stdev(row.accuracy for row in own))
        assert line.accuracy_delta_mean == pytest.approx(mean(row.accuracy - originals[row.seed] for row in own))
        assert (line.params_ratio, line.gflops_ratio) == (own[0].params_ratio, own[0].gflops_ratio)
        assert line.loss_original == plans[0].loss_original
        for same in [row for row in measured if row.plan == line.plan]:  # encoded with other plans, in other batches
            assert line.loss == pytest.approx(same.loss, rel=1e-3, abs=1e-5)
            assert line.held_out_accuracy == pytest.approx(same.held_out_accuracy, abs=1.1 / same.held_out_images)
    assert any(row.plan == lines[0].plan for row in measured)


def removed_by(text: str) -> set[int]:
    bounds = [part.partition(":")[0].split("-") for part in text.split("+")]
    return {block for start, end in bounds for block in range(-1 if start == "stem" else int(start), int(end) + 1)} - {
        -1 if start == "stem" else int(start) for start, _ in bounds
    }


def test_no_plan_is_tested_twice(found):
    """Those of the baselines have no sequential fit: it would be the same."""
    rows = [(row.plan, row.sequential) for row in read_csv(found / "results.csv", Row) if row.seed == 0]
    plans = {row.plan for row in read_csv(found / "front.csv", Found)}
    assert len(set(rows)) == len(rows)
    refitted = {plan for plan, sequential in rows if sequential}
    assert refitted == {plan for plan in plans if "+" in plan}


def test_the_front_is_the_untouched_model_and_all_that_was_found(found):
    plans = [row.plan for row in read_csv(found / "front.csv", Found)]
    assert [row.plan for row in rows_of(found, "front", 0)] == ["none", *plans]
    (original,) = rows_of(found, "none", 1)
    assert original in read_csv(found / "results.csv", Row)
    assert (original.plan, original.seed) == ("none", 1)
    assert [row.plan for row in rows_of(found, [plans[1], "none", plans[1]], 0)] == [plans[1], "none"]


ONE_SIZE = ["search.blocks=2", "search.rounds=1", "search.beam=1", "budget.blocks=2"]
WHOLE = "search.halves=false"


@pytest.mark.slow
def test_random_blocks_are_a_mean_over_draws(toast, tmp_path):
    words = [*FEW[:4], *ONE_SIZE, WHOLE, "seeds=[0,1]", "search.baselines=[random]"]
    status, out, _ = toast("search", *words, "hydra.run.dir=here")
    assert status == 0
    assert "random: the mean of up to 20 draws" in out
    (line,) = read_csv(tmp_path / "here" / "baselines.csv", Baseline)
    rows = read_csv(tmp_path / "here" / "results.csv", Row)
    plans = {str(baselines.without(blocks, "identity")) for blocks in baselines.random_blocks(12, 2, seed=0)}
    drawn = [row for row in rows if row.plan in plans and not row.sequential]
    assert (line.baseline, line.plan, line.draws, line.blocks_removed, line.seeds) == ("random", "", 20, 2, 2)
    assert len(drawn) == 2 * 20
    assert line.accuracy_mean == pytest.approx(mean(row.accuracy for row in drawn))
    assert line.accuracy_std == pytest.approx(stdev(row.accuracy for row in drawn))
    assert line.gflops_ratio == drawn[0].gflops_ratio
    assert "block_influence" not in read_record(tmp_path / "here")


@pytest.mark.slow
def test_baselines_are_not_healed(toast, tmp_path):
    assert toast("search", *FEW[:4], *ONE_SIZE, "fit.heal=true", "hydra.run.dir=here")[0] == 0
    (found,) = read_csv(tmp_path / "here" / "front.csv", Found)
    rows = read_csv(tmp_path / "here" / "results.csv", Row)
    assert {row.plan for row in rows if row.healed} == {found.plan, found.rival}
    for line in read_csv(tmp_path / "here" / "baselines.csv", Baseline):
        (own,) = [row for row in rows if row.plan == line.plan and not (row.healed or row.sequential)]
        assert line.accuracy_mean == own.accuracy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "last"),
    [
        ([WHOLE, "search.beside=[]"], "9-11:identity"),
        ([WHOLE, "translator=context", "search.beside=[]"], "9-11:identity"),
        ([WHOLE, "translator=identity"], "9-11"),
        (["translator=mlp", "translator.steps=2", "search.beside=[]", "search.baselines=[]", "fit.sequential=false"], None),
    ],
)  # fmt: skip
def test_baselines_with_other_translators(toast, tmp_path, words: list[str], last: str | None):
    assert toast("search", *FEW[:4], *ONE_SIZE, *words, "hydra.run.dir=here")[0] == 0
    lines = {row.baseline: row.plan for row in read_csv(tmp_path / "here" / "baselines.csv", Baseline)}
    assert lines.get("last") == last
    measured = {row.plan for row in read_csv(tmp_path / "here" / "search.csv", Candidate)}
    assert not any("identity" in plan for plan in measured), "the search tries what it is told to"


@pytest.mark.slow
def test_a_search_that_an_earlier_version_began(found, toast, tmp_path, monkeypatch):
    """It was stopped after its last probe, when there were no baselines: the plans it lacks are tested, and all is there."""
    words = ["search", *FEW, "seeds=[0,1]", "hydra.run.dir=here"]
    with monkeypatch.context() as earlier:
        earlier.setattr(baselines, "plans_of", lambda *_: {})
        earlier.setattr(front, "front_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert toast(*words)[0] == 130
    shutil.rmtree(tmp_path / "here" / "features")
    (tmp_path / "here" / "baselines.csv").unlink()
    assert toast(*words)[0] == 0
    for name in ("search.csv", "baselines.csv", "front.csv", "results.csv"):
        assert (tmp_path / "here" / name).read_text() == (found / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", [1, 2, 3])
def test_a_search_that_was_killed_ends_alike(found, toast, tmp_path, monkeypatch, killed_in: int):
    """In the middle of round 0, of round 1, and of the last encoding."""
    batches, calls = survey.encode, []

    def dying(job, maps, splits=("train", "test")):
        calls.append(job.feature_prefix)
        if len(calls) == killed_in:
            batches(job, maps, splits[:1])
            path = job.feature_file("train").path
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2 + 7)
            raise KeyboardInterrupt
        batches(job, maps, splits)

    words = ["search", *FEW, "seeds=[0,1]", "hydra.run.dir=here"]
    monkeypatch.setattr(survey, "encode", dying)
    monkeypatch.setattr(encode_stage, "encode", dying)
    assert toast(*words)[0] == 130
    monkeypatch.setattr(survey, "encode", batches)
    monkeypatch.setattr(encode_stage, "encode", batches)
    assert toast(*words)[0] == 0
    for name in ("search.csv", "baselines.csv", "front.csv", "results.csv"):
        assert (tmp_path / "here" / name).read_text() == (found / name).read_text()


@pytest.mark.slow
def test_killed_after_its_last_file_it_still_ends(found, toast, tmp_path):
    """The features are gone and the record does not say complete: the front is made again from features made again."""
    shutil.copytree(found, tmp_path / "here")
    note(tmp_path / "here", complete=False)
    (tmp_path / "here" / "front.csv").unlink()
    assert toast("search", *FEW, "seeds=[0,1]", "hydra.run.dir=here")[0] == 0
    assert (tmp_path / "here" / "front.csv").read_text() == (found / "front.csv").read_text()


@pytest.mark.slow
def test_killed_when_only_tidying_up_was_left(found, toast, tmp_path, monkeypatch):
    shutil.copytree(found, tmp_path / "here")
    note(tmp_path / "here", complete=False)
    for name in ("round0-train", "front-test"):
        (tmp_path / "here" / "features" / f"{name}.f32").touch()
    monkeypatch.setattr(encode_stage, "encode", lambda *_: pytest.fail("all tables are there"))
    assert toast("search", *FEW, "seeds=[0,1]", "hydra.run.dir=here")[0] == 0
    assert not list((tmp_path / "here" / "features").iterdir())


@pytest.mark.slow
def test_budgets_and_targets(found, toast, tmp_path):
    for number, (word, holds) in enumerate(
        {
            "budget.gflops=0.85": lambda row: row.gflops_ratio <= 0.85,
            "budget.params=0.86": lambda row: row.params_ratio <= 0.86,
            "budget.blocks=2": lambda row: row.blocks_removed >= 2,
            "target.accuracy_drop=0.03": lambda row: row.held_out_accuracy_delta >= -0.03,
        }.items()
    ):
        words = [*FEW[:4], "search.blocks=2", "search.rounds=1", "search.beam=3", WHOLE]
        assert toast("search", *words, word, f"hydra.run.dir={number}")[0] == 0
        chosen = [row for row in read_csv(tmp_path / str(number) / "front.csv", Found) if row.chosen]
        assert len(chosen) == 1
        assert holds(chosen[0]), word


@pytest.mark.slow
def test_latency_is_measured_where_it_is_asked_for(toast, tmp_path, monkeypatch):
    from toast_cli.search import sizes

    monkeypatch.setattr(sizes, "_SECONDS", 0.05)
    assert toast("search", *FEW, "budget.latency=0.95", "hydra.run.dir=here")[0] == 0
    assert len(read_record(tmp_path / "here")["latency"]) == 4, "for one, for a block less, for a map of each kind"
    note(tmp_path / "here", complete=False)
    monkeypatch.setattr(sizes.Sizes, "time", lambda *_: pytest.fail("what was timed chooses the plans to the end"))
    assert toast("search", *FEW, "budget.latency=0.95", "hydra.run.dir=here")[0] == 0
    rows = read_csv(tmp_path / "here" / "front.csv", Found)
    assert all(0 < row.latency_ratio < 2 for row in rows)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["budget.gflops=1.5"], "budget.gflops=1.5 cannot be used: give a share between 0 and 1"),
        (["budget.blocks=12"], "budget.blocks=12 cannot be used: give a whole number from 1 to 11."),
        (["budget.params=0.5", "target.accuracy_drop=0.1"], "target.accuracy_drop and a budget are two questions"),
        (["search.beam=0"], "search.beam=0 cannot be used: give a whole number from 1."),
        (["search.blocks=12"], "search.blocks=12 cannot be used: give a whole number from 1 to 11."),
        (["search.beside=identity"], "search.beside=identity is not a list of translators"),
        (["search.baselines=last"], "search.baselines=last is not a list of baselines: write search.baselines=[last"),
        (
            ["search.baselines=[last,influense]"],
            "search.baselines=[influense] is not known (did you mean influence?): use last, influence, random, or []",
        ),
        (
            ["translator=mlp", "search.beside=[]", "fit.sequential=false"],
            "search.baselines=[last,influence] needs identity maps, which do not mix with translator=mlp",
        ),
        (
            ["search.beside=[linar]"],
            "translator=linar is not known (did you mean linear",
        ),
        (
            ["data.fit_images=[20,40]"],
            "data.fit_images=[20, 40] has several values, but toast search fits its maps once",
        ),
        (["spans=all"], "spans=all is not for toast search"),
        (["keep_features=true"], "keep_features and features_from are not for toast search"),
        (["data.fit_images=1437"], "measures plans on train images that no map is fitted on, and there are 0 of these"),
        pytest.param(
            ["budget.gflops=0.3"], "No plan that was measured meets gflops 0.3: the smallest", marks=pytest.mark.slow
        ),
        (["translator=mlp"], "next to translator=mlp: only closed forms can be mixed"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(toast, words: list[str], sentence: str):
    status, _, err = toast("search", *FEW, *words)
    assert status == 1
    assert sentence in err


def test_a_complete_search_is_not_done_again(found, toast, monkeypatch, tmp_path):
    shutil.copytree(found, tmp_path / "again")
    monkeypatch.setattr(survey.Survey, "__init__", lambda *_: pytest.fail("nothing is left to do"))
    status, out, _ = toast("search", *FEW, "seeds=[0,1]", "hydra.run.dir=again")
    assert status == 0
    assert "plans of these sizes were measured" in out


HALVES = [*FEW[:4], "search.blocks=2", "search.beam=2", "search.rounds=1", "search.halves=true", "search.beside=[]"]


def test_a_search_over_half_blocks(toast):
    status, out, _ = toast("search", *HALVES, "budget.blocks=1", "hydra.run.dir=run")
    assert status == 0
    plans, measured = read_csv(Path("run/front.csv"), Found), read_csv(Path("run/search.csv"), Candidate)
    assert [row.blocks_removed for row in plans] == [1, 1.5, 2], "within the budget, in steps of half a block"
    singles = [row for row in measured if row.round == 0]
    assert len(singles) == 24 + 23 + 22 + 21
    assert any("a" in row.plan and "+" in row.plan for row in measured)
    for row in plans:
        of_its_size = [other for other in measured if other.blocks_removed == row.blocks_removed]
        assert row.plan == min(of_its_size, key=lambda other: other.loss).plan
        assert row.measured == len(of_its_size) < row.possible
    assert (
        plans[0].possible == 24 - 1 + math.comb(24 - 2 + 1, 2) == sum(1 for _ in itertools.combinations(range(24), 2))
    )
    assert plans[1].possible == math.comb(24, 3)
    lines = read_csv(Path("run/baselines.csv"), Baseline)
    assert {line.blocks_removed for line in lines} == {1, 2}, "others remove whole blocks"
    assert "-1.5" in out
    chosen = next(row for row in plans if row.chosen)
    assert toast("export", "run", f"plan={chosen.plan}", "out=model", "images=16")[0] == 0


def test_a_search_goes_on_with_whole_blocks_where_none_can_be_cut(toast):
    sizes = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    options = [f"+model.options.{key}={value}" for key, value in sizes.items()]
    model = ["model=timm", "model.name=vit_small_patch16_18x2_224", "model.pretrained=false", "model.image_size=32"]
    words = [word for word in HALVES if "beam" not in word]
    status, _, err = toast("search", *words, *model, *options, "search.beam=1", "hydra.run.dir=run")
    assert status == 0, err
    assert (
        "note: The model's blocks have no latent between attention and MLP: the search takes whole blocks only." in err
    )
    assert not any("a" in row.plan for row in read_csv(Path("run/search.csv"), Candidate))
