"""How long the same plan takes as several runs have fitted it: healed or not, with one map or another.

    toast run -m translator=linear,context fit.heal=false,true spans=[2-5] hydra.sweep.dir=here
    python scripts/latency_of_runs.py 2-5 here/*/

For batches of 1 and 16 images: milliseconds of the first run's shortened model (median), and the time of each other one as a
share of it, the median over rounds in which all are called in turn, with quartiles. fp32, on the CPU.
"""

import sys
import tempfile
from pathlib import Path

import torch

from toast_cli.machine.timing import call, quartiles, rounds
from toast_cli.stages.choice import rows_of
from toast_cli.stages.deploy import deployed
from toast_cli.stages.reopen import reopen

HOW = {"device": "cpu", "batch_size": "auto", "workers": 0}
SECONDS = 20.0


def main(plan: str, folders: list[Path]) -> None:
    models = []
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            run = reopen(folder, rows_of(folder, plan, 0)[0], 0, HOW, Path(scratch))
            models.append(deployed(run, with_head=False, seed=0)[0])
            side = run.job.backbone.image_size
    for batch in (1, 16):
        images = torch.randn(batch, 3, side, side)
        times = rounds([call(model, images) for model in models], SECONDS)
        print(f"batch {batch}: {len(times[0])} rounds, {1e3 * quartiles(times[0])[1]:.2f} ms as in {folders[0].name}")
        for folder, own in zip(folders[1:], times[1:], strict=True):
            low, middle, high = quartiles([one / first for one, first in zip(own, times[0], strict=True)])
            print(f"  {middle:.3f} ({low:.3f} to {high:.3f})  {folder.name}")


if __name__ == "__main__":
    main(sys.argv[1], [Path(text) for text in sys.argv[2:]])
