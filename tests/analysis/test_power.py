from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from harness.analysis.power import noether_sample_size, smallest_detectable

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("n", "units"),
    [
        (3, 3.26),
        (4, 2.13),
        (5, 1.68),
        (6, 1.43),
        (8, 1.16),
        (10, 1.00),
        (15, 0.78),
        (20, 0.66),
        (29, 0.54),
        (50, 0.40),
    ],
)
def test_smallest_detectable_difference_at_five_percent(n, units):
    assert smallest_detectable(n) == pytest.approx(units, abs=0.005)


@pytest.mark.parametrize(("n", "units"), [(5, 2.63), (6, 2.11), (8, 1.60), (10, 1.33), (20, 0.84)])
def test_smallest_detectable_difference_at_the_first_of_five_holm_steps(n, units):
    assert smallest_detectable(n, alpha=0.01) == pytest.approx(units, abs=0.005)


@pytest.mark.parametrize("n", [5, 10, 40])
def test_smallest_detectable_agrees_with_statsmodels_from_five_blocks_on(n):
    expected = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert smallest_detectable(n) == pytest.approx(expected, abs=1e-6)


def test_smallest_detectable_is_found_with_its_power_at_three_blocks():
    x = np.random.default_rng(0).normal(smallest_detectable(3), 1, size=(40_000, 3))
    t = x.mean(axis=1) / (x.std(axis=1, ddof=1) / sqrt(3))
    assert (np.abs(t) > stats.t.ppf(0.975, 2)).mean() == pytest.approx(0.8, abs=0.007)


def test_one_block_detects_nothing():
    assert isnan(smallest_detectable(1))


@pytest.mark.parametrize(
    ("gamma", "n"),
    [(0.6, 181), (0.65, 81), (0.7, 46), (0.75, 29), (0.8, 21), (0.85, 15), (0.9, 12), (0.95, 9)],
)
def test_noether_sample_size(gamma, n):
    assert noether_sample_size(gamma) == n


def test_noether_refuses_a_gamma_that_is_no_improvement():
    with pytest.raises(ValueError, match="gamma"):
        noether_sample_size(0.5)
