"""The histogram bins of all layers, steps, runs and arms: symmetric, logarithmic, the same everywhere."""

import numpy as np

DECADES = (-6, 6)
PER_DECADE = 10

_POSITIVE = 10.0 ** (np.arange(DECADES[0] * PER_DECADE, DECADES[1] * PER_DECADE + 1) / PER_DECADE)
EDGES = np.concatenate([-_POSITIVE[::-1], [0.0, np.finfo(np.float32).tiny], _POSITIVE]).astype(np.float32)
"""244 ascending edges of 245 bins [a, b): below -10^6, 10 a decade to -10^-6, (-10^-6, 0), exactly 0, (0, 10^-6), and
10 a decade to 10^6, above. Not a number counts as above."""
