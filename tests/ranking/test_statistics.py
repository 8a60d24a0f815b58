"""The batched statistics against scipy and slow loops, on resamples written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from diswot.ranking import statistics

N, R = 40, 6


def tied_table(seed: int) -> tuple[np.ndarray, ...]:
    """Score, accuracy, size with many ties, and a minus infinity in the score."""
    random = np.random.default_rng(seed)
    score = random.integers(0, 9, N).astype(float)
    score[3] = -np.inf
    accuracy = np.maximum(score, -2) + random.integers(0, 9, N)
    return score, accuracy, random.integers(1, 12, N).astype(float)


def resamples(seed: int, count: int = N) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights, R x N, the first the table itself, and the same written out."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), R - 1)
    weights = np.concatenate([np.ones((1, count)), drawn]).astype(float)
    return weights, [np.repeat(np.arange(count), row.astype(int)) for row in weights]


@pytest.mark.parametrize("seed", range(3))
def test_kendall_is_scipys(seed: int) -> None:
    x, y, _ = tied_table(seed)
    weights, written = resamples(seed)

    expected = [stats.kendalltau(x[i], y[i]).statistic for i in written]

    np.testing.assert_allclose(statistics.kendall(x, y, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_kendall_in_pieces_is_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = tied_table(seed)
    weights, _ = resamples(seed)
    whole = statistics.kendall(x, y, weights)

    monkeypatch.setattr(statistics, "_ROWS", 7)

    np.testing.assert_array_equal(statistics.kendall(x, y, weights), whole)


@pytest.mark.parametrize("seed", range(3))
def test_spearman_is_scipys(seed: int) -> None:
    x, y, _ = tied_table(seed)
    weights, written = resamples(seed)
    x_ranked = np.maximum(x, -1)  # scipy's is NaN for infinities; the order is the same

    expected = [stats.spearmanr(x_ranked[i], y[i]).statistic for i in written]

    np.testing.assert_allclose(statistics.spearman(x, y, weights), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_pearson_is_scipys_over_finite_scores(seed: int) -> None:
    x, y, _ = tied_table(seed)
    weights, written = resamples(seed)
    finite = [i[np.isfinite(x[i])] for i in written]

    expected = [stats.pearsonr(x[i], y[i]).statistic for i in finite]

    np.testing.assert_allclose(statistics.pearson(x, y, weights), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_partial_kendall_is_the_formula_of_scipys_taus(seed: int) -> None:
    x, y, z = tied_table(seed)
    weights, written = resamples(seed)

    def naive(i: np.ndarray) -> float:
        xy, xz, yz = (stats.kendalltau(a[i], b[i])[0] for a, b in ((x, y), (x, z), (y, z)))
        return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))

    found = statistics.partial_kendall(x, y, z, weights)
    np.testing.assert_allclose(found, [naive(i) for i in written], rtol=1e-9)
    np.testing.assert_allclose(statistics.partial_kendall(x, y, np.log(z), weights), found)


def test_partial_kendall_of_the_given_is_undefined() -> None:
    _, y, z = tied_table(0)

    assert np.isnan(statistics.partial_kendall(z, y, z, np.ones((1, N)))).all()


def test_partial_kendall_by_hand() -> None:
    x, y, z = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]), np.array([2.0, 1, 3, 4])
    # tau_xy = tau_xz = 4/6, tau_yz = 2/6
    expected = (4 / 6 - 4 / 6 * 2 / 6) / math.sqrt((1 - 16 / 36) * (1 - 4 / 36))

    assert statistics.partial_kendall(x, y, z, np.ones((1, 4)))[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_binned_kendall_is_the_mean_of_scipys(seed: int) -> None:
    x, y, z = tied_table(seed)
    weights, written = resamples(seed)
    place = stats.rankdata(z) - 0.5
    bins = [np.flatnonzero(np.floor(place / N * 10) == b) for b in range(10)]

    def naive(row: np.ndarray) -> float:
        taus = []
        for inside in bins:
            i = np.repeat(inside, row[inside].astype(int))
            if len(i) and np.ptp(y[i]) > 0:
                silent = len(np.unique(x[i])) == 1
                taus.append(0 if silent else stats.kendalltau(x[i], y[i]).statistic)
        return float(np.mean(taus))

    found = statistics.binned_kendall(x, y, z, weights)
    np.testing.assert_allclose(found, [naive(row) for row in weights], rtol=1e-9)
    assert len(written) == len(found)


def test_bins_hold_equals_together_and_constants_tell_nothing() -> None:
    x = np.array([5.0, 5, 1, 2])
    y = np.array([1.0, 2, 1, 2])
    z = np.array([1.0, 1, 9, 9])

    # the first bin's score is constant: 0; the second's is perfect: 1
    assert statistics.binned_kendall(x, y, z, np.ones((1, 4)))[0] == 0.5
    assert np.isnan(statistics.binned_kendall(x, np.ones(4), z, np.ones((1, 4)))[0])


def test_precision_by_hand() -> None:
    accuracy = np.arange(20.0)
    score = accuracy.copy()
    score[18], score[5] = score[5], score[18]

    assert statistics.precision(accuracy, accuracy, np.ones((1, 20)))[0] == 1
    assert statistics.precision(score, accuracy, np.ones((1, 20)))[0] == 0.5
    assert statistics.precision(-accuracy, accuracy, np.ones((1, 20)))[0] == 0


def test_precision_expects_over_orders_of_ties() -> None:
    x = np.array([3.0, 2, 2, 2, *range(1, -15, -1)])
    y = np.array([0.0, 9, 8, 1, *np.linspace(2, 7, 16)])
    best = {1, 2}  # of y; the best two of twenty by x are the 3 and one of the three equal 2s

    expected = np.mean([len({0, other} & best) / 2 for other in (1, 2, 3)])

    assert statistics.precision(x, y, np.ones((1, 20)))[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_precision_is_the_mean_over_random_orders(seed: int) -> None:
    x, y, _ = tied_table(seed)
    weights, written = resamples(seed)
    random = np.random.default_rng(0)

    def drawn(values: np.ndarray) -> np.ndarray:
        return np.lexsort([random.random(len(values)), -values])[:4]

    def naive(i: np.ndarray) -> float:
        hits = [len(set(drawn(x[i])) & set(drawn(y[i]))) / 4 for _ in range(20_000)]
        return float(np.mean(hits))

    found = statistics.precision(x, y, weights)
    np.testing.assert_allclose(found[:2], [naive(i) for i in written[:2]], atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_regret_is_as_by_loops(seed: int) -> None:
    x, y, z = tied_table(seed)
    weights, written = resamples(seed)
    budgets = np.array([0.5, 2, 5, 12])  # nothing lies within the first

    def naive(i: np.ndarray) -> float:
        losses = []
        for budget in budgets:
            inside = i[z[i] <= budget]
            if len(inside):
                tied = inside[x[inside] == x[inside].max()]
                losses.append(y[inside].max() - y[tied].mean())
        return float(np.mean(losses))

    found = statistics.regret(x, y, z, budgets, weights)
    np.testing.assert_allclose(found, [naive(i) for i in written], rtol=1e-12)
    assert (found >= 0).all()


def test_a_constant_score_has_no_correlation() -> None:
    _, y, _ = tied_table(0)
    flat, once = np.zeros(N), np.ones((1, N))

    for statistic in (statistics.kendall, statistics.spearman, statistics.pearson):
        assert np.isnan(statistic(flat, y, once)).all()


def test_scores_all_lowest_have_no_pearson() -> None:
    _, y, _ = tied_table(0)

    assert np.isnan(statistics.pearson(np.full(N, -np.inf), y, np.ones((1, N)))).all()


@pytest.mark.parametrize("seed", range(3))
def test_midranks_are_scipys(seed: int) -> None:
    x, _, _ = tied_table(seed)
    weights, written = resamples(seed)
    ranks = statistics.midranks(x, weights)

    for row, i in zip(ranks, written, strict=True):
        np.testing.assert_array_equal(row[i], stats.rankdata(x[i]))


def test_ceiling_is_what_noise_leaves() -> None:
    random = np.random.default_rng(0)
    true = random.normal(70, 2, 2000)
    measured = true + random.normal(0, 1, 2000)
    # for two normal variables tau is 2/pi asin(r), with r the share of the deviation
    expected = 2 / math.pi * math.asin(2 / math.sqrt(5))

    tau = statistics.ceiling(measured, 1.0, 20, random)

    assert tau.mean() == pytest.approx(expected, abs=0.02)
    assert tau.std() > 0


def test_ceiling_at_the_ends() -> None:
    random = np.random.default_rng(0)
    accuracy = np.arange(10.0)

    assert (statistics.ceiling(accuracy, 0.0, 3, random) == 1).all()
    assert np.isnan(statistics.ceiling(accuracy, 100.0, 3, random)).all()


def test_order_of_architectures_does_not_matter() -> None:
    x, y, z = tied_table(1)
    order = np.random.default_rng(0).permutation(N)
    weights, _ = resamples(1)
    budgets = np.array([3.0, 12])
    pairs = itertools.product(statistics.STATISTICS.values(), [order])

    for statistic, i in pairs:
        one = statistic(statistics.RankingInput(x, y, z, budgets), weights)
        other = statistic(statistics.RankingInput(x[i], y[i], z[i], budgets), weights[:, i])
        np.testing.assert_allclose(one, other, rtol=1e-9)
