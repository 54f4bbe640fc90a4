"""The rows of the tables that ``toast run`` writes: a dataclass for each table, its fields in the order of the columns.

Those of eval=segmentation are in segmented.py, those of a search in searched.py, and those of other commands in measured.py.
"""

from dataclasses import dataclass
from typing import TypeAlias

Number: TypeAlias = int | float  # an int if it is whole, also in the file: what was always whole reads as it did


@dataclass(frozen=True)
class Row:
    """One plan and seed. The order of the fields is that of the columns of ``results.csv``.

    ``seed`` is the probe's, ``data_seed`` that of the draws. ``spans_start_end`` is a JSON list of [s, e], where −1 is
    the stem and 8.5 the point ``9a``; ``blocks_removed`` counts half a block as 0.5. ``fit_images`` … ``test_images`` are the
    numbers of images used; the untouched model needs no fit images.
    ``fit_r2`` and ``fit_rank`` are the lowest among the plan's spans, empty if it has none. ``sequential``: each map
    was fitted on what the maps before it produce; ``healed``: so were further maps and the blocks behind the first.
    Accuracies and ratios are fractions; ``accuracy_delta`` = accuracy − accuracy_original, so a loss is negative.
    ``accuracy_delta_relative`` is its share of accuracy_original, empty if that is 0. ``held_out_r2``: the lowest R² among
    the spans on fit images that the map was not fitted on, see ``BaseTranslator``. ``ece``: the expected calibration error
    of the probe on the test images, see ``probes/judged.py``; empty for a probe without probabilities.

    The fields with defaults were added later; a file that ends before one of them is read with the default.
    """

    model: str
    data: str
    translator: str
    plan: str
    spans_start_end: str
    blocks_removed: Number
    seed: int
    fit_data: str
    fit_images: int
    data_seed: int
    train_images: int
    test_images: int
    probe: str
    accuracy: float
    accuracy_original: float
    accuracy_delta: float
    params: int
    params_original: int
    params_ratio: float
    gflops: float
    gflops_original: float
    gflops_ratio: float
    fit_r2: float | None
    fit_rank: int | None
    sequential: bool
    tokens: str
    solver: str
    readout: str
    protocol: str
    precision: str
    device: str
    accuracy_delta_relative: float | None = None
    held_out_r2: float | None = None
    healed: bool = False
    ece: float | None = None


@dataclass(frozen=True)
class Summary:
    """One plan over all seeds: a line of ``summary.csv``. Standard deviations are of the sample, empty for one seed.

    ``best_trade_off``: no other plan is at least as accurate for no more GFLOPs. ``accuracy_delta_relative_mean`` is the
    mean of the rows' relative changes, ``ece`` that of theirs. Defaults are as in ``Row``.
    """

    model: str
    data: str
    translator: str
    plan: str
    blocks_removed: Number
    fit_images: int
    sequential: bool
    seeds: int
    accuracy_mean: float
    accuracy_std: float | None
    accuracy_delta_mean: float
    accuracy_delta_std: float | None
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    fit_r2: float | None
    fit_rank: int | None
    best_trade_off: bool
    accuracy_delta_relative_mean: float | None = None
    held_out_r2: float | None = None
    healed: bool = False
    ece: float | None = None


@dataclass(frozen=True)
class Raced:
    """One plan in a race over all seeds; the order of the fields is that of the columns of ``race.csv``.

    ``outcome`` is

    - ``racing``: goes on to the next round
    - ``beaten``: a plan of its size is better at the stated confidence
    - ``halved``: may still be the best, but was not among those of its size that ``sweep.keep`` lets go on, by their scores
    - ``finished``: went on to all images, which is where its numbers are from.

    Numbers are from the plan's last round, number ``round``, whose probe was trained on ``train_images`` images and tested
    on ``test_images``. ``accuracy_low`` and ``accuracy_high`` bound the accuracy of that probe on all test images, plan by plan.
    ``accuracy_original`` is the untouched model's in the same round. ``best`` is the plan of its size with the highest ``score`` in
    that round, ``behind`` = accuracy − that plan's, and ``behind_low`` and ``behind_high`` bound it on all test images, for all
    plans and rounds together. ``score`` is the share of all the round's images, train and test, that probes classify correctly which
    have not seen them. Of finished plans, ``best`` is the most accurate one, and none has a score.
    """

    model: str
    data: str
    translator: str
    plan: str
    blocks_removed: Number
    fit_images: int
    sequential: bool
    healed: bool
    probe: str
    seeds: int
    data_seed: int
    round: int
    outcome: str
    train_images: int
    test_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_original: float
    best: str
    behind: float | None
    behind_low: float | None
    behind_high: float | None
    params_ratio: float
    gflops_ratio: float
    score: float | None = None
