"""Examples streamed from the host: what comes when, and that nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data.datasets import Dataset, from_arrays
from harness.prepared import Prepared
from harness.streams import Block
from harness.training import loop
from harness.training.feeds import DeviceData, HostData, feed
from harness.training.recorder import MemoryRecorder
from harness.training.replica import Replica

ROW = 64  # bytes of an example of `rows`


def kept(feed: DeviceData | HostData, indices: np.ndarray, rows: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """The examples and labels of each piece, as its indices name them."""
    pieces = list(feed.pieces(indices.astype(np.int32), rows))
    assert [piece.rows.start for piece in pieces] == [0, *(piece.rows.stop for piece in pieces[:-1])]
    assert pieces[-1].rows.stop == len(indices)
    return [(piece.examples.numpy()[piece.indices], piece.labels.numpy()[piece.indices]) for piece in pieces]


@pytest.mark.parametrize("shape", [(50,), (10, 5)], ids=["examples", "batches"])
def test_pieces_hold_what_the_whole_holds_in_the_same_order(shape: tuple[int, ...], rows: Dataset) -> None:
    indices = np.random.default_rng(0).integers(0, 80, shape)  # with repetitions, training and test examples
    ((examples, labels),) = kept(DeviceData(rows, "/CPU:0"), indices)
    pieces = kept(HostData(rows, "/CPU:0", piece_bytes=12 * ROW), indices)
    assert len(pieces) == 5
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), examples)
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), labels)


def test_pieces_are_multiples_of_what_is_computed_at_once(rows: Dataset) -> None:
    pieces = kept(HostData(rows, "/CPU:0", piece_bytes=15 * ROW), np.arange(50), rows=8)
    assert [len(labels) for _, labels in pieces] == [8, 8, 8, 8, 8, 8, 2]
    (whole,) = kept(HostData(rows, "/CPU:0", piece_bytes=1), np.arange(50), rows=50)
    assert len(whole[1]) == 50


def test_no_more_than_asked_for_is_on_the_device(rows: Dataset) -> None:
    for piece in HostData(rows, "/CPU:0", piece_bytes=12 * ROW).pieces(np.arange(60, dtype=np.int32)):
        assert len(piece.examples) <= 12


def test_a_reader_that_stops_early_leaves_no_thread_behind(rows: Dataset) -> None:
    before = threading.active_count()
    pieces = HostData(rows, "/CPU:0", piece_bytes=ROW).pieces(np.arange(60, dtype=np.int32))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_only_data_above_the_limit_are_streamed(rows: Dataset) -> None:
    size = 80 * ROW / 2**30
    assert isinstance(feed(rows, "/CPU:0", size), DeviceData)
    assert isinstance(feed(rows, "/CPU:0", size * 0.99), HostData)
    assert isinstance(feed(rows, "/CPU:0", 0), HostData)


NOISY = ("arch.dropout=0.3", "augment=shift", "optimizer=adam")


def trained(prepared: Prepared, replica: Replica) -> MemoryRecorder:
    recorder = MemoryRecorder()
    block = Block.of(0)
    loop.train(replica, prepared.recipe, prepared.draw(block), block, recorder)
    return recorder


def same(one: MemoryRecorder, other: MemoryRecorder) -> None:
    assert one.facts == other.facts
    for name, curve in one.curves.items():
        if name != "examples_per_second":
            assert other.curves[name] == curve, name
    assert one.artifacts.get("predictions.npz") == other.artifacts.get("predictions.npz")
    assert one.checkpoints == other.checkpoints
    for step, layers in one.layers.items():
        for name, numbers in layers.items():
            for moment, value in numbers.items():
                np.testing.assert_array_equal(other.layers[step][name][moment], value)
    assert one.outcome == other.outcome


@pytest.mark.parametrize("overrides", [("optimizer=sgd",), NOISY, ("learning_rate.value=1e30", "optimizer=sgd")])
@pytest.mark.parametrize("piece", [25, 1000])
def test_a_streamed_run_is_the_same_to_the_bit(
    overrides: tuple[str, ...],
    piece: int,
    prepare: Callable[..., Prepared],
    replica_of: Callable[..., Replica],
    rows: Dataset,
) -> None:
    prepared = prepare(*overrides)
    there = replica_of(prepared)
    streamed = Replica(prepared.spec, HostData(rows, "/CPU:0", piece_bytes=piece * ROW), like=there)
    same(trained(prepared, there), trained(prepared, streamed))


def test_data_mapped_from_a_file_train_as_those_in_memory(
    prepare: Callable[..., Prepared], replica_of: Callable[..., Replica], rows: Dataset, tmp_path: Path
) -> None:
    arrays = {}
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.save(tmp_path / f"{name}.npy", getattr(rows, name))
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    mapped = from_arrays("mapped", arrays, "mapped")
    assert mapped.digest == rows.digest
    prepared, on_disk = prepare(*NOISY), prepare(*NOISY, data=mapped)
    streamed = Replica(on_disk.spec, HostData(mapped, "/CPU:0", piece_bytes=25 * ROW))
    same(trained(prepared, replica_of(prepared)), trained(on_disk, streamed))
