"""The whole state of a run as bytes: an npz without pickles."""

import io
import zipfile

import numpy as np
import numpy.typing as npt

State = dict[str, npt.NDArray[np.generic]]


class CheckpointError(ValueError):
    """Bytes that are no whole checkpoint."""


def pack(state: State) -> bytes:
    """The state as an npz file (uncompressed: weights do not compress)."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **state)
    return buffer.getvalue()


def unpack(content: bytes) -> State:
    """The state that was packed.

    Raises:
        CheckpointError: truncated or damaged content (zip checks a CRC of each array), or no npz at all.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"no whole checkpoint: {error}") from error
