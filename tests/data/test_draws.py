"""What a seed decides: who is held out, who measures the fit, and the order of the batches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from harness.data.draws import Indices, Part, Split, draw, order, split, stratified

LABELS = np.array([1, 0, 0, 2, 0, 1, 0, 0, 1, 0])  # six, three and one example


def counts(labels: npt.NDArray[np.int64], chosen: Indices) -> list[int]:
    return [int((labels[chosen] == index).sum()) for index in range(3)]


def test_split_parts_train_and_val_without_loss() -> None:
    parts = split(LABELS, seed=5, val_share=0.4, eval_examples=3)
    assert sorted([*parts.train, *parts.val]) == list(range(10))
    assert set(parts.train_eval) <= set(parts.train)


def test_split_gives_the_held_out_places_to_the_largest_remainders() -> None:
    # four of 6 + 3, as the single example stays: 2.67 and 1.33 -> 2 and 1, the fourth to the larger rest
    parts = split(LABELS, seed=5, val_share=0.4, eval_examples=3)
    assert counts(LABELS, parts.val) == [3, 1, 0]
    assert counts(LABELS, parts.train) == [3, 2, 1]


def test_train_eval_is_stratified_and_a_tie_goes_to_the_first_class() -> None:
    # three of 3 + 2 + 1: 1.5, 1 and 0.5 -> 1, 1 and 0, the third to class 0
    parts = split(LABELS, seed=5, val_share=0.4, eval_examples=3)
    assert counts(LABELS, parts.train_eval) == [2, 1, 0]


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 0), (0.25, 2), (0.26, 3), (0.7, 7)])
def test_split_holds_out_the_rounded_share_exactly(share: float, held_out: int) -> None:
    assert len(split(LABELS, 0, share, 10).val) == held_out


def test_train_eval_is_all_of_train_when_more_is_asked_for() -> None:
    parts = split(LABELS, seed=0, val_share=0.3, eval_examples=100)
    assert parts.train_eval.tolist() == parts.train.tolist()


def test_split_indices_are_sorted_int32() -> None:
    labels = np.tile([0, 1, 2], 100)
    parts = split(labels, seed=1, val_share=0.2, eval_examples=50)
    for indices in (parts.train, parts.val, parts.train_eval):
        assert indices.dtype == np.int32
        assert (np.diff(indices) > 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_split_depends_on_the_seed_alone(seed: int) -> None:
    labels = np.tile([0, 1, 2], 100)
    np.random.seed(1)
    first = split(labels, seed, 0.2, 50)
    np.random.seed(2)
    second, other = split(labels, seed, 0.2, 50), split(labels, 77, 0.2, 50)
    assert first.val.tolist() == second.val.tolist()
    assert first.train_eval.tolist() == second.train_eval.tolist()
    assert first.val.tolist() != other.val.tolist()


def test_every_example_of_a_class_is_held_out_equally_often() -> None:
    labels = np.repeat([0, 1], 5)
    times = sum(np.bincount(split(labels, seed, 0.4, 1).val, minlength=10) for seed in range(500))
    # 500 trials at 2 of 5: 200 expected, standard deviation 11
    assert np.abs(times - 200).max() < 50


def test_classes_keep_one_training_example_whatever_the_share() -> None:
    labels = np.array([0] * 20 + [1, 1] + [2])
    parts = split(labels, seed=3, val_share=0.87, eval_examples=1)
    assert counts(labels, parts.train) == [1, 1, 1]


def test_what_single_examples_cannot_give_is_shared_in_proportion() -> None:
    labels = np.array([0] * 12 + [1] * 4 + list(range(2, 18)))
    assert counts(labels, split(labels, seed=3, val_share=0.25, eval_examples=1).val) == [6, 2, 0]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"val_share": 1.0}, r"val_share must be in \[0, 1\), got 1.0"),
        ({"val_share": -0.1}, "val_share must be"),
        ({"val_share": float("nan")}, "val_share must be"),
        ({"val_share": 0.8}, "holds out 8 of 10 examples, but each of 3 classes must keep one"),
        ({"eval_examples": 0}, "eval_examples must be >= 1, got 0"),
        ({"seed": -1}, "seed must be between 0"),
        ({"seed": 2**63}, "seed must be between 0"),
        ({"labels": np.zeros((4, 1), int)}, r"labels must be \(N,\)"),
    ],
)
def test_split_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(**{"labels": LABELS, "seed": 0, "val_share": 0.1, "eval_examples": 5, **kwargs})  # type: ignore[arg-type]


def test_stratified_takes_the_exact_number_from_many_small_classes() -> None:
    labels = np.repeat(np.arange(50), 3)
    chosen = stratified(labels, 60, np.random.default_rng(0))
    assert len(np.unique(chosen)) == 60
    assert sorted(np.bincount(labels[chosen], minlength=50)) == [1] * 40 + [2] * 10


def test_an_epoch_of_batches_is_a_permutation_of_train() -> None:
    train = np.arange(100, 112, dtype=np.int32)
    batches = order(seed=4, train=train, batch_size=3, steps=4)
    assert batches.dtype == np.int32
    assert batches.tolist() == np.random.default_rng([4, 0]).permutation(train).reshape(4, 3).tolist()


def test_the_rest_of_an_epoch_is_dropped_and_the_next_is_drawn_anew() -> None:
    train = np.arange(10, dtype=np.int32)
    batches = order(seed=4, train=train, batch_size=3, steps=6)
    for epoch in (0, 1):
        drawn = np.random.default_rng([4, epoch]).permutation(train)[:9].reshape(3, 3)
        assert batches[3 * epoch : 3 * epoch + 3].tolist() == drawn.tolist()
    assert batches[:3].tolist() != batches[3:].tolist()


@pytest.mark.parametrize("start", [1, 3, 5, 9, 10])
def test_a_steps_batch_does_not_depend_on_where_the_run_started(start: int) -> None:
    train = np.arange(17, dtype=np.int32)
    whole = order(seed=2**63 - 1, train=train, batch_size=5, steps=20)
    assert order(2**63 - 1, train, 5, steps=10, start=start).tolist() == whole[start : start + 10].tolist()


def test_no_steps_are_no_batches() -> None:
    assert order(0, np.arange(5, dtype=np.int32), 2, steps=0).shape == (0, 2)


def test_a_batch_may_be_all_of_train_but_no_more() -> None:
    train = np.arange(8, dtype=np.int32)
    assert sorted(order(0, train, 8, steps=1)[0]) == list(range(8))
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 8 training examples, got 9"):
        order(0, train, 9, steps=1)


@pytest.mark.parametrize("kwargs", [{"batch_size": 0}, {"steps": -1}, {"start": -1}, {"seed": -1}])
def test_order_refuses_what_is_out_of_range(kwargs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}.*must be"):
        order(**{"seed": 0, "train": np.arange(8, dtype=np.int32), "batch_size": 2, "steps": 1, **kwargs})  # type: ignore[arg-type]


def drawn(scheme: str, index: int = 0, count: int = 10, examples: int | None = None, val_share: float = 0.0) -> Split:
    labels = np.repeat(np.arange(5), 200)
    return draw(labels, scheme, examples, Part(index, count, seed=3), 40 + index, val_share, 50)


def test_disjoint_draws_share_no_example_and_use_them_all():
    parts = [drawn("disjoint", index).train for index in range(10)]
    assert sorted(np.concatenate(parts)) == list(range(1000))


def test_every_disjoint_draw_holds_the_classes_in_proportion():
    labels = np.repeat(np.arange(5), 200)
    for index in range(10):
        counts = np.bincount(labels[drawn("disjoint", index, examples=50).train], minlength=5)
        assert counts.tolist() == [10] * 5


def test_the_parts_of_a_partition_do_not_depend_on_the_draws_own_seed():
    labels = np.repeat(np.arange(5), 200)
    one, other = (draw(labels, "disjoint", None, Part(4, 10, 3), seed, 0.0, 50) for seed in (1, 2))
    assert np.array_equal(one.train, other.train)


def test_more_disjoint_examples_than_there_are_is_refused():
    with pytest.raises(ValueError, match="10 disjoint draws of 101 need more than the 1000 examples"):
        drawn("disjoint", examples=101)


def test_a_bootstrap_draw_repeats_examples_but_never_takes_those_held_out():
    split = drawn("bootstrap", val_share=0.2)
    assert len(split.train) == 800
    assert 0.58 < len(np.unique(split.train)) / 800 < 0.68  # 1 - 1/e
    assert not set(split.train) & set(split.val)


def test_subsamples_of_two_draws_overlap_by_chance_alone():
    one, other = (set(drawn("subsample", index, examples=100).train) for index in (0, 1))
    assert len(one) == len(other) == 100
    assert 1 <= len(one & other) <= 25  # 10 expected


def test_the_examples_that_measure_the_fit_are_among_those_trained_on():
    for scheme in ("all", "disjoint", "subsample", "bootstrap"):
        split = drawn(scheme, examples=100, val_share=0.1)
        assert set(split.train_eval) <= set(split.train)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="all, disjoint, subsample or bootstrap, got 'jackknife'"):
        drawn("jackknife")
