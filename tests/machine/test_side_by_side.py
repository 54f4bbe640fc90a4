"""Parts of a batch, each by its own thread."""

import time
from threading import Event, current_thread, main_thread

import pytest
import torch
from torch import Tensor

from toast_cli.machine.side_by_side import GivenUpError, in_parts


@pytest.mark.usefixtures("two_threads")
def test_parts_have_a_thread_each_and_come_back_in_their_order():
    seen: list[tuple[int, bool, int]] = []

    def work(part: Tensor) -> Tensor:
        seen.append((len(part), current_thread() is main_thread(), torch.get_num_threads()))
        time.sleep(0.05 * (part[0].item() == 0))  # the first part comes last
        return part + 1

    assert torch.cat(in_parts(work, torch.arange(5))).tolist() == [1, 2, 3, 4, 5]
    assert sorted(seen) == [(2, False, 1), (3, False, 1)]
    assert torch.get_num_threads() == 2, "what is not in parts still has all threads"


@pytest.mark.usefixtures("two_threads")
def test_one_image_has_all_threads():
    assert in_parts(lambda part: part * torch.get_num_threads(), torch.ones(1)) == [2]


@pytest.mark.usefixtures("two_threads")
def test_one_thread_takes_the_batch_whole():
    torch.set_num_threads(1)
    assert in_parts(len, torch.ones(3)) == [3]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_when_a_part_fails_the_others_give_up_before_it_is_raised(error: BaseException):
    given_up, stopped = Event(), Event()

    def work(part: Tensor) -> Tensor:
        if part[0].item() == 0:
            raise error
        while not given_up.is_set():
            time.sleep(0.001)
        stopped.set()
        raise GivenUpError

    with pytest.raises(type(error)):
        in_parts(work, torch.arange(4), given_up)
    assert stopped.is_set(), "memory of the other part is free when the batch is halved"
    assert not given_up.is_set(), "the next batch begins anew"
