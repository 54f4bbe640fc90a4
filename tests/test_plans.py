import pytest

from toast_cli.errors import ToastError
from toast_cli.plans import STEM, Plan, Span, every_span, parse_plans
from toast_cli.stages.walk import build_trie


def test_every_span_of_twelve_blocks_is_the_papers_66_and_12_from_the_stem():
    plans = every_span(12)
    assert len(plans) == 78 == len(set(plans))
    assert sum(plan.spans[0].start == STEM for plan in plans) == 12


@pytest.mark.parametrize("text", ["none", "9-11", "stem-2", "2-3+9-11", "0-2+2-5"])
def test_text_reads_back(text: str):
    assert str(Plan.parse(text)) == text


def test_order_of_spans_does_not_matter():
    assert Plan.parse("9-11+2-3") == Plan.parse("2-3+9-11")


def test_operations_name_what_stays_and_what_stands_in():
    assert Plan.parse("none").operations(3) == (0, 1, 2)
    assert Plan.parse("stem-0").operations(3) == (Span(STEM, 0), 1, 2)
    assert Plan.parse("0-2+2-3").operations(5) == (0, Span(0, 2), Span(2, 3), 4)
    assert Plan.parse("stem-4").operations(5) == (Span(STEM, 4),)


def test_the_untouched_model_comes_first_and_no_plan_twice():
    assert [str(plan) for plan in parse_plans(["9-11", "none", "9-11"], 12)] == ["none", "9-11"]
    assert [str(plan) for plan in parse_plans("single", 3)] == ["none", "stem-0", "0-1", "1-2"]
    assert [str(plan) for plan in parse_plans("9-11", 12)] == ["none", "9-11"]


@pytest.mark.parametrize(
    ("spans", "sentence"),
    [
        ("9-12", "span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11."),
        ("5-3", "span 5-3 must start before it ends: write s-e with s < e, or stem-e."),
        ("3-3", "span 3-3 must start before it ends"),
        ("2-5+4-6", "spans 2-5 and 4-6 overlap: the spans of one plan must be disjoint, such as 2-3+9-11."),
        ("late", "span 'late' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2."),
        ("-1-2", "span '-1-2' is not understood"),
        ("", "span '' is not understood"),
        ([3], "spans has the entry 3: use all, single or a list of plans such as [9-11,2-3+9-11]."),
        (7, "spans has the entry 7"),
        ([], "spans is empty: use all, single or a list of plans such as [9-11,2-3+9-11]."),
    ],
)
def test_what_is_wrong_with_a_span_is_said(spans: object, sentence: str):
    with pytest.raises(ToastError) as error:
        parse_plans(spans, 12)
    assert str(error.value).startswith(sentence)


def test_the_trie_shares_prefixes():
    papers = [plan for plan in every_span(12) if plan.spans[0].start >= 0]
    assert build_trie([Plan(), *papers], 12).evaluations() == 232  # 518 one span at a time
    assert (
        sum(len(list(filter(lambda o: isinstance(o, int), plan.operations(12)))) for plan in [Plan(), *papers]) == 518
    )
