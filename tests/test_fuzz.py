"""Nothing that is typed at random yields more than a sentence: overrides up to a composed job, texts of plans up to plans."""

import contextlib
import io

import pytest

from toast_cli import cli
from toast_cli.errors import ToastError
from toast_cli.plans import Plan, Span, parse_plans
from toast_cli.registry import CONF

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

DEPTH = 12
bounded = settings(deadline=None, derandomize=True, database=None)
few = settings(bounded, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keys_of(file: str, prefix: str = "") -> list[str]:
    """The settings of a config file by dotted key, groups among them."""
    found: list[str] = []

    def collect(tree: object, key: str) -> None:
        found.append(key)
        for name, inside in tree.items() if isinstance(tree, dict) else ():
            collect(inside, f"{key}.{name}")

    for name, inside in OmegaConf.to_container(OmegaConf.load(CONF / file)).items():
        if name not in ("defaults", "hydra"):
            collect(inside, f"{prefix}{name}")
    return found


KEYS = [
    *keys_of("base.yaml"),
    *keys_of("config.yaml"),
    *keys_of("model/digits_vit.yaml", "model."),
    *keys_of("data/digits.yaml", "data."),
    *keys_of("translator/linear.yaml", "translator."),
    *keys_of("probe/linear.yaml", "probe."),
]
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
values = st.one_of(
    plain.map(str),
    st.sampled_from(
        ["null", "nan", "-inf", "1e400", "[]", "{}", "{a:1}", "[[0]]", "a,b", "${seeds}", "${nowhere}", "???"]
    ),
    st.lists(plain.map(str), max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
)
overrides = st.one_of(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), st.just("="), values).map("".join),
    st.sampled_from(KEYS).map("~{}".format),
    words,
)


@few
@given(st.lists(overrides, min_size=1, max_size=3))
def test_overrides_compose_or_are_refused_in_one_line(argv: list[str]):
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(["run", *argv, "--cfg", "job"])
        except SystemExit as e:
            status = e.code
    if status == 0:
        assert err.getvalue() == ""
    else:
        assert (status, out.getvalue()) == (1, "")
        assert err.getvalue().startswith("toast: ")
        assert len(err.getvalue().splitlines()) == 1


numbers = st.integers(-2, DEPTH + 1)
ends = st.one_of(
    numbers.map(str), numbers.map("{}a".format), st.sampled_from(["stem", "none", "all", "", "٣", "²", "9" * 5000])
)
likely = st.tuples(
    ends, st.sampled_from(["-", "-", "-", "", "--", "–"]), ends, st.sampled_from(["", "", ":linear", ":", ":a b", "@5"])
)
texts = st.one_of(
    st.lists(likely.map("".join), min_size=1, max_size=4).map("+".join), words, st.sampled_from(["all", "pairs+single"])
)


points = st.integers(-2, 2 * DEPTH - 2).map(lambda number: number / 2)


@settings(bounded, max_examples=400)
@given(texts)
def test_a_text_is_a_plan_that_prints_as_itself_or_a_sentence(text: str):
    try:
        plan = Plan.parse(text)
    except ToastError:
        return
    assert Plan.parse(str(plan)) == plan


@settings(bounded, max_examples=100)
@given(st.text())
def test_a_span_that_is_not_understood_is_told_in_one_short_line(text: str):
    with contextlib.suppress(ToastError):
        Span.parse(text)
        return
    with pytest.raises(ToastError) as error:
        Span.parse(text)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500


@settings(bounded, max_examples=200)
@given(st.one_of(texts, plain, st.lists(st.one_of(texts, plain, st.lists(texts, max_size=2)), max_size=4)))
def test_whatever_spans_is_it_gives_plans_or_a_sentence(spans: object):
    try:
        plans = parse_plans(spans, DEPTH)
    except ToastError:
        return
    assert plans[0] == Plan()
    assert len(set(plans)) == len(plans)
    for plan in plans:
        kept = [1 if isinstance(step, int) else 0.5 for step in plan.operations(DEPTH) if not isinstance(step, Span)]
        assert sum(kept) == DEPTH - plan.blocks_removed
    assert parse_plans([str(plan) for plan in plans], DEPTH) == plans


@settings(bounded, max_examples=200)
@given(
    st.lists(st.tuples(points, points, st.sampled_from(["", "identity"])), max_size=4),
)
def test_spans_that_may_leave_together_read_back(triples: list[tuple[float, float, str]]):
    try:
        plan = Plan(tuple(Span(*triple) for triple in triples))
    except ToastError:
        return
    assert Plan.parse(str(plan)) == plan
