"""How many plans of each size go on in a race, by how many there are and what they cost."""

from types import SimpleNamespace

import numpy as np

from toast_cli.plans import Plan, Variant
from toast_cli.stages.racing import Settings
from toast_cli.stages.schedule import Schedule


class Digits:
    """Stands for a split: so many images of ten classes."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count) % 10

    def __len__(self) -> int:
        return len(self.labels)


def schedule(plans: list[str], keep: float = 0.5) -> Schedule:
    data = SimpleNamespace(train=Digits(400), test=Digits(200), seed=0)
    variants = [Variant(Plan(), 0), *(Variant(Plan.parse(plan), 500) for plan in plans)]
    return Schedule.of(Settings(20, 0.95, keep), data, variants, depth=12)


def test_half_of_a_size_goes_on():
    plans = [f"{start}-{start + 1}" for start in range(11)]
    assert [schedule(plans).places((500, 1), finished) for finished in range(5)] == [11, 6, 3, 2, 1]


def test_cheap_plans_go_on_until_their_blocks_add_up_to_two_thirds():
    plans = [f"{start}-{start + length}" for length in (7, 8, 9, 10) for start in range(12 - length)]
    halved = schedule(plans)
    assert halved.rounds == 4
    assert [halved.places((500, length), 4) for length in (7, 8, 9, 10)] == [1, 2, 2, 2]  # of 5, 4, 3 and 2 plans
    assert [schedule(plans, keep=1).places((500, length), 4) for length in (7, 8, 9, 10)] == [5, 4, 3, 2]


def test_what_removes_every_block_goes_on():
    assert schedule(["stem-11", "stem-5+5-11"]).places((500, 12), 4) == 2
