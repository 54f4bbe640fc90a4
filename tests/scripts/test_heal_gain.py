"""The script that says what healing is worth, on runs of its own."""

import importlib.util
from pathlib import Path

import pytest

from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row

SCRIPT = Path(__file__).parents[2] / "scripts" / "heal_gain.py"


def test_every_way_and_the_one_that_held_out_images_choose(toast, capsys: pytest.CaptureFixture):
    spec = importlib.util.spec_from_file_location("heal_gain", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = ["data.fit_images=40", "data.train_images=200", "data.test_images=48", "device=cpu", "precision=fp32"]
    folders = []
    for heal in ("false", "true"):
        folders.append(Path(f"run-{heal}"))
        status, _, err = toast(
            "run",
            *words,
            "spans=[2-9,1-4]",
            "translator=affine",
            f"fit.heal={heal}",
            "keep_features=true",
            f"hydra.run.dir={folders[-1]}",
        )
        assert status == 0, err
    measured = script.measure(folders[0]) | script.measure(folders[1])
    for folder in folders:
        for row in read_csv(folder / "results.csv", Row)[1:]:
            way = "affine healed" if row.healed else "affine"
            assert measured[row.plan, 0, way].points == pytest.approx(100 * row.accuracy_delta)
    assert all(measured[plan, 0, "affine healed"].off <= measured[plan, 0, "affine"].off for plan in ("2-9", "1-4"))
    capsys.readouterr()
    script.report(folders)
    head, *lines, left = capsys.readouterr().out.splitlines()
    columns = [cell.strip() for cell in head.split("|")]
    assert columns == ["plan", "affine", "affine healed", "chosen", "affine off", "affine healed off"]
    assert [line.split("|")[0].strip() for line in lines] == ["2-9", "1-4", "mean"]
    for line in lines[:2]:
        plan, affine, healed, chosen, *_ = (cell.strip() for cell in line.split("|"))
        best = min(("affine", "affine healed"), key=lambda way: measured[plan, 0, way].loss)
        assert chosen == (healed if best == "affine healed" else affine)
    assert left.startswith("left of affine's loss: ")
