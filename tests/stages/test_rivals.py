"""When a plan is out of a race: bounds hold as often as they say, on draws from synthetic right and wrong answers."""

import numpy as np
import pytest
from scipy.stats import binom

from toast_cli.data.draws import stratified
from toast_cli.stages.rivals import BEATEN, HALVED, RACING, ahead_at_most, interval, verdicts


def population(accuracies: list[float], images: int, seeds: int, generator: np.random.Generator) -> np.ndarray:
    """(P, M) counts of right answers: plans fail on the same hard images for the most part, as plans of one model do."""
    hardness = generator.random(images)
    noise = generator.normal(0, 0.15, (seeds, len(accuracies), images))
    return (hardness + noise < np.array(accuracies)[:, None]).sum(axis=0)


def test_the_bound_is_where_the_product_over_images_reaches_the_chance():
    generator = np.random.default_rng(0)
    plan, rival = generator.integers(0, 4, (2, 50))  # of three seeds
    bound = ahead_at_most(plan, rival, 3, 0.01)
    bets = np.linspace(0, 1, 65)[1::2]
    for ahead, rejected in ((bound - 1e-4, False), (bound + 1e-4, True)):
        products = [
            np.prod([1 + bet * ((r - p) / 3 + ahead) for p, r in zip(plan, rival, strict=True)]) for bet in bets
        ]
        assert bound > 0, "else differences would have to be scaled"
        assert (np.mean(products) > 100) == rejected


def test_a_rival_that_is_always_better_is_found_out_by_the_sign_test_s_number_of_images():
    """(1 + λ)^n averaged over λ in (0, 1) is (2^(n+1) − 1) / (n + 1)."""
    for images in (5, 9, 10, 20):
        beaten = ahead_at_most(np.zeros(images), np.ones(images), 1, 1 / 150) < 0
        assert beaten == ((2 ** (images + 1) - 1) / (images + 1) > 150)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("accuracies", [[0.7, 0.7], [0.75, 0.6], [0.95, 0.99]])
def test_the_bound_fails_no_more_often_than_it_says(accuracies: list[float], seeds: int):
    generator, chance, draws = np.random.default_rng(1), 0.1, 150
    plan, rival = population(accuracies, 600, seeds, generator)
    truth = (plan - rival).mean() / seeds
    labels = np.arange(600) % 7
    failed, widths = 0, []
    for draw in range(draws):
        drawn = stratified(labels, draw)[:100]
        bound = ahead_at_most(plan[drawn], rival[drawn], seeds, chance)
        failed += bound < truth
        widths.append(bound - truth)
    assert failed <= binom.ppf(0.999, draws, chance)
    assert 0 < np.mean(widths) < 0.25, "it says something too"


def test_a_race_keeps_the_best_with_the_stated_confidence():
    """Near ties and clear losers, three rounds of nested draws, each at its share of the chance."""
    confidence, races, rounds = 0.8, 120, (40, 80, 160)
    chance, lost, left = (1 - confidence) / (len(rounds) * 5), 0, 0
    for number in range(races):
        generator = np.random.default_rng(number)
        right = population([0.7, 0.69, 0.69, 0.66, 0.5, 0.35], 400, 1, generator)
        order, going, best = generator.permutation(400), list(range(6)), right.sum(axis=1).argmax()
        for images in rounds:
            seen = right[going][:, order[:images]]
            found = verdicts(seen, 1, seen.sum(axis=1), chance, places=6)
            going = [plan for plan, each in zip(going, found, strict=True) if each.outcome == RACING]
        lost += best not in going
        left += 6 - len(going)
    assert lost <= binom.ppf(0.999, races, 1 - confidence)
    assert left >= 1.5 * races, "clear losers do leave"


def test_halving_lets_the_most_accurate_go_on_and_says_who_was_beaten():
    right = np.zeros((5, 100), dtype=int)
    for plan, count in enumerate((5, 65, 70, 68, 68)):
        right[plan, :count] = 1
    found = verdicts(right, 1, right.sum(axis=1), 0.01, places=2)
    assert [each.outcome for each in found] == [BEATEN, HALVED, RACING, HALVED, RACING], (
        "of two alike the later goes on"
    )
    assert [each.best for each in found] == [2] * 5
    assert [each.behind for each in found] == pytest.approx([-0.65, -0.05, 0, -0.02, -0.02])
    assert found[2].high is found[2].low is None
    assert all(each.low < each.behind < each.high for each in found if each.high is not None)
    assert [each.outcome for each in verdicts(right, 1, right.sum(axis=1), 0.01, places=5)] == [BEATEN, *[RACING] * 4]


def test_scores_decide_who_goes_on_and_who_is_the_rival():
    right = np.zeros((3, 100), dtype=int)
    for plan, count in enumerate((70, 68, 5)):
        right[plan, :count] = 1
    found = verdicts(right, 1, np.array([0.6, 0.7, 0.1]), 0.01, places=1)
    assert [each.outcome for each in found] == [HALVED, RACING, BEATEN]
    assert [each.best for each in found] == [1] * 3
    assert [each.score for each in found] == [0.6, 0.7, 0.1]
    assert found[0].behind == pytest.approx(0.02), "on the test images it is ahead"


@pytest.mark.parametrize("right", [0, 3, 50])
def test_the_interval_is_clopper_and_pearson_s(right: int):
    low, high = interval(right / 50, 50, 0.9)
    assert low == 0 if right == 0 else binom.sf(right - 1, 50, low) == pytest.approx(0.05)
    assert high == 1 if right == 50 else binom.cdf(right, 50, high) == pytest.approx(0.05)
