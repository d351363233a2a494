"""A block's named random streams: every seed is a hash of what it is for, never a draw from shared state."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

STREAMS = ("draw", "init", "order", "augment", "dropout")


def seed(root: int, *names: object) -> int:
    """A seed in [0, 2^63) that depends on `root` and on every name, in order."""
    text = "/".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Block:
    """One unit of replication: the seeds of all random streams. All arms of a sweep run on the same blocks.

    The streams are hashes of (root seed, stream, id). In a crossed design (`draws=K seeds=S`) the draw stream comes
    from `draw_id` and the others from `id`, so that every draw meets every seed.

    Attributes:
        id: the number the user gave in `seeds`.
        draw_id: number of the data draw, or None where each block draws for itself.
    """

    id: int
    draw: int
    init: int
    order: int
    augment: int
    dropout: int
    draw_id: int | None = None

    @classmethod
    def of(cls, id: int, root: int = 0, draw_id: int | None = None) -> "Block":
        """The block with this id below this root seed."""
        ids = {stream: id for stream in STREAMS}
        if draw_id is not None:
            ids["draw"] = draw_id
        return cls(id, **{stream: seed(root, stream, number) for stream, number in ids.items()}, draw_id=draw_id)

    def varying(self, streams: Collection[str], held: "Block") -> "Block":
        """The block with its own seeds in these streams alone, and the `held` block's in all others."""
        return replace(self, **{name: value for name, value in held.seeds.items() if name not in streams})

    @property
    def seeds(self) -> dict[str, int]:
        """Stream name -> seed."""
        return {stream: getattr(self, stream) for stream in STREAMS}

    @property
    def name(self) -> str:
        """`seed 3`, or `draw 1 seed 3` in a crossed design."""
        return f"seed {self.id}" if self.draw_id is None else f"draw {self.draw_id} seed {self.id}"


def blocks(ids: int | Iterable[int], root: int = 0, draws: int | None = None) -> tuple[Block, ...]:
    """The blocks of `seeds=5` (ids 0 to 4), of `seeds=[0,7]`, or of `draws=K` crossed with either."""
    listed = list(range(ids)) if isinstance(ids, int) else list(ids)
    drawn: Iterable[int | None] = [None] if draws is None else range(draws)
    return tuple(Block.of(i, root, draw) for draw in drawn for i in listed)
