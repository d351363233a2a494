"""Local response normalization, against its formula and through a saved net."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from harness.layers import LocalResponseNormalization

MAPS = np.random.default_rng(0).normal(0, 3, (2, 2, 3, 6)).astype(np.float32)


def test_each_channel_is_divided_by_its_neighbours() -> None:
    found = LocalResponseNormalization(radius=2, bias=2.0, alpha=0.1, beta=0.75)(MAPS).numpy()
    for channel in range(6):
        near = MAPS[..., max(0, channel - 2) : channel + 3].astype(float)
        expected = MAPS[..., channel] / (2.0 + 0.1 * (near**2).sum(axis=-1)) ** 0.75
        np.testing.assert_allclose(found[..., channel], expected, rtol=1e-5)


def test_it_sums_in_32_bits_and_gives_what_it_got() -> None:
    layer = LocalResponseNormalization(dtype="bfloat16")
    found = layer(MAPS)
    assert found.dtype == "bfloat16"
    wide = LocalResponseNormalization()(keras.ops.cast(keras.ops.cast(MAPS, "bfloat16"), "float32"))
    np.testing.assert_array_equal(found, keras.ops.cast(wide, "bfloat16"))


@pytest.mark.parametrize(
    ("arguments", "said"), [({"radius": -1}, "radius must be >= 0, got -1"), ({"bias": 0}, "bias")]
)
def test_what_it_cannot_be_is_refused(arguments: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LocalResponseNormalization(**arguments)
