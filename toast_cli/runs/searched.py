"""The rows of the tables that ``toast search`` writes, as in rows.py."""

from dataclasses import dataclass

from toast_cli.runs.rows import Number


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
