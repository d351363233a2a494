"""How small a difference a number of blocks can show, and how many blocks a claim needs."""

from functools import lru_cache
from math import ceil, log, nan, sqrt

import numpy as np
from scipy import optimize, special


def _power(effect: float, n: int, critical: float) -> float:
    """Power of the two-sided one-sample t test, integrated over the density of s/sigma (chi, n-1 df)."""
    df = n - 1
    s = np.linspace(0.0, 1 + 12 / sqrt(df), 4001)
    log_density = log(2) + df / 2 * log(df / 2) - special.gammaln(df / 2) - df * s**2 / 2
    density = np.exp(log_density + special.xlogy(df - 1, s))
    shift = effect * sqrt(n)
    reject = special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)
    return float(np.trapezoid(reject * density, s))


@lru_cache(maxsize=4096)
def smallest_detectable(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Mean difference, in units of its s_d, that a two-sided paired t test on n blocks finds with `power`.

    METHODS F10. Integrated numerically, because the library routines for the noncentral t fail at n=3..4
    with small alpha. NaN for n<2.
    """
    if n < 2:
        return nan
    critical = float(special.stdtrit(n - 1, 1 - alpha / 2))
    upper = 3 * (critical + 10) / sqrt(n)
    return float(optimize.brentq(lambda effect: _power(effect, n, critical) - power, 0.0, upper, xtol=1e-10))


def noether_sample_size(gamma: float, alpha: float = 0.05, beta: float = 0.05) -> int:
    """Blocks needed to show P(A>B) > 1/2 when it is `gamma`, one-sided level alpha, power 1-beta.

    Noether 1987; METHODS F7. gamma in (0.5, 1].
    """
    if not 0.5 < gamma <= 1:
        raise ValueError(f"gamma must be in (0.5, 1], got {gamma}")
    z = float(special.ndtri(1 - alpha) - special.ndtri(beta))
    return ceil((z / (sqrt(6) * (0.5 - gamma))) ** 2)
