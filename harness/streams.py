"""A block's named random streams: every seed is a hash of what it is for, never a draw from shared state."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

STREAMS = ("draw", "init", "order", "augment", "dropout")


def seed(root: int, *names: object) -> int:
    """A seed in [0, 2^63) that depends on `root` and on every name, in order."""
    text = "/".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Block:
    """One unit of replication: the seeds of all random streams. All arms of a sweep run on the same blocks.

    `id` is the number the user gave in `seeds`; the streams are hashes of (root seed, stream, id).
    """

    id: int
    draw: int
    init: int
    order: int
    augment: int
    dropout: int

    @classmethod
    def of(cls, id: int, root: int = 0) -> "Block":
        """The block with this id below this root seed."""
        return cls(id, *(seed(root, stream, id) for stream in STREAMS))

    @property
    def seeds(self) -> dict[str, int]:
        """Stream name -> seed."""
        return {stream: getattr(self, stream) for stream in STREAMS}


def blocks(ids: int | Iterable[int], root: int = 0) -> tuple[Block, ...]:
    """The blocks of `seeds=5` (ids 0 to 4) or of `seeds=[0,7]`."""
    return tuple(Block.of(i, root) for i in (range(ids) if isinstance(ids, int) else ids))
