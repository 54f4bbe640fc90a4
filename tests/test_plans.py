import pytest

from toast_cli.errors import ToastError
from toast_cli.plans import ATTENTION, MLP, STEM, Half, Plan, Span, ends_of, every_half_span, every_span, parse_plans
from toast_cli.stages.walk import build_trie


def test_every_span_of_twelve_blocks_is_the_papers_66_and_12_from_the_stem():
    plans = every_span(12)
    assert len(plans) == 78 == len(set(plans))
    assert sum(plan.spans[0].start == STEM for plan in plans) == 12


@pytest.mark.parametrize(
    "text", ["none", "9-11", "stem-2", "2-3+9-11", "0-2+2-5", "8-9a", "stem-0a", "0a-0:identity+2a-11", "1-2a+2a-3"]
)
def test_text_reads_back(text: str):
    assert str(Plan.parse(text)) == text


def test_order_of_spans_does_not_matter():
    assert Plan.parse("9-11+2-3") == Plan.parse("2-3+9-11")


def test_operations_name_what_stays_and_what_stands_in():
    assert Plan.parse("none").operations(3) == (0, 1, 2)
    assert Plan.parse("stem-0").operations(3) == (Span(STEM, 0), 1, 2)
    assert Plan.parse("0-2+2-3").operations(5) == (0, Span(0, 2), Span(2, 3), 4)
    assert Plan.parse("stem-4").operations(5) == (Span(STEM, 4),)


def test_operations_name_the_half_of_a_block_that_stays():
    assert Plan.parse("0-1a").operations(3) == (0, Span(0, 0.5), Half(1, MLP), 2)
    assert Plan.parse("1a-1").operations(3) == (0, Half(1, ATTENTION), Span(0.5, 1), 2)
    assert Plan.parse("0a-2a").operations(3) == (Half(0, ATTENTION), Span(-0.5, 1.5), Half(2, MLP))
    assert Plan.parse("stem-0a+0a-1a+1a-2").operations(3) == (Span(STEM, -0.5), Span(-0.5, 0.5), Span(0.5, 2))
    assert Plan.parse("0a-1a+2a-3").operations(5) == (
        Half(0, ATTENTION), Span(-0.5, 0.5), Half(1, MLP), Half(2, ATTENTION), Span(1.5, 3), 4,
    )  # fmt: skip
    assert Plan().operations(4, 1.5) == (0, 1, Half(2, ATTENTION))
    assert Plan.parse("0-1a").operations(4, 1.5) == (0, Span(0, 0.5), Half(1, MLP), Half(2, ATTENTION))
    assert Plan.parse("0-1a").operations(4, 0.5) == (0, Span(0, 0.5))


def test_a_half_block_counts_half():
    removed = {
        text: Plan.parse(text).blocks_removed for text in ("8-9a", "9a-9", "9a-11", "8-9a+9a-9", "stem-0a", "2-4")
    }
    assert removed == {"8-9a": 0.5, "9a-9": 0.5, "9a-11": 2.5, "8-9a+9a-9": 1, "stem-0a": 0.5, "2-4": 2}
    assert [type(each) for each in removed.values()] == [float, float, float, int, float, int]


def test_whole_points_are_whole_numbers():
    assert Span(8.0, 9.5) == Span(8, 9.5)
    assert str(Span(8.0, 9.0)) == "8-9"
    with pytest.raises(ToastError, match="halves of whole numbers"):
        Span(8, 9.25)


@pytest.mark.parametrize("depth", [1, 3, 12])
def test_every_half_span_is_each_pair_of_points_once(depth: int):
    plans = every_half_span(depth)
    assert len(plans) == len(set(plans)) == depth * (2 * depth + 1)
    assert set(every_span(depth)) <= set(plans)
    assert parse_plans("halves", depth) == [Plan(), *plans]
    for plan in plans:
        kept = [step for step in plan.operations(depth) if not isinstance(step, Span)]
        covered = sorted([*map(ends_of, kept), *((span.start, span.end) for span in plan.spans)])
        assert [start for start, _ in covered] == [STEM, *(end for _, end in covered)][:-1], "from point to point"
        assert covered[-1][1] == depth - 1
        assert sum(1 if isinstance(each, int) else 0.5 for each in kept) == depth - plan.blocks_removed


def test_the_untouched_model_comes_first_and_no_plan_twice():
    assert [str(plan) for plan in parse_plans(["9-11", "none", "9-11"], 12)] == ["none", "9-11"]
    assert [str(plan) for plan in parse_plans("single", 3)] == ["none", "stem-0", "0-1", "1-2"]
    assert [str(plan) for plan in parse_plans("9-11", 12)] == ["none", "9-11"]


@pytest.mark.parametrize(
    ("spans", "sentence"),
    [
        ("9-12", "span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11."),
        ("9-12a", "span 9-12a ends in block 12, but the model's 12 blocks are 0 to 11."),
        (
            "9-9a",
            "span 9-9a must start before it ends: write s-e with s < e, or stem-e; 9a, between block 9's attention",
        ),
        ("8-9a+8-9", "spans 8-9a and 8-9 overlap"),
        ("stema-2", "span 'stema-2' is not understood"),
        ("9b-11", "span '9b-11' is not understood"),
        ("5-3", "span 5-3 must start before it ends: write s-e with s < e, or stem-e."),
        ("3-3", "span 3-3 must start before it ends"),
        ("2-5+4-6", "spans 2-5 and 4-6 overlap: the spans of one plan must be disjoint, such as 2-3+9-11."),
        (
            "late",
            "span 'late' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2; 8-9a is block 9's attention alone.",
        ),
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


def test_the_trie_shares_half_blocks_and_takes_middles_for_nothing():
    plans = [Plan(), *map(Plan.parse, ("0a-1", "0a-2", "stem-0a", "stem-0a+1-2"))]
    assert build_trie(plans, 4).evaluations() == 4 + 2 + 1 + (0.5 + 1 + 1 + 1) + 1
    assert build_trie([Plan.parse("0a-3")], 4).evaluations() == 0.5


def test_the_trie_shares_prefixes():
    papers = [plan for plan in every_span(12) if plan.spans[0].start >= 0]
    assert build_trie([Plan(), *papers], 12).evaluations() == 232  # 518 one span at a time
    assert (
        sum(len(list(filter(lambda o: isinstance(o, int), plan.operations(12)))) for plan in [Plan(), *papers]) == 518
    )
