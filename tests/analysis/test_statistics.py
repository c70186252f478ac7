from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import statistics

SCORES = np.asarray([[1.0, 2.0], [3.0, 6.0]])  # two runs on two tasks


def test_iqm_drops_a_quarter_at_each_end():
    # 0..7: the quarters {0, 1} and {6, 7} go, (2 + 3 + 4 + 5) / 4 = 3.5 stays; the outlier has no weight.
    assert statistics.iqm([0, 1, 2, 3, 4, 5, 6, 1000]) == pytest.approx(3.5)
    # Five values: a quarter of five is one (rounded down), (2 + 3 + 4) / 3 = 3.
    assert statistics.iqm([1, 2, 3, 4, 100]) == pytest.approx(3.0)
    # Three values: nothing goes.
    assert statistics.iqm([1, 2, 6]) == pytest.approx(3.0)


def test_iqm_is_scipys_trimmed_mean_along_an_axis():
    values = np.random.default_rng(0).normal(size=(5, 13))
    np.testing.assert_allclose(statistics.iqm(values, axis=1), stats.trim_mean(values, 0.25, axis=1))


def test_iqm_does_not_trim_nan_away():
    # Sorting puts NaN last, into the quarter that is dropped: it must show all the same.
    assert np.isnan(statistics.iqm([1.0, 2.0, 3.0, 4.0, np.nan]))


def test_optimality_gap_does_not_reward_what_exceeds_the_target():
    # Shortfalls of 0.5, 0.2, 0 and (1.4 counts as 1) 0: mean 0.175.
    assert statistics.optimality_gap([0.5, 0.8, 1.0, 1.4]) == pytest.approx(0.175)


def test_stratified_bootstrap_has_the_exact_distribution_of_two_runs_on_one_task():
    # Resampling {0, 1} twice: means 0, 1/2, 1 with chances 1/4, 1/2, 1/4: the 95 % bounds are 0 and 1,
    # the 40 % bounds (30th and 70th percentile) are 1/2 and 1/2.
    wide = statistics.stratified_bootstrap([[0.0], [1.0]])
    assert (wide.estimate, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = statistics.stratified_bootstrap([[0.0], [1.0]], confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_stratified_bootstrap_keeps_tasks_apart():
    # Runs agree within each task, so nothing varies, however far the tasks lie apart.
    interval = statistics.stratified_bootstrap([[0.0, 10.0], [0.0, 10.0]])
    assert (interval.estimate, interval.low, interval.high) == (5.0, 5.0, 5.0)


def test_crossed_bootstrap_resamples_tasks_too():
    # The same matrix: drawing two tasks of two gives means 0, 5, 10 with chances 1/4, 1/2, 1/4.
    interval = statistics.crossed_bootstrap([[0.0, 10.0], [0.0, 10.0]])
    assert (interval.estimate, interval.low, interval.high) == (5.0, 0.0, 10.0)


def test_crossed_bootstrap_is_wider_than_stratified_when_a_seed_touches_every_task():
    scores = np.arange(4.0)[:, None] + np.zeros(50)  # seed's effect alone
    crossed = statistics.crossed_bootstrap(scores)
    stratified = statistics.stratified_bootstrap(scores)
    assert crossed.high - crossed.low > 3 * (stratified.high - stratified.low)


def test_bootstrap_is_deterministic_by_seed():
    one, two = (statistics.crossed_bootstrap(SCORES, seed=3) for _ in range(2))
    assert one == two


def test_bootstrap_interval_of_normal_data_is_near_the_t_interval():
    scores = np.random.default_rng(1).normal(size=(200, 1))
    boot, student = statistics.stratified_bootstrap(scores), statistics.t_interval(scores)
    assert boot.low == pytest.approx(float(student.low[0]), abs=0.02)
    assert boot.high == pytest.approx(float(student.high[0]), abs=0.02)


def test_paired_ratio_of_proportional_methods_has_no_width():
    # Twice as good on every task and no spread over runs: drawing tasks in pairs leaves the ratio at 2.
    base = np.asarray([[1.0, 5.0, 30.0]])
    interval = statistics.paired_ratio(2 * base, base)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((2.0, 2.0, 2.0))


def test_paired_ratio_is_of_means_and_runs_are_resampled_apart():
    # (1 + 3) / 2 over 2 is 1; the numerator's two runs draw 1, 2 or 3: bounds 1/2 and 3/2.
    interval = statistics.paired_ratio([[1.0], [3.0]], [[2.0]])
    assert (interval.estimate, interval.low, interval.high) == (1.0, 0.5, 1.5)


def test_paired_ratio_refuses_other_tasks():
    with pytest.raises(ValueError, match="same tasks on both sides, got 2 and 3"):
        statistics.paired_ratio(np.ones((1, 2)), np.ones((1, 3)))


def test_ratio_to_zero_is_missing():
    assert np.isnan(statistics.paired_ratio([[1.0]], [[0.0]]).estimate)


def test_performance_profile_counts_runs_and_tasks_above():
    # Of 1, 2, 3, 6: all above 0, three above 1 (strictly), two above 2, none above 6.
    profile = statistics.performance_profile(SCORES, [0.0, 1.0, 2.0, 6.0])
    np.testing.assert_allclose(profile.estimate, [1.0, 0.75, 0.5, 0.0])
    assert (profile.low <= profile.estimate).all()
    assert (profile.estimate <= profile.high).all()


def test_probability_of_improvement_counts_ties_half():
    # Task 1: {1, 3} against {1}: a tie and a win, (1/2 + 1) / 2 = 3/4. Task 2: {2, 6} against {4}: 1/2.
    interval = statistics.probability_of_improvement(SCORES, [[1.0, 4.0]])
    assert interval.estimate == pytest.approx(0.625)
    assert statistics.probability_of_improvement(SCORES, SCORES - 10).low == 1.0


def test_t_interval_golden():
    # 1, 2, 3: mean 2, s = 1, t(0.975; 2) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138.
    interval = statistics.t_interval([1.0, 2.0, 3.0])
    assert interval.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert interval.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert np.isnan(statistics.t_interval([1.0]).low)


def test_interval_over_seeds_works_at_every_step_and_leaves_a_broken_seed_out():
    curves = np.asarray([[0.0, 1.0, np.nan], [1.0, 1.0, 4.0]])
    interval = statistics.interval_over_seeds(curves)
    np.testing.assert_allclose(interval.estimate, [0.5, 1.0, 4.0])
    np.testing.assert_allclose(interval.low, [0.0, 1.0, 4.0])
    np.testing.assert_allclose(interval.high, [1.0, 1.0, 4.0])
    assert np.isnan(statistics.interval_over_seeds([[np.nan]]).estimate).all()


def test_wilson_golden():
    # 3 of 3, z = 1.959964: centre (1 + z^2/6) / (1 + z^2/3), so low = 1 / (1 + z^2/3) = 0.438503, high = 1.
    interval = statistics.wilson_interval(3, 3)
    assert interval.low == pytest.approx(0.438503, abs=1e-6)
    assert interval.high == pytest.approx(1.0)
    assert statistics.wilson_interval(0, 3).low == 0.0
    with pytest.raises(ValueError, match="4/3"):
        statistics.wilson_interval(4, 3)


def test_steps_to_threshold_wants_it_held():
    steps = [0, 10, 20, 30]
    returns = [[0.0, 1.0, 0.5, 1.0], [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0]]
    # Falls back at 20; holds from 10; loses it at the end; holds from birth.
    found = statistics.steps_to_threshold(steps, returns, 0.9)
    np.testing.assert_array_equal(found, [30.0, 10.0, np.nan, 0.0])


@pytest.mark.parametrize("scores", [np.ones(3), np.ones((0, 2))])
def test_scores_must_be_a_matrix(scores: np.ndarray):
    with pytest.raises(ValueError, match="non-empty matrix"):
        statistics.crossed_bootstrap(scores)
