"""The rows of the tables that ``toast similarity``, ``finetune``, ``bench`` and ``export`` write, as in rows.py."""

from dataclasses import dataclass

from toast_cli.runs.rows import Number

MEASURES = ("cka", "cosine", "mse", "r2", "r2_identity")


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
