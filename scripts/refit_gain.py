"""Does a sequential fit beat independent fits? On plans of linear maps alone, since refitting changes no identity.

    toast search -m seeds=[0,1,2] data.seed=0,1,2 search.halves=false
    toast run -m seeds=[0,1,2] data.seed=0,1,2 fit.sequential=false,true spans=$(python scripts/refit_gain.py plans outputs/search/*/)
    python scripts/refit_gain.py gain outputs/run/*/

``plans`` prints the best plans that searches have measured, of several spans with the run's own translator, ``--most``
each for four, five and six blocks removed. ``gain`` prints how many points of test accuracy the sequential fit adds,
averaged over draws and plans.
"""

import argparse
from pathlib import Path

import pandas as pd


def plans(folders: list[Path], most: int) -> str:
    """The plans as ``spans=`` takes them."""
    chosen: dict[str, None] = {}
    for folder in folders:
        table = pd.read_csv(folder / "search.csv").sort_values("loss")
        table = table[table.plan.str.contains("+", regex=False) & table.blocks_removed.between(4, 6)]
        for _, group in table.groupby("blocks_removed"):
            own = group.plan.str.replace(r":\w+", "", regex=True)
            chosen |= dict.fromkeys(own.drop_duplicates()[:most])
    return f"[{','.join(chosen)}]"


def gain(folders: list[Path]) -> pd.DataFrame:
    """A line for each number of blocks removed, and one for all, in which each number counts the same."""
    rows = pd.concat(pd.read_csv(folder / "results.csv") for folder in folders)
    rows = rows[rows.plan.str.contains("+", regex=False)]
    keys = ["blocks_removed", "data_seed", "plan"]
    fits = rows.groupby([*keys, "sequential"]).accuracy.mean().unstack().dropna()
    points = (100 * (fits[True] - fits[False])).groupby("blocks_removed")
    lines = pd.DataFrame(
        {"gain": points.mean(), "better": points.agg(lambda each: (each > 0).mean()), "pairs": points.size()}
    )
    lines.loc["all"] = [lines.gain.mean(), lines.better.mean(), lines.pairs.sum()]
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plans", "gain"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=20)
    args = parser.parse_args()
    print(plans(args.folders, args.most) if args.what == "plans" else gain(args.folders).round(2).to_string())
