"""A block's named random streams."""

from __future__ import annotations

import hashlib

import pytest

from harness.streams import STREAMS, Block, blocks, seed


def test_a_seed_is_63_bits_of_the_sha256_of_its_names() -> None:
    by_hand = int.from_bytes(hashlib.sha256(b"7/init/dense1").digest()[:8], "big") // 2
    assert seed(7, "init", "dense1") == by_hand


def test_seeds_stay_what_they_were() -> None:
    # A change here gives every stored run other random numbers: nothing could be resumed or compared any more.
    assert seed(0, "init", 0) == 7615695542073086227
    assert Block.of(0).seeds == {
        "draw": 6418684186464192386,
        "init": 7615695542073086227,
        "order": 3955691223199900983,
        "augment": 3177512539365405927,
        "dropout": 4023325499779945388,
    }


def test_streams_blocks_and_roots_all_differ() -> None:
    seeds = [value for root in (0, 1) for id in range(50) for value in Block.of(id, root).seeds.values()]
    assert len(set(seeds)) == 2 * 50 * len(STREAMS)
    assert all(0 <= value < 2**63 for value in seeds)


def test_names_are_kept_apart() -> None:
    assert seed(0, "a", "bc") != seed(0, "ab", "c")


def test_a_count_of_seeds_means_the_ids_from_zero() -> None:
    assert blocks(3) == (Block.of(0), Block.of(1), Block.of(2))


def test_seed_zero_is_a_seed_like_any_other() -> None:
    assert blocks([0]) == (Block.of(0),)
    assert Block.of(0).init != Block.of(1).init


def test_a_list_of_seeds_is_taken_as_it_is() -> None:
    assert [block.id for block in blocks([7, 0, 3])] == [7, 0, 3]


def test_a_block_does_not_depend_on_the_others() -> None:
    assert blocks(5)[3] == blocks([3])[0]


def test_in_a_crossed_design_every_draw_meets_every_seed() -> None:
    crossed = blocks([0, 4], draws=3)
    assert [(block.draw_id, block.id) for block in crossed] == [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0), (2, 4)]
    for block in crossed:
        alone = Block.of(block.id)
        assert (block.init, block.order, block.augment, block.dropout) == (
            alone.init,
            alone.order,
            alone.augment,
            alone.dropout,
        )
    assert len({block.draw for block in crossed}) == 3


@pytest.mark.parametrize(("draw", "name"), [(None, "seed 3"), (1, "draw 1 seed 3")])
def test_a_block_is_named_by_its_ids(draw: int | None, name: str) -> None:
    assert Block.of(3, draw_id=draw).name == name
