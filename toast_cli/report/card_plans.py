"""The plans of an exported model in words, as its model card shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

from toast_cli.plans import Plan, Span
from toast_cli.plans.points import point_text
from toast_cli.report.tables import in_markdown
from toast_cli.surgery.recipe import ELASTIC

_HOW = {
    "sequential": "Each map was fitted on what the maps before it produce.",
    "healed": "The blocks behind a map were refitted, in closed form, to what they receive there.",
    "fine_tuned": "Then it was fine-tuned.",
}


def is_of_several(recipe: Mapping[str, Any]) -> bool:
    """Whether the export that ``recipe`` describes holds several plans."""
    return recipe["format"] == ELASTIC


def plans_of(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the recipe of each plan would say if it were exported alone."""
    if not is_of_several(recipe):
        return [recipe]
    return [
        {**recipe, **entry, "row": row, **{key: row.get(key, False) for key in ("sequential", "healed")}}
        for entry, row in zip(recipe["plans"], recipe["row"], strict=True)
    ]


def words_of(recipe: Mapping[str, Any]) -> Iterator[str]:
    """The section on the plans in Markdown."""
    plans = plans_of(recipe)
    yield "## Plans" if is_of_several(recipe) else "## Plan"
    if is_of_several(recipe):
        yield ""
        yield "Each of them is what its own export would be; what they share is stored once."
    for plan in plans:
        yield ""
        if is_of_several(recipe):
            yield f"### {in_markdown(plan['plan'])}"
            yield ""
        yield from _words(plan)


def _words(recipe: Mapping[str, Any]) -> Iterator[str]:
    plan = Plan.parse(recipe["plan"])
    if not plan.spans:
        yield "No block has left: this is the untouched model."
        return
    count = plan.blocks_removed
    yield f"{in_markdown(str(plan))}: {count} {'block has' if count == 1 else 'blocks have'} left, and maps take their place."
    yield ""
    for span in plan.spans:
        yield f"- {_span(span, recipe)}"
    how = [sentence for key, sentence in _HOW.items() if recipe.get(key)]
    if how:
        yield ""
        yield " ".join(how)


def _span(span: Span, recipe: Mapping[str, Any]) -> str:
    name = span.translator or recipe["translators"].get("own", "")
    begin = "the stem" if point_text(span.start) == "stem" else f"block {point_text(span.start)}"
    return f"from the output of {begin} to that of block {point_text(span.end)}: {in_markdown(name)}"
