"""What would a search have found? Replays its rounds on the losses of a search that measured every plan there is.

    toast search search.halves=false search.beam=20000 search.rounds=1 fit.sequential=false hydra.run.dir=here   # all plans of up to six blocks of twelve
    python scripts/replay_search.py here      # any runs made like this

For each number of blocks removed: the rank of the best measured plan among all plans (how much more it loses than the
best of all) and how many were measured, for some beams and for weaker and stronger damping of what is learned about
pairs.
"""

import sys
from pathlib import Path

from toast_cli.plans import Plan
from toast_cli.runs.results import read_csv
from toast_cli.runs.searched import Candidate
from toast_cli.search import paths as frontier

ROUNDS = 6


def replay(table: dict[Plan, float], beam: int) -> dict[Plan, float]:
    """The plans that a search measures, with their losses; ``table`` holds those of all plans."""
    single = {plan.spans[0]: loss for plan, loss in table.items() if len(plan.spans) == 1}
    depth = int(max(span.end for span in single)) + 1
    most = max(plan.blocks_removed for plan in table)
    measured = {Plan((span,)): loss for span, loss in single.items()}
    pools = frontier.shortest(single, depth, most, frontier.POOL * beam).values()
    for _ in range(ROUNDS):
        measured |= {plan: table[plan] for plan in frontier.promising(pools, single, measured, beam)}
    return measured


def report(folder: Path) -> None:
    """Print a line for each beam and damping."""
    rows = read_csv(folder / "search.csv", Candidate)
    table = {Plan.parse(row.plan): row.loss - row.loss_original for row in rows}
    print(f"{folder}: {len(table)} plans")
    for beam, damping in ((8, 0.5), (12, 0.5), (16, 0.5), (12, 0.2), (12, 1.0)):
        frontier._DAMPING = damping
        measured = replay(table, beam)
        told = []
        for removed in sorted({plan.blocks_removed for plan in table}):
            losses = sorted(loss for plan, loss in table.items() if plan.blocks_removed == removed)
            own = [loss for plan, loss in measured.items() if plan.blocks_removed == removed]
            told.append(f"{losses.index(min(own)) + 1} (+{min(own) - losses[0]:.3f}) of {len(own)}/{len(losses)}")
        print(f"  beam {beam:2d}, damping {damping}: " + ", ".join(told))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        report(Path(argument))
