"""``toast search``: the best plan under a budget.

Every single span is measured; what several spans cost together is predicted from that; the most promising plans are
measured in one walk; the predictions are corrected by what was measured, and so on until nothing new is promising. All
of this uses held-out train images. The plans found are refitted, and see the test images once, as do their baselines.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toast_cli.errors import ToastError, require_flag
from toast_cli.launch import launch_in_folder
from toast_cli.report.settings import Help
from toast_cli.runs import contents

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.models.backbone import Backbone
    from toast_cli.plans import Fit, Plan
    from toast_cli.runs.folder import RunFolder
    from toast_cli.search.budget import Budget
    from toast_cli.search.measured import Survey
    from toast_cli.search.settings import Settings
    from toast_cli.search.sizes import Sizes
    from toast_cli.stages.job import Job
    from toast_cli.translators.base import BaseTranslator

_REFITS_WITH_HEALING = 4

USAGE = "search [key=value ...]"
SUMMARY = "the best plan under a budget, of any number of spans"
HELP = Help(
    "the best plan of any number of spans under a budget, chosen on held-out train images, scored on test once.",
    """\
toast search                                               the best plans of the embedded model, for 1 to 6 blocks removed
toast search budget.gflops=0.75                            the best with at most three quarters of the operations
toast search target.accuracy_drop=0.01                     the smallest within a point of accuracy
toast search model=vit_s data=cifar10 budget.blocks=4 probe=logistic""",
    """\
Run the same command again to go on from the last round. Results are in
outputs/search/<model>-<data>-<translator>-<hash>: front.csv (the plans found), baselines.csv (what others would
remove), search.csv (all that were measured), results.csv (test accuracies of the plans found, their rivals and baselines), front.png.""",
)


def main(argv: list[str]) -> None:
    """Search in the folder that the settings name, and print the front."""
    launch_in_folder("search", argv, HELP, [contents.FRONT], search, _show)


def _show(path: Path) -> None:
    from toast_cli.report.changed import read_table
    from toast_cli.report.found import print_found
    from toast_cli.runs.searched import Baseline, Found

    found, baselines = read_table(path / contents.FRONT, Found), read_table(path / contents.BASELINES, Baseline)
    print_found(found, baselines, path)


def search(cfg: "DictConfig", folder: "RunFolder") -> None:
    """Fit, measure, choose, test. Raises ToastError for invalid settings, and for a budget that no plan meets."""
    from toast_cli.search.settings import Settings
    from toast_cli.stages.settings import check, plain

    settings = Settings.check(plain(cfg.search))
    _refuse_what_is_for_runs(cfg)
    check(cfg)

    from toast_cli.machine.console import say
    from toast_cli.models.halves import can_be_halved
    from toast_cli.plans import HEALED, INDEPENDENT, Plan
    from toast_cli.report.answer import Measured
    from toast_cli.report.figures import files_of
    from toast_cli.runs.searched import Baseline, Found
    from toast_cli.search.figure import picture
    from toast_cli.search.front import leading
    from toast_cli.search.measured import Survey
    from toast_cli.search.rounds import measure_rounds, single_spans
    from toast_cli.stages.load import begin, make_translator

    own = make_translator(cfg)
    names = ("", *(name for name in settings.beside if name != own.name))
    fitted = _fitted(names, own, settings)

    def singles(backbone: "Backbone") -> list[Plan]:
        _budget(cfg, settings, backbone.depth)  # checked before the folder records that a run has begun
        parts = 2 if settings.halves and can_be_halved(backbone.blocks) else 1
        return [Plan(), *single_spans(backbone.depth, fitted, parts=parts)]

    with folder.stage("load"):
        job = begin(cfg, folder, singles, fit=INDEPENDENT)
        budget = _budget(cfg, settings, job.backbone.depth)
        kinds = _kinds(cfg, job)
    with folder.stage("fit"):
        survey = Survey(job, settings.images, settings.penalty)
        if settings.halves and survey.parts == 1:
            say(
                "note: The model's blocks have no latent between attention and MLP: the search takes whole blocks only."
            )
    with folder.stage("measure"):
        sizes = measure_rounds(survey, settings, budget, names)
        count = _REFITS_WITH_HEALING if settings.refits is None and HEALED in kinds else settings.refits or 0
        survey.refit(leading(survey, sizes, count), kinds)
    if not (folder / contents.FRONT).is_file():  # the last table: what comes after it needs no features
        _test(folder, survey, sizes, settings, kinds, len(names))
    found = folder.rows(contents.FRONT, Found)
    if budget.given and not any(row.chosen for row in found):
        _say_that_none_is_chosen(budget)
    known = Measured(folder.path)
    intervals = [known.interval(row) for row in found]
    figure = picture(list(survey.measured.values()), found, folder.rows(contents.BASELINES, Baseline), intervals)
    for name, content in files_of(figure, contents.FRONT_PICTURE).items():
        folder.write(name, content)
    contents.remove_features(folder.path)  # also those of a round that was killed at its end
    folder.finish()


def _final(survey: "Survey", best: "list[Plan]", baselines: "list[Plan]", kinds: "tuple[Fit, ...]") -> "Job":
    """The job of the plans found in all ways of ``kinds``, of their rivals, and of ``baselines`` as they are."""
    from toast_cli.plans import Plan

    plans = dict.fromkeys([Plan(), *best, *(survey.rival(plan.blocks_removed) for plan in best), *baselines])
    prefix, unrefitted = contents.front_prefix(), {*baselines} - {*best}
    return replace(survey.job, plans=list(plans), fits=kinds, unrefitted=unrefitted, feature_prefix=prefix)


def _test(
    folder: "RunFolder",
    survey: "Survey",
    sizes: "Sizes",
    settings: "Settings",
    kinds: "tuple[Fit, ...]",
    translators: int,
) -> None:
    """Fit the plans found in all ways of ``kinds``, encode and probe them with their baselines, and write both tables."""
    from toast_cli.runs.results import summarise
    from toast_cli.runs.rows import Row, Summary
    from toast_cli.runs.searched import Baseline, Found
    from toast_cli.search.baselines import plans_of, rows_of
    from toast_cli.search.front import best_measured, front_of
    from toast_cli.stages.encode import encode
    from toast_cli.stages.fit import fit
    from toast_cli.stages.forecast import announce
    from toast_cli.stages.heal import remove_others
    from toast_cli.stages.probe import score

    best = best_measured(survey, sizes)
    with folder.stage("baselines"):
        baselines = plans_of(survey.job, settings.baselines, (plan.blocks_removed for plan in best))
    final = _final(survey, best, [plan for plans in baselines.values() for plan in plans], kinds)
    announce(final, memory=False)
    with folder.stage("fit"):
        fitted = fit(final)
    maps = final.modules(fitted)
    with folder.stage("encode"):  # the front needs the features even if all rows exist
        encode(final, maps)
    remove_others(final)
    with folder.stage("probe"):
        score(final, fitted, maps)
    folder.write_rows(contents.SUMMARY, summarise(folder.rows(contents.RESULTS, Row)), Summary)
    if settings.baselines:
        folder.write_rows(contents.BASELINES, rows_of(final, baselines, survey), Baseline)
    folder.write_rows(contents.FRONT, front_of(final, best, survey, sizes, translators), Found)


def _kinds(cfg: "DictConfig", job: "Job") -> "tuple[Fit, ...]":
    """The ways to fit the plans found, of which the best is kept; healed only if the model's blocks can be."""
    from toast_cli.machine.console import say
    from toast_cli.models.branches import require_branches
    from toast_cli.plans import HEALED, INDEPENDENT, SEQUENTIAL

    asked = {SEQUENTIAL: ("sequential", cfg.fit.sequential), HEALED: ("heal", cfg.fit.heal)}
    wanted = [kind for kind, (name, value) in asked.items() if require_flag(value, f"fit.{name}")]
    if HEALED in wanted:
        try:
            require_branches(job.backbone.blocks)
        except ToastError as e:
            say(f"note: {e} The plans found are not healed.")
            wanted.remove(HEALED)
    return (INDEPENDENT, *wanted)


def _say_that_none_is_chosen(budget: "Budget") -> None:
    from toast_cli.machine.console import say

    say(f"None of the plans found meets {budget} after the final fit and timing: choose one from the front.")


def _refuse_what_is_for_runs(cfg: "DictConfig") -> None:
    """Raises ToastError for settings that a search would ignore."""
    from omegaconf import OmegaConf

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
            f"data.fit_images={cfg.data.fit_images} has several values, but toast search fits its maps once: give one, such as 500."
        )


def _fitted(names: tuple[str, ...], own: "BaseTranslator", settings: "Settings") -> tuple[str, ...]:
    """The translators to fit for each span: those that the search tries, and the identity, which baselines need.

    Raises ToastError if the search's ``own`` translator does not mix with the identity.
    """
    from toast_cli.translators.base import ClosedForm

    if not settings.baselines or "identity" in (own.name, *names):
        return names
    if not isinstance(own, ClosedForm):
        raise ToastError(
            f"search.baselines=[{','.join(settings.baselines)}] needs identity maps, which do not mix with translator={own.name}, a trained one: use "
            "search.baselines=[], or a translator in closed form such as linear."
        )
    return (*names, "identity")


def _budget(cfg: "DictConfig", settings: "Settings", depth: int) -> "Budget":
    """What the settings ask of a model of ``depth`` blocks. Raises ToastError for what is not possible."""
    from toast_cli.search.budget import Budget
    from toast_cli.stages.settings import plain

    budget = Budget.check(plain(cfg.budget), plain(cfg.target), depth)
    if settings.blocks is not None and not (budget.blocks or 1) <= settings.blocks < depth:
        raise ToastError(
            f"search.blocks={settings.blocks} cannot be used: give a whole number from {budget.blocks or 1} to {depth - 1}."
        )
    return budget
