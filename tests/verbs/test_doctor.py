"""What a machine, its installation and the hub offer."""

import pytest

from toast_cli.verbs import doctor as looks


@pytest.fixture
def told(toast) -> tuple[int, str]:
    status, out, err = toast("doctor")
    assert err == ""
    return status, out


def test_each_thing_has_a_line_and_all_is_well(told):
    status, out = told
    assert status == 0, out
    assert {line.split(":")[0] for line in out.splitlines()} == {f"ok  {name}" for name in looks.CHECKS}
    assert "a plan that removes nothing equals the untouched model bit for bit, on 64 digits" in out
    assert "precision=auto is fp32" in out or "precision=auto is bf16" in out
    assert "HF_HUB_OFFLINE is set: nothing is fetched" in out


def test_what_is_wrong_is_marked_and_makes_the_status_1(toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000})())
    status, out, _ = toast("doctor")
    assert status == 1
    assert "!!  room: 1e-06 GB free on the disk" in out


def test_a_model_that_is_changed_by_removing_nothing(toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looks, "_features", lambda vit, images: vit.forward_features(images)[:, 0] + 1)
    status, out, _ = toast("doctor")
    assert status == 1
    assert "!!  self-test: a plan that removes nothing DIFFERS FROM the untouched model" in out


def test_a_hub_out_of_reach_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    assert "nowhere.invalid cannot be reached" in looks._reach("https://nowhere.invalid", offline=False)
