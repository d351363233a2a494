"""Memory that runs out, as a line that says which setting to lower."""

from harness.targets import first_line

_SAID = ("OOM when allocating", "out of memory", "failed to allocate", "std::bad_alloc")


class OutOfMemoryError(RuntimeError):
    """A run that does not fit in memory; the message is one line."""


def out_of_memory(error: BaseException) -> bool:
    """Whether it is numpy's, Python's or TensorFlow's way of saying that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return type(error).__name__ in ("InternalError", "UnknownError") and any(said in str(error) for said in _SAID)


def explained(error: BaseException, batch_size: int, device: str) -> BaseException:
    """The error itself, or in its place the line that names `train.batch_size`.

    Args:
        error: of a training.
        batch_size: of that training.
        device: on which it ran.
    """
    if not out_of_memory(error):
        return error
    return OutOfMemoryError(
        f"train.batch_size: got {batch_size}, for which {device} has not enough memory; take a smaller batch, fewer "
        f"runs at once (runtime.replicas=1), or a smaller net ({first_line(error)[:200]})"
    )
