"""``toast search``: the best plan under a budget. Config in, front.csv out.

Every single span is measured; what several spans cost together is predicted from that; the most promising plans are measured
in one walk, predictions corrected by what was measured, and so on until nothing new is promising. All on held-out train
images. The plans found are refitted, and meet the test images once.
"""

from dataclasses import dataclass, replace
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from toast_cli.budget import Budget
from toast_cli.console import say
from toast_cli.errors import ToastError, require_flag, require_group
from toast_cli.figures import save
from toast_cli.fitting import fit
from toast_cli.folders import RunFolder
from toast_cli.forecast import announce
from toast_cli.frontier import POOL, possible, promising, shortest
from toast_cli.job import Job
from toast_cli.plans import Plan, Variant, every_span
from toast_cli.results import read_csv, summarise, write_csv
from toast_cli.rows import Candidate, Found, Row, Summary
from toast_cli.run import prepare
from toast_cli.search_figure import picture
from toast_cli.sizes import Sizes
from toast_cli.stages import encode, modules, score
from toast_cli.survey import Survey, scored

# Of the summary's line, ``best_trade_off`` among them, which is said anew of the plans found.
_SHARED = [name for name in Found.__annotations__ if name in Summary.__annotations__]


@dataclass(frozen=True)
class Settings:
    """``conf/search.yaml``'s group ``search``."""

    beside: tuple[str, ...]
    blocks: int | None
    images: int
    beam: int
    rounds: int

    @classmethod
    def check(cls, given: Any) -> "Settings":
        """Raises ToastError for a value that cannot be used."""
        given = require_group(given, "search", cls.__dataclass_fields__)
        for key in ("images", "beam", "rounds", "blocks"):
            value = given[key]
            if (key != "blocks" or value is not None) and (type(value) is not int or value < 1):
                raise ToastError(f"search.{key}={value} cannot be used: give a whole number from 1.")
        beside = given["beside"]
        if not isinstance(beside, list) or not all(isinstance(name, str) for name in beside):
            raise ToastError(
                f"search.beside={beside} is no list of translators: write search.beside=[identity], or [] for none."
            )
        return cls(**{**given, "beside": tuple(dict.fromkeys(beside))})


def search(cfg: DictConfig, folder: RunFolder) -> None:
    """Fit, measure, choose, test. Raises ToastError for what a person must mend, a budget that no plan meets among it."""
    settings, own = Settings.check(_plain(cfg.search)), instantiate(cfg.translator).name
    _refuse_what_is_for_runs(cfg)
    refit = require_flag(cfg.fit.sequential, "fit.sequential")
    names = ("", *(name for name in settings.beside if name != own))

    def singles(depth: int) -> list[Plan]:
        _budget(cfg, settings, depth)  # before the folder records that a run has begun
        return [Plan(), *_singles(depth, names)]

    with folder.stage("load"):
        job = prepare(cfg, folder, singles)
        budget = _budget(cfg, settings, job.backbone.depth)
    with folder.stage("fit"):
        survey = Survey(job, settings.images)
    with folder.stage("measure"):
        sizes = _look_around(survey, settings, budget, names)
    kinds = (False, True) if refit else (False,)
    if not (folder / "front.csv").is_file():  # the last table: what comes after it needs no features
        best = _found(survey, sizes)
        plans = dict.fromkeys([Plan(), *best, *(survey.rival(plan.blocks_removed) for plan in best)])
        final = replace(job, plans=list(plans), sequential=kinds, stage="front-")
        announce(final, memory=False)
        with folder.stage("refit"):
            fitted = fit(final)
        maps = modules(final, fitted)
        with folder.stage("encode"):  # the front needs the features too, where all rows are there already
            encode(final, maps)
        with folder.stage("probe"):
            score(final, fitted, maps)
        write_csv(folder / "summary.csv", summarise(read_csv(folder / "results.csv", Row)), Summary)
        write_csv(folder / "front.csv", _front(final, best, survey, sizes, len(names)), Found)
    found = read_csv(folder / "front.csv", Found)
    if budget.given and not any(row.chosen for row in found):
        say(f"As refitted and timed, none of the plans found meets {budget}: the front is there to choose from.")
    save(picture(list(survey.measured.values()), found), folder / "front")
    for file in (folder / "features").glob("*.f32"):  # those of a round that was killed at its end among them
        file.unlink()
    folder.finish()


def _refuse_what_is_for_runs(cfg: DictConfig) -> None:
    if cfg.spans not in (None, "none"):
        raise ToastError(
            f"spans={cfg.spans} is not for toast search, which finds the spans: leave it out, or use toast run."
        )
    if require_flag(cfg.keep_features, "keep_features") or cfg.features_from is not None:
        raise ToastError(
            "keep_features and features_from are not for toast search, which encodes round by round: leave them out, or use toast run."
        )
    if OmegaConf.is_list(cfg.data.fit_images) and len(cfg.data.fit_images) > 1:
        raise ToastError(
            f"data.fit_images={cfg.data.fit_images} are several numbers, and toast search fits its maps once: give one, such as 500."
        )


def _singles(depth: int, names: tuple[str, ...], most: int | None = None) -> list[Plan]:
    """Every span that removes up to ``most`` blocks, with each translator."""
    spans = [plan.spans[0] for plan in every_span(depth) if plan.blocks_removed <= (most or depth)]
    return [Plan((replace(span, translator=name),)) for span in spans for name in names]


def _plain(given: Any) -> Any:
    return OmegaConf.to_container(given) if OmegaConf.is_config(given) else given


def _budget(cfg: DictConfig, settings: Settings, depth: int) -> Budget:
    """What the settings ask for of a model of ``depth`` blocks. Raises ToastError for what cannot be had."""
    budget = Budget.check(_plain(cfg.budget), _plain(cfg.target), depth)
    if settings.blocks is not None and not (budget.blocks or 1) <= settings.blocks < depth:
        raise ToastError(
            f"search.blocks={settings.blocks} cannot be used: give a whole number from {budget.blocks or 1} to {depth - 1}."
        )
    return budget


def _look_around(survey: Survey, settings: Settings, budget: Budget, names: tuple[str, ...]) -> Sizes:
    """Measure round by round until nothing new is promising; returns what plans cost."""
    depth, sizes = survey.job.backbone.depth, Sizes(survey, budget)
    most = settings.blocks or _most(budget, depth, sizes)
    if not survey.measured:
        survey.measure(_singles(depth, names, most), {})
    original = next(iter(survey.measured.values())).loss_original
    paths = shortest(survey.single, depth, most, POOL * settings.beam)
    within = [[plan for plan in plans if sizes.budget.holds(plan, sizes(plan))] for plans in paths.values()]
    # What the rounds before have found decides the next, so that a search that was killed goes on alike.
    while survey.rounds <= settings.rounds:
        losses = {plan: row.loss - original for plan, row in survey.measured.items()}
        new = promising(within, survey.single, losses, settings.beam)
        if not new:
            break
        survey.measure(new, {plan: original + loss for plan, loss in new.items()})
    return sizes


def _most(budget: Budget, depth: int, sizes: Sizes) -> int:
    """How many blocks may leave where nobody has said so: any number where only accuracy is given."""
    return depth - 1 if budget.accuracy_drop is not None else max(depth // 2, sizes.blocks_needed(depth))


def _found(survey: Survey, sizes: Sizes) -> list[Plan]:
    """The best of those measured for each number of blocks removed that meets the budget, and the answer to it or the target."""
    measured = survey.measured
    best: dict[int, Plan] = {}
    for plan in sorted(measured, key=lambda plan: measured[plan].loss):
        if sizes.budget.holds(plan, sizes(plan)):
            best.setdefault(plan.blocks_removed, plan)
    answer = sizes.budget.choose(measured, sizes, lambda p: measured[p].loss, lambda p: _drop(measured[p]))
    if answer is None and sizes.budget.given:
        smallest = min(measured, key=lambda plan: sizes(plan)["gflops"])
        raise ToastError(
            f"No plan that was measured meets {sizes.budget}: the smallest, {smallest}, has "
            f"{', '.join(f'{key} {value:.3f}' for key, value in sizes(smallest).items())} and a held-out accuracy drop of "
            f"{_drop(measured[smallest]):.3f}; ask for less, or let more blocks leave with search.blocks."
        )
    return sorted({*best.values(), *([answer] if answer else [])}, key=lambda plan: (plan.blocks_removed, plan))


def _drop(row: Candidate) -> float:
    return row.held_out_accuracy_original - row.held_out_accuracy


def _front(final: Job, best: list[Plan], survey: Survey, sizes: Sizes, translators: int) -> list[Found]:
    """The plans found, each with the fit that is better on held-out images, and their test accuracies beside their rivals'."""
    scores = dict(zip(final.variants, scored(final, survey.positions), strict=True))
    tested = {(line.plan, line.sequential): line for line in read_csv(final.folder / "summary.csv", Summary)}
    original, depth = scores[final.variants[0]], final.backbone.depth
    better: dict[Plan, Variant] = {}
    for variant in (variant for variant in final.variants if variant.plan in best):
        held = better.setdefault(variant.plan, variant)
        better[variant.plan] = min(held, variant, key=lambda each: scores[each].loss)
    sizes.time(list(better))
    chosen = sizes.budget.choose(
        better, sizes, lambda p: scores[better[p]].loss, lambda p: original.accuracy - scores[better[p]].accuracy
    )
    found = []
    for plan, variant in better.items():
        held_out, line = scores[variant], tested[str(plan), variant.sequential]
        after, rival = tested.get((str(plan), True)), survey.rival(plan.blocks_removed)
        found.append(
            Found(
                **{name: getattr(line, name) for name in _SHARED},
                loss_predicted=survey.measured[plan].loss_predicted,
                loss_independent=scores[Variant(plan, variant.fit_images)].loss,
                loss=held_out.loss,
                loss_original=original.loss,
                held_out_accuracy=held_out.accuracy,
                held_out_accuracy_delta=held_out.accuracy - original.accuracy,
                accuracy_independent=tested[str(plan), False].accuracy_mean,
                accuracy_sequential=after.accuracy_mean if after else None,
                rival=str(rival),
                rival_loss=survey.measured[rival].loss,
                rival_accuracy=tested[str(rival), False].accuracy_mean,
                latency_ratio=sizes(plan).get("latency"),
                measured=sum(row.blocks_removed == plan.blocks_removed for row in survey.measured.values()),
                possible=possible(depth, plan.blocks_removed, translators),
                chosen=sizes.budget.given and plan == chosen,
            )
        )
    return [
        replace(row, best_trade_off=not any(other.gflops <= row.gflops and other.loss < row.loss for other in found))
        for row in found
    ]
