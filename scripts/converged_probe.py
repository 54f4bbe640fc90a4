"""What a probe that has converged says of a run's features, beside the paper's five epochs.

    toast run ... keep_features=true hydra.run.dir=here
    python scripts/converged_probe.py here none 10-11 9-11

Logistic regression on standardised features, its strength fixed at C = 0.01, nothing chosen on test.
"""

import argparse
import json
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toast_cli.features import FeatureFile
from toast_cli.results import Row, read_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a complete run with keep_features=true")
    parser.add_argument("plans", nargs="+", help="plans of that run, such as none 9-11")
    args = parser.parse_args()

    data = instantiate(OmegaConf.load(args.folder / "config.yaml").data)
    rows = read_csv(args.folder / "results.csv", Row)
    plans = list(dict.fromkeys(row.plan for row in rows))
    train, test = (read(args.folder, name, len(getattr(data, name)), len(plans)) for name in ("train", "test"))
    train_labels, test_labels = data.train.labels[train.positions], data.test.labels[test.positions]
    for plan in args.plans:
        number = plans.index(plan)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        probe.fit(train[:][:, number], train_labels)
        short = [row.accuracy for row in rows if row.plan == plan]
        found = {
            "plan": plan,
            "converged": probe.score(test[:][:, number], test_labels),
            "five epochs": sum(short) / len(short),
        }
        print(json.dumps(found))


def read(folder: Path, name: str, images: int, plans: int):
    path = folder / "features" / f"{name}.f32"
    return FeatureFile(path, images, plans, path.stat().st_size // (4 * images * plans)).read()


if __name__ == "__main__":
    main()
