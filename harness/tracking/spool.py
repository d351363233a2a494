"""What could not be written yet, kept on this machine's disk until it can: JSON beside the files, nothing that runs."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.tracking import provenance
from harness.tracking.entries import ArmStart, Entry


def own(folder: Path, uri: str, experiment_id: str) -> Path:
    """Where this process keeps what is for an experiment."""
    me = provenance.process()
    return folder / "@".join([_store(uri, experiment_id), me["host"], me["pid"], me["process_started"]])


def left(folder: Path, uri: str, experiment_id: str) -> list[Path]:
    """What processes of this machine that are dead have left for an experiment, the oldest first."""
    found = sorted(folder.glob(f"{_store(uri, experiment_id)}@*"), key=lambda path: path.stat().st_mtime)
    return [path for path in found if not provenance.alive(*path.name.split("@")[1:])]


def _store(uri: str, experiment_id: str) -> str:
    return f"{hashlib.sha256(provenance.without_password(uri).encode()).hexdigest()[:8]}-{experiment_id}"


class Spool:
    """Messages for one MLflow experiment, in order, each in a folder of its own.

    Args:
        folder: of this experiment; made with the first message.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = max(map(int, self._names()), default=0) + 1

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*") if path.name.isdigit())

    def __len__(self) -> int:
        return len(self._names())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process writes what is kept here; there may be nothing left then."""
        try:
            file = (self.folder / "lock").open("w")
        except FileNotFoundError:  # another has written all of it
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keep(self, message: Entry | ArmStart, runs: Mapping[str, str]) -> str:
        """Put a message at the end; its name.

        Args:
            message: to be written later.
            runs: run key or arm key -> MLflow run id, of those that are known.

        Raises:
            OSError: it cannot be written; nothing of it is left.
        """
        name = f"{self._next:09d}"
        self._next += 1
        part = self.folder / f"{name}.part"
        try:
            self._write(part, message, runs)
            os.replace(part, self.folder / name)  # whole or not there
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return name

    def _write(self, part: Path, message: Entry | ArmStart, runs: Mapping[str, str]) -> None:
        part.mkdir(parents=True)
        content = {each.name: getattr(message, each.name) for each in dataclasses.fields(message)}
        files = content.pop("files", {})
        for number, data in enumerate(files.values()):
            (part / str(number)).write_bytes(data)
        kind = type(message).__name__
        (part / "message.json").write_text(json.dumps([kind, content, list(files), dict(runs)]))

    def waiting(self) -> Iterator[tuple[str, Entry | ArmStart, dict[str, str]]]:
        """Name, message and known runs of all that waits, in order."""
        for name in self._names():
            place = self.folder / name
            kind, content, files, runs = json.loads((place / "message.json").read_text())
            if kind == "ArmStart":
                yield name, ArmStart(**content), runs
            else:
                content["metrics"] = [(*point,) for point in content["metrics"]]
                read = {file: (place / str(number)).read_bytes() for number, file in enumerate(files)}
                yield name, Entry(files=read, **content), runs

    def done(self, name: str) -> None:
        """Forget a message: it is written."""
        shutil.rmtree(self.folder / name)
        if not self._names():
            shutil.rmtree(self.folder)
