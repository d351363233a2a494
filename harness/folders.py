"""Folders that are written at the end: tried at the start."""

import tempfile
from pathlib import Path

from harness.config import ConfigError


def check_writable(folder: Path, key: str) -> None:
    """Make the folder and a file in it, and take away again what was not there: permissions alone do not tell.

    Raises:
        ConfigError: that does not work; names the nearest folder that is there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        raise ConfigError(
            f"{key}={folder}: {there} is no folder that can be written ({error.strerror}); give another"
        ) from None
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
