import threading
import time
from functools import partial

import pytest
import torch

from toast_cli.machine.behind import behind, on_its_way


def test_tasks_are_done_in_order_by_another_thread_while_the_first_goes_on():
    done: list[tuple[int, int]] = []
    gate = threading.Event()

    def task(number: int) -> None:
        gate.wait(10)
        done.append((number, threading.get_ident()))

    with behind() as then:
        then(partial(task, 0))
        then(partial(task, 1))
        assert done == [], "nobody has waited for them"
        gate.set()
        for number in range(2, 9):
            then(partial(task, number))
            assert len(done) > number - 3, "a third task that waits would be one too many"
    numbers, threads = zip(*done, strict=True)
    assert numbers == tuple(range(9))
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("tasks", [1, 5])
def test_what_a_task_raises_is_raised(tasks: int):
    done: list[int] = []

    def task(number: int) -> None:
        if number == 0:
            raise OSError(28, "No space left on device")
        done.append(number)

    def work() -> None:
        with behind() as then:
            for number in range(tasks):
                then(partial(task, number))

    with pytest.raises(OSError, match="No space left"):
        work()
    assert done == list(range(1, 3 if tasks == 5 else 1)), "no more is begun"


def test_what_is_computed_is_not_lost_when_the_first_thread_is_interrupted():
    done: list[int] = []

    def work() -> None:
        with behind() as then:
            then(lambda: time.sleep(0.05))
            then(lambda: done.append(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]


def test_values_arrive():
    values = torch.arange(6.0).view(2, 3)
    assert (on_its_way(values)() == values.numpy()).all()


def test_values_of_a_gpu_are_sent_at_once_and_waited_for_later(monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking, "or the thread that waits would keep a core busy"

        def record(self) -> None:
            events.append("record")

        def synchronize(self) -> None:
            events.append("synchronize")

    class OnGpu:
        shape, dtype, device = (2,), torch.float32, torch.device("cuda")

    class Pinned:
        def copy_(self, values: object, non_blocking: bool) -> None:
            events.append("copy" if non_blocking else "wait")

        def numpy(self) -> str:
            return "values"

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: Pinned() if pin_memory else None)
    arrived = on_its_way(OnGpu())
    assert events == ["copy", "record"]
    assert arrived() == "values"
    assert events == ["copy", "record", "synchronize"]
