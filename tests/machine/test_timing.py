"""Times are measured in turns, and the batch is as large as memory allows."""

import torch

from toast_cli.machine import timing


def test_calls_take_turns():
    order: list[str] = []
    times = timing.rounds([lambda: order.append("a"), lambda: order.append("b")], seconds=0, least=2)
    assert order == ["a", "b"] * 5, "three times to warm up, twice measured"
    assert [len(seen) for seen in times] == [2, 2]


def test_best_batch_stops_where_memory_runs_out():
    class Full(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError
            return x

    assert timing.best_batch(Full(), lambda count: torch.zeros(count, 3)) in (1, 2)
