"""Checksums: every file that toast wrote is known again, and every other one is noticed."""

import json

import numpy as np
import pytest

from toast_cli.errors import ToastError
from toast_cli.runs import record
from toast_cli.runs.features import FeatureFile


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "results.csv"
    record.write(path, "a,b\n1,2\n")
    return path


def test_what_was_written_is_known(table):
    assert not record.changed(table)
    assert record.checked(table) == table


def test_one_digit_is_noticed(table):
    table.write_text("a,b\n1,3\n")
    assert record.changed(table)
    with pytest.raises(
        ToastError, match=r"results.csv was changed or damaged after toast wrote it: restore it, or run it"
    ):
        record.checked(table)


def test_a_kill_before_the_rename_leaves_the_former_file_known(table, monkeypatch):
    monkeypatch.setattr(record, "write_atomically", _killed_at(table.name, record.write_atomically))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            record.write(table, "a,b\n3,4\n")
        assert not record.changed(table)
        assert table.read_text() == "a,b\n1,2\n"
    monkeypatch.undo()
    record.write(table, "a,b\n3,4\n")
    assert not record.changed(table)


def _killed_at(name, write):
    def killed(path, content):
        if path.name == name:
            raise KeyboardInterrupt
        write(path, content)

    return killed


def test_a_former_file_is_unknown_once_the_run_is_complete(table):
    former = table.read_text()
    record.write(table, "a,b\n3,4\n")
    record.settle(table.parent)
    assert not record.changed(table)
    table.write_text(former)
    assert record.changed(table)


def test_a_run_with_an_edited_file_is_never_complete(table):
    table.write_text("a,b\n9,9\n")
    with pytest.raises(ToastError, match=r"results.csv was changed"):
        record.settle(table.parent)
    assert record.changed(table)


def test_files_of_a_version_without_checksums_are_taken_as_they_are(tmp_path):
    (tmp_path / "run.json").write_text('{"weights": "aa"}')
    (tmp_path / "results.csv").write_text("a,b\n")
    assert record.read_record(tmp_path) == {"weights": "aa"}
    assert not record.changed(tmp_path / "results.csv")
    record.note(tmp_path, depth=12)
    assert record.read_record(tmp_path) == {"weights": "aa", "depth": 12}


@pytest.mark.parametrize("change", [{"depth": 13}, {"more": 1}, {"checksum": "00"}])
def test_a_record_notices_its_own_damage(tmp_path, change):
    record.note(tmp_path, depth=12)
    stored = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**stored, **change}))
    with pytest.raises(ToastError, match=r"run.json was changed or damaged after toast wrote it"):
        record.read_record(tmp_path)


@pytest.fixture
def features(tmp_path):
    file = FeatureFile(tmp_path / "features" / "train.f32", 6, 2, 3)
    stored = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    stored[4] = np.nan  # left out
    for start in (0, 4):
        file.append(stored[start : start + 4])
    return file, stored


def test_features_read_back(features):
    file, stored = features
    read = file.read()
    assert read.positions.tolist() == [0, 1, 2, 3, 5]
    assert (read[np.array([0, 4])] == stored[[0, 5]]).all()
    assert (read.of_plan(1) == stored[read.positions, 1]).all()


@pytest.mark.parametrize("image", [1, 4])
@pytest.mark.parametrize("bit", range(0, 32, 5))
@pytest.mark.parametrize("which", ["path", "sums"])
def test_a_bit_of_features_is_noticed_when_its_image_is_read(features, image, bit, which):
    file, _ = features
    path, size = (file.path, 24) if which == "path" else (file.sums, 8)
    content = bytearray(path.read_bytes())
    content[image * size + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(ToastError, match=r"train.f32 was changed or damaged after toast wrote it: remove it"):
        file.read()[:]
    with pytest.raises(ToastError, match=r"train.f32 was changed"):
        file.read().of_plan(0)
    if image == 1 and bit != 30:  # which makes it NaN, as if it were left out
        assert len(file.read()[np.array([0, 2])]) == 2, "other images are as they were"


def test_an_image_that_lost_its_features_is_not_taken_for_one_that_was_left_out(features):
    file, stored = features
    stored[2] = np.nan
    file.path.write_bytes(stored.tobytes())
    with pytest.raises(ToastError, match=r"train.f32 was changed"):
        file.read()


def test_an_image_counts_once_it_has_its_checksum(features):
    file, _ = features
    with file.sums.open("r+b") as opened:
        opened.truncate(8 * 3 + 5)
    assert file.finished(2) == 2
    assert file.path.stat().st_size == 2 * 24
    assert file.sums.stat().st_size == 2 * 8
    file.sums.unlink()
    assert file.finished(2) == 0


def test_images_may_be_written_in_any_order_and_count_up_to_the_first_that_is_missing(features, tmp_path):
    one, stored = features
    file = FeatureFile(tmp_path / "features" / "test.f32", 6, 2, 3)
    file.begin()
    assert file.finished(1) == 0
    for first in (0, 4, 2, 1, 3):
        file.write(first, stored[first : first + (1 if first < 4 else 2)])
    assert (file.path.read_bytes(), file.sums.read_bytes()) == (one.path.read_bytes(), one.sums.read_bytes())
    assert file.finished(4) == 6
    with file.sums.open("r+b") as opened:  # as another process leaves it that was killed at image 3
        opened.seek(3 * 8)
        opened.write(bytes(8))
    assert (file.finished(2), file.path.stat().st_size) == (2, 2 * 24)


def test_a_file_is_told_from_others(features, tmp_path):
    file, _ = features
    identity, other = file.begin(), FeatureFile(tmp_path / "other" / "train.f32", 6, 2, 3)
    assert (file.is_at(identity), other.is_at(identity)) == (True, False)
    other.begin()
    assert not other.is_at(identity)
    assert FeatureFile(file.path, 6, 2, 3).is_at(identity)


def test_removing_features_leaves_no_checksums(features):
    file, _ = features
    file.remove()
    assert not list(file.path.parent.iterdir())
