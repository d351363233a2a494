"""Files of runs: straight on the disk where the store keeps them there, through MLflow where it does not."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from harness.targets import first_line
from harness.tracking.store import StoreError

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints."""


def local_folder(run: Run) -> Path | None:
    """The run's artifact folder, if it is on this machine's disk."""
    return local_path(run.info.artifact_uri)


def local_path(uri: str) -> Path | None:
    """The folder that an artifact URI means, if it is on this machine's disk (a path or a file: URI)."""
    parts = urlparse(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def write(client: MlflowClient, run: Run, files: Mapping[str, bytes]) -> None:
    """Log files (name -> content) as artifacts of a run. On a disk each is whole or not there."""
    folder = local_folder(run)
    if folder is not None:
        for name, content in files.items():
            _replace(folder / name, content)
        return
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            path = Path(name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run.info.run_id, name)


def _replace(path: Path, content: bytes) -> None:
    """Write a file that takes its name when it is whole; a folder that others delete meanwhile is made again."""
    part = path.with_name(f".{path.name}.part")
    for left in (2, 1, 0):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            os.replace(part, path)
            return
        except (FileNotFoundError, FileExistsError):  # mkdir's second is of a folder that is gone again
            if not left:
                raise


def read(client: MlflowClient, run: Run, name: str) -> bytes | None:
    """The content of a run's artifact, or None where there is none.

    Raises:
        StoreError: it may be there, but cannot be read now.
    """
    folder = local_folder(run)
    try:
        if folder is not None:
            return (folder / name).read_bytes()
        with tempfile.TemporaryDirectory() as target:
            return Path(client.download_artifacts(run.info.run_id, name, target)).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise StoreError(f"run {run.info.run_id}: {name} cannot be read: {first_line(error)}") from error


def names(client: MlflowClient, run: Run, folder: str) -> list[str]:
    """Names of the files in a folder of the run's artifacts, sorted."""
    here = local_folder(run)
    if here is not None:
        listed = [str(path.relative_to(here)) for path in (here / folder).glob("*")]
    else:
        listed = [file.path for file in client.list_artifacts(run.info.run_id, folder)]
    return sorted(name for name in listed if not Path(name).name.startswith("."))


def delete(run: Run, name: str) -> None:
    """Remove one artifact."""
    if (folder := local_folder(run)) is not None:
        (folder / name).unlink(missing_ok=True)
        return
    get_artifact_repository(run.info.artifact_uri).delete_artifacts(name)  # type: ignore[no-untyped-call]
