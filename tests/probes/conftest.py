"""Features of several plans that a probe can learn from."""

import numpy as np


def problem(plans: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, P, F) of three classes, easier for some plans than for others; labels (N,)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, 700)
    centres = np.random.default_rng(9).normal(size=(3, 1, 6)) * np.linspace(0.2, 1.5, plans)[:, None]
    return (centres[labels] + generator.normal(size=(700, plans, 6))).astype(np.float32), labels
