"""Checkpoints: whole, or refused."""

from __future__ import annotations

import io

import numpy as np
import pytest

from harness.training.checkpoints import CheckpointError, pack, unpack

STATE = {
    "weight/0": np.linspace(0, 1, 500, dtype=np.float32).reshape(50, 10),
    "optimizer/0": np.array(7, np.int64),
    "dropout/0": np.array([4_000_000_000, 3], np.uint32),
    "step": np.array(12),
}


def test_what_is_packed_comes_back_to_the_bit() -> None:
    found = unpack(pack(STATE))
    assert set(found) == set(STATE)
    for name, value in STATE.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(share: float) -> None:
    content = pack(STATE)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        unpack(content[: int(share * len(content))])


def test_a_damaged_checkpoint_is_refused() -> None:
    content = bytearray(pack(STATE))
    content[600] ^= 1
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        unpack(bytes(content))


def test_pickles_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, step=np.array([object()]))
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        unpack(buffer.getvalue())


def test_something_else_is_refused() -> None:
    with pytest.raises(CheckpointError):
        unpack(b"something else")
