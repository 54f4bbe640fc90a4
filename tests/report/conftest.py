"""A line of a report as merging runs gives it."""

from toast_cli.plans import Plan
from toast_cli.report.findings import Finding


def finding(
    plan: str, accuracy: float, data: str = "d", translator: str = "linear", noise: bool = False, **other
) -> Finding:
    removed = Plan.parse(plan).blocks_removed
    values = {
        "model": "m", "data": data, "fit_data": data, "translator": translator, "tokens": "shared", "solver": "exact", "sequential": False, "healed": False,
        "probe": "linear", "readout": "model", "protocol": "clean", "precision": "fp32", "plan": plan,
        "blocks_removed": removed, "fit_images": 500, "runs": 3, "test_images": 100, "accuracy_mean": accuracy,
        "accuracy_std": 0.01, "delta_mean": accuracy - 0.9, "delta_std": 0.01, "delta_relative_mean": accuracy / 0.9 - 1,
        "delta_low": 0.0, "delta_high": 0.0,
        "mcnemar_p": 1.0, "flip_rate": 0.0, "within_noise": noise, "params": 1, "params_ratio": 0.9, "gflops": 1.0,
        "gflops_ratio": 0.9, "fit_r2": 0.9, "held_out_r2": 0.8,
        "worst_class": None, "worst_class_delta": None, "worst_class_images": None, "class_correlation": None,
        "expected": None, "expected_delta": None,
    }  # fmt: skip
    return Finding(**values | other)
