"""Graphs are traced once for all replicas that are alike, and optimized before anything counts."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from harness.training import graphs

CPU = "/CPU:0"
ROWS = tf.TensorSpec((None,), tf.float32)


def test_what_is_wanted_twice_is_traced_once() -> None:
    shared, traced = graphs.Shared[str](), []

    def double(x: tf.Tensor) -> tf.Tensor:
        traced.append(x)
        return 2 * x

    wanted = (shared.get(("double", None), lambda: graphs.trace(double, [(ROWS, 1)], "me", CPU)) for _ in range(2))
    first, second = wanted

    assert first.result() is second.result()
    assert len(traced) == 1


def test_what_could_not_be_traced_is_tried_again() -> None:
    shared, attempts = graphs.Shared[str](), []

    def once_broken() -> graphs.Traced[str]:
        attempts.append(threading.current_thread().name)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return graphs.trace(tf.identity, [(ROWS, 1)], "me", CPU)

    with pytest.raises(ValueError, match="not yet"):
        shared.get(("identity", None), once_broken).result()

    assert shared.get(("identity", None), once_broken).result().owner == "me"


def test_the_smallest_call_is_made_once_and_has_the_rows_that_were_said() -> None:
    counted = tf.Variable(0)
    rows = tf.Variable(-1)

    def count(x: tf.Tensor) -> tf.Tensor:
        counted.assign_add(1)
        rows.assign(tf.shape(x)[0])
        return x

    shared = graphs.Shared[str]()
    for _ in range(2):
        shared.get(("count", None), lambda: graphs.trace(count, [(ROWS, 3)], "me", CPU)).result()

    assert counted.numpy() == 1
    assert rows.numpy() == 3


def test_a_graph_that_is_taken_over_changes_the_other_variable_alone() -> None:
    mine, other = tf.Variable(1.0), tf.Variable(10.0)
    traced = graphs.trace(lambda x: mine.assign_add(tf.reduce_sum(x)), [(ROWS, 1)], "me", CPU)

    graphs.take_over(traced.function, [mine], [other])(tf.constant([2.0, 3.0]))

    np.testing.assert_equal([mine.numpy(), other.numpy()], [1.0, 15.0])
