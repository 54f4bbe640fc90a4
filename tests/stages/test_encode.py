"""Who writes features where several processes encode; that they are right is in test_team.py."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest

from toast_cli.machine.team import Team
from toast_cli.runs.features import FeatureFile
from toast_cli.stages.encode import _writer


class Pair(Team):
    """One of two processes; what the other would have answered is in ``answers``."""

    answers: deque

    def share(self, value):
        return value if self.leads else self.answers.popleft()

    def unite(self, entries):
        return {**entries, 1 - self.rank: self.answers.popleft()}

    def gather(self, rows, most):
        return [rows, self.answers.popleft()] if self.leads else []


def pair(rank: int, *answers: object) -> Pair:
    team = Pair(rank, 2)
    object.__setattr__(team, "answers", deque(answers))
    return team


@pytest.fixture
def stored() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)


def test_each_process_writes_its_own_features_where_both_see_the_same_file(tmp_path: Path, stored: np.ndarray):
    files = [FeatureFile(tmp_path / "train.f32", 7, 2, 3) for _ in range(2)]
    first = _writer(files[0], pair(0, True), 2)
    second = _writer(files[1], pair(1, files[0]._identity(), True), 2)
    for write, start in ((second, 2), (second, 6), (first, 0), (first, 4)):
        write(start, stored[start : start + 2])
    assert (files[0].read()[:] == stored).all()


@pytest.mark.parametrize("theirs", ["nothing", "another file"])
def test_features_go_to_the_first_process_where_the_other_has_a_disk_of_its_own(
    theirs: str, tmp_path: Path, stored: np.ndarray
):
    files = [FeatureFile(tmp_path / name / "train.f32", 7, 2, 3) for name in ("one", "two")]
    if theirs == "another file":
        files[1].begin()
    first = _writer(files[0], pair(0, False, stored[2:4], stored[6:]), 2)
    second = _writer(files[1], pair(1, files[0]._identity(), True), 2)
    for start in (0, 4):
        second(start + 2, stored[start + 2 : start + 4])
        first(start, stored[start : start + 2])
    assert (files[0].read()[:] == stored).all()
    assert not files[1].path.is_file() or not files[1].path.stat().st_size
