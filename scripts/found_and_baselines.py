"""How far do plans found lie above their baselines? Changes of test accuracy in points, averaged over searches.

    toast search -m seeds=[0,1,2] data.seed=0,1,2 search.baselines=[last,influence,random] search.halves=false
    python scripts/found_and_baselines.py outputs/search/*/

A line for each number of blocks removed: the plan found with the least held-out loss, the single span that the same held-out
images rank first, and each baseline. Only sizes that all the searches have are shown.
"""

import argparse
from pathlib import Path

import pandas as pd

SIZE = "blocks_removed"


def changes(folder: Path) -> pd.DataFrame:
    """The changes of one search in points, a column for each kind of plan, by the number of blocks removed."""
    front = pd.read_csv(folder / "front.csv").sort_values("loss").drop_duplicates(SIZE).set_index(SIZE)
    original = front.accuracy_mean - front.accuracy_delta_mean
    lines = pd.DataFrame({"found": front.accuracy_delta_mean, "one span": front.rival_accuracy - original})
    others = pd.read_csv(folder / "baselines.csv")
    for name, own in others.groupby("baseline", sort=False):
        lines[name] = own.set_index(SIZE).accuracy_delta_mean
    return 100 * lines


def table(folders: list[Path]) -> pd.DataFrame:
    """The means over searches."""
    found = pd.concat([changes(folder) for folder in folders]).groupby(SIZE)
    return found.mean()[found.size() == len(folders)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    print(table(parser.parse_args().folders).round(1).to_string())
