"""The rows of the tables that toast writes: a dataclass for each table, its fields in the order of the columns.

Those of eval=segmentation are in segmented.py.
"""

from dataclasses import dataclass
from typing import TypeAlias

Number: TypeAlias = int | float  # an int if it is whole, also in the file: what was always whole reads as it did
MEASURES = ("cka", "cosine", "mse", "r2", "r2_identity")


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


@dataclass(frozen=True)
class Similarity:
    """One entry of a matrix; the order of the fields is that of the columns of ``similarity.csv``.

    ``kind`` is ``blocks`` (``source`` and ``target`` are latents: stem, 0, 1, …) or ``plans`` (the last latents of the
    untouched model, ``none``, and of a plan). ``measure`` is

    - ``cka``: linear CKA, see ``PairMoments.cka``
    - ``cosine``: mean over tokens of x·y / (‖x‖ ‖y‖)
    - ``mse``: mean over tokens and dimensions of (x − y)²
    - ``r2``: 1 − Σ‖y − x W‖² / Σ‖y − mean y‖² with W the least-squares map, like a run's ``fit_r2``
    - ``r2_identity``: the same without a map, W = 1, like the ``fit_r2`` of the identity translator.

    For blocks x is the source and y the target. For plans y is the untouched model's latent and x the plan's: how much
    of the untouched model's last latent the plan's still explains.

    ``fit_images`` is how many images the maps were fitted on or the blocks compared on; blocks have no ``translator``.
    """

    model: str
    data: str
    fit_images: int
    kind: str
    measure: str
    source: str
    target: str
    value: float
    translator: str
    sequential: bool
    tokens: str
    solver: str
    protocol: str
    precision: str
    healed: bool = False


@dataclass(frozen=True)
class Tuned:
    """One fine-tuned model; the order of the fields is that of the columns of ``finetune.csv``.

    ``accuracy_original`` is the untouched model's with the probe, ``accuracy_before`` the plan's with the probe that
    the head starts from, ``accuracy_after`` that of ``best_epoch``, which has the best ``held_out_accuracy``. All but
    the last are on test images. ``train_images`` are those trained on, without the ``held_out_images``.
    """

    model: str
    data: str
    translator: str
    plan: str
    blocks_removed: Number
    seed: int
    data_seed: int
    fit_images: int
    train_images: int
    held_out_images: int
    test_images: int
    train_maps: bool
    learning_rate: float
    encoder_learning_rate: float
    epochs: int
    best_epoch: int
    held_out_accuracy: float
    accuracy_original: float
    accuracy_before: float
    accuracy_after: float
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    precision: str
    device: str


@dataclass(frozen=True)
class Candidate:
    """A plan that a search has measured; the order of the fields is that of the columns of ``search.csv``.

    ``loss`` and ``held_out_accuracy`` are those of ``held_out.Score`` on train images, ``loss_predicted`` is the loss
    predicted before (empty in round 0, which measures single spans), and ``_original`` marks the untouched model's. A plan
    that was also fitted in another way, ``sequential`` or ``healed``, has another line for each.
    """

    model: str
    data: str
    translator: str
    plan: str
    blocks_removed: Number
    round: int
    loss_predicted: float | None
    loss: float
    loss_original: float
    held_out_accuracy: float
    held_out_accuracy_original: float
    held_out_images: int
    params_ratio: float
    gflops_ratio: float
    sequential: bool = False
    healed: bool = False


@dataclass(frozen=True)
class Found:
    """A plan that a search has found: a line of ``front.csv``. Losses and held-out accuracies are as in ``Candidate``.

    ``sequential`` or ``healed``: that fit is the best on held-out images. ``loss`` and ``accuracy_mean`` are those of the
    best fit; ``_independent``, ``_sequential`` and ``_healed`` mark those of each (empty where it changes nothing).
    ``loss_predicted`` is for the independent fit. ``rival`` is the plan to beat: the single span that removes as many
    blocks with the run's own translator and has the lowest held-out loss. Accuracies are means over seeds on test
    images. ``latency_ratio`` is empty unless asked for. ``best_trade_off``: no other plan found has less loss for no
    more GFLOPs. ``chosen``: the answer to the budget or target.
    """

    model: str
    data: str
    translator: str
    plan: str
    blocks_removed: Number
    sequential: bool
    loss_predicted: float | None
    loss_independent: float
    loss: float
    loss_original: float
    held_out_accuracy: float
    held_out_accuracy_delta: float
    seeds: int
    accuracy_mean: float
    accuracy_std: float | None
    accuracy_delta_mean: float
    accuracy_independent: float
    accuracy_sequential: float | None
    rival: str
    rival_loss: float
    rival_accuracy: float
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    latency_ratio: float | None
    measured: int
    possible: int
    best_trade_off: bool
    chosen: bool
    healed: bool = False
    accuracy_healed: float | None = None


@dataclass(frozen=True)
class Baseline:
    """What others would remove, as many blocks as a plan found: a line of ``baselines.csv``.

    Columns that ``front.csv`` has too mean the same. ``baseline`` is

    - ``last``: the last blocks
    - ``influence``: the blocks of least block influence, see ``search/influence.py``
    - ``random``: means over ``draws`` draws of blocks, all different.

    Nothing takes the place of the blocks. ``plan`` is empty for several draws, which ``results.csv`` has one by one.
    ``accuracy_std`` is that of the sample of all seeds and draws, empty if there is but one.
    """

    model: str
    data: str
    translator: str
    baseline: str
    plan: str
    draws: int
    blocks_removed: Number
    loss: float
    loss_original: float
    held_out_accuracy: float
    seeds: int
    accuracy_mean: float
    accuracy_std: float | None
    accuracy_delta_mean: float
    params_ratio: float
    gflops_ratio: float


@dataclass(frozen=True)
class Timing:
    """One model of a bench; the order of the fields is that of the columns of ``bench.csv``.

    Times and rates are medians over rounds, each of which runs every model once; ``_low`` and ``_high`` are the
    quartiles. Ratios are to the original, medians of the ratios within a round. ``batch_size`` is the best for the
    original, used for all. ``peak_memory_mb`` (1e6 bytes) is the most that the model and one such batch take; empty
    where it is not available (CPUs without Linux, Apple's GPUs).
    """

    model: str
    translator: str
    plan: str
    blocks_removed: Number
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    latency_ratio: float
    latency_rounds: int
    batch_size: int
    images_per_s: float
    images_per_s_low: float
    images_per_s_high: float
    images_per_s_ratio: float
    throughput_rounds: int
    peak_memory_mb: float | None
    peak_memory_ratio: float | None
    precision: str
    device: str
    threads: int
    healed: bool = False


@dataclass(frozen=True)
class Compared:
    """One ONNX file of a model that is exported in int8; the order of the fields is that of the columns of ``comparison.csv``.

    ``quantisation`` is that of the line in int8, with the number of its calibration images. ``size`` is the file's in bytes.
    ``accuracy`` is on ``test_images``, ``accuracy_delta`` = accuracy − that of fp32 on the same images, and ``_low`` and ``_high``
    are its 95% paired bootstrap interval; all empty for a model without a head. ``same_class`` is the share of these images
    whose largest output is that of fp32. Times are medians over rounds on the CPU, each of which runs every file once:
    ``latency_ms`` for one image, ``batch_ms`` for ``batch_size`` of them. Ratios are to fp32, medians and quartiles of the
    ratios within a round.
    """

    dtype: str
    quantisation: str
    calibration_images: int
    size: int
    test_images: int
    accuracy: float | None
    accuracy_delta: float | None
    accuracy_delta_low: float | None
    accuracy_delta_high: float | None
    same_class: float
    latency_ms: float
    latency_ratio: float
    latency_ratio_low: float
    latency_ratio_high: float
    batch_size: int
    batch_ms: float
    batch_ratio: float
    batch_ratio_low: float
    batch_ratio_high: float
    onnxruntime: str
