"""Claims: of all processes that could train a run, one does. A claim ends with its holder, however that ends.

A store below a folder is used by one machine, whose kernel keeps file locks and drops those of a process that dies.
On a server or a database the claim is a registered model: MLflow's store keeps the names of those unique, so that of
several that create one at once a single one succeeds. It is deleted when the run is over; while it is held a tag of it
beats. Clocks of several machines are never compared: a claim is dead when its beat, as seen from here, stands still.
"""

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from harness.tracking import provenance
from harness.tracking.store import StoreError

BEAT_SECONDS, EXPIRES_SECONDS = 10.0, 60.0


class Claim(Protocol):
    """The right to train one run, or to do one thing, until `release`. `lost` is set if another has taken it over."""

    lost: threading.Event

    def release(self) -> None:
        """Give it back; again does nothing."""


class Claims(Protocol):
    """Where claims are taken. `pause`: seconds to wait before one that is held elsewhere is asked for again."""

    pause: float

    def take(self, key: str) -> Claim | None:
        """The claim on `key`, or None while another living holder has it, in this process or another."""

    def close(self) -> None:
        """Give back all that is still held."""


@contextlib.contextmanager
def hold(claims: Claims, key: str) -> Iterator[None]:
    """Wait for the claim on `key`, and hold it."""
    while (claim := claims.take(key)) is None:
        time.sleep(claims.pause)
    try:
        yield
    finally:
        claim.release()


def claims_of(uri: str | None, folder: Path, experiment_id: str) -> Claims:
    """The claims of one experiment in the store at `uri`, or below `folder`."""
    return FolderClaims(folder / "claims", experiment_id) if uri is None else StoreClaims(uri, experiment_id)


def claims_at(uri: str, experiment_id: str) -> Claims:
    """The claims of one experiment in the store at `uri`: in the folder of an sqlite file, as one machine uses that."""
    database = uri.removeprefix("sqlite:///")
    return claims_of(uri if database == uri else None, Path(database).parent, experiment_id)


class Stop(threading.Event):
    """Set, or any of the others is: what a run looks at to see whether it should end early."""

    def __init__(self, *others: threading.Event) -> None:
        super().__init__()
        self._others = others

    def is_set(self) -> bool:
        """Whether it, or one of the others, is set."""
        return super().is_set() or any(other.is_set() for other in self._others)


class Unclaimed:
    """For a store that nobody else writes: every claim is granted."""

    pause = 0.0

    def take(self, key: str) -> Claim | None:
        """See Claims."""
        return _Granted()

    def close(self) -> None:
        """See Claims."""


class _Granted:
    def __init__(self) -> None:
        self.lost = threading.Event()

    def release(self) -> None:
        pass


# One machine


class FolderClaims:
    """Claims as locked files in a folder.

    Args:
        folder: made when it is not there.
        experiment_id: keys of different experiments differ.
    """

    pause = 0.2

    def __init__(self, folder: Path, experiment_id: str) -> None:
        self._folder, self._experiment_id = folder, experiment_id
        self._held: set[_FileClaim] = set()

    def take(self, key: str) -> Claim | None:
        """See Claims.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self._folder / f"{self._experiment_id}.{key}"
        try:
            while True:
                self._folder.mkdir(parents=True, exist_ok=True)
                try:
                    file = path.open("ab")
                except FileNotFoundError:  # another has just taken the empty folder away
                    continue
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    return None
                if _is_file_at(file, path):
                    claim = _FileClaim(path, file)
                    self._held.add(claim)
                    return claim
                file.close()  # its last holder has just taken the file away
        except OSError as error:
            raise StoreError(f"{self._folder}: runs cannot be claimed: {error.strerror}") from None

    def close(self) -> None:
        """See Claims."""
        for claim in self._held:
            claim.release()
        with contextlib.suppress(OSError):  # others hold claims in it
            self._folder.rmdir()


class _FileClaim:
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file, self.lost = path, file, threading.Event()

    def release(self) -> None:
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()


def _is_file_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


# Several machines


class StoreClaims:
    """Claims in an MLflow store, as registered models `harness-claim.<experiment>.<key>.<generation>`.

    Who takes over from a dead holder creates the next generation. As a name can also be free because it has just been
    deleted, whoever has created one looks again, and gives way if there is another that was not seen before: of two
    that both create and then look, one at least sees the other.

    Args:
        uri: of the store.
        experiment_id: keys of different experiments differ.
        beat: seconds between two signs of life.
        expires: seconds without one after which a holder on another machine is dead.
    """

    pause = 1.0

    def __init__(
        self, uri: str, experiment_id: str, beat: float = BEAT_SECONDS, expires: float = EXPIRES_SECONDS
    ) -> None:
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._prefix, self._beat, self._expires = f"harness-claim.{experiment_id}", beat, expires
        self._held: dict[str, _StoreClaim] = {}
        self._seen: dict[str, tuple[tuple[str, str], float, float]] = {}  # sign of life, since when, looked at last
        self._abandoned: dict[str, str] = {}  # holder -> name, of ours that nobody holds, if they are still there
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._heart: threading.Thread | None = None

    def take(self, key: str) -> Claim | None:
        """See Claims.

        Raises:
            MlflowException: the store does not answer.
        """
        dead = self._there(key)
        if any(not self._is_dead(each) for each in dead):
            return None
        known = {each.name for each in dead}
        name = f"{self._prefix}.{key}.{1 + max((_generation(each) for each in dead), default=0)}"
        holder = uuid.uuid4().hex
        tags = {**provenance.process(), "boot": _boot(), "holder": holder, "beat": "0"}
        try:
            self._client.create_registered_model(name, tags=tags, description="A run in training; deleted at its end.")
            others = {each.name for each in self._there(key)} - known - {name}
        except MlflowException as error:
            self._abandoned[holder] = name  # made after all, perhaps, but the answer was lost
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                return None
            raise
        claim = _StoreClaim(self, name, holder)
        if others:
            self.delete(name, holder)
            return None
        with self._lock:
            self._held[name] = claim
            if self._heart is None:
                self._heart = threading.Thread(target=self._live, name="claims", daemon=True)
                self._heart.start()
        for name in known:
            self.delete(name)
        return claim

    def close(self) -> None:
        """See Claims."""
        self._closed.set()
        for claim in list(self._held.values()):
            claim.release()
        if self._heart is not None:
            self._heart.join()

    def forget(self, name: str) -> bool:
        """Take a claim off those that beat; whether it was one."""
        with self._lock:
            return self._held.pop(name, None) is not None

    def delete(self, name: str, holder: str | None = None) -> None:
        """Delete a claim's model: another may have done so, or may alone be allowed to. Ours is tried again."""
        try:
            self._client.delete_registered_model(name)
        except MlflowException as error:
            if holder is not None and error.error_code != "RESOURCE_DOES_NOT_EXIST":
                self._abandoned[holder] = name

    def _clear(self) -> None:
        """Delete what was abandoned and is there."""
        for holder, name in list(self._abandoned.items()):
            try:
                if self._client.get_registered_model(name).tags.get("holder") == holder:
                    self._client.delete_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    continue
            del self._abandoned[holder]

    def _there(self, key: str) -> list[RegisteredModel]:
        return list(self._client.search_registered_models(f"name LIKE '{self._prefix}.{key}.%'", max_results=100))

    def _is_dead(self, model: RegisteredModel) -> bool:
        tags, now = model.tags, time.monotonic()
        if tags.get("holder") in self._abandoned:
            return True
        if (tags.get("host"), tags.get("boot")) == (socket.gethostname(), _boot()):
            return not provenance.alive(tags["host"], tags.get("pid", ""), tags.get("process_started", ""))
        life = (tags.get("holder", ""), tags.get("beat", ""))
        with self._lock:
            seen, since, looked = self._seen.get(model.name, (life, now, now))
            if seen != life or now - looked > self._expires / 2:  # while nobody could look, nobody could beat
                since = now
            self._seen[model.name] = (life, since, now)
            return bool(now - since > self._expires)

    def _live(self) -> None:
        count = 0
        while not self._closed.wait(self._beat):
            count += 1
            with self._lock:
                held = list(self._held.items())
            self._clear()
            for name, claim in held:
                try:
                    self._client.set_registered_model_tag(name, "beat", str(count))
                except MlflowException as error:  # a store that is away for a moment is asked again at the next beat
                    if error.error_code == "RESOURCE_DOES_NOT_EXIST" and name in self._held:
                        claim.lost.set()


class _StoreClaim:
    def __init__(self, claims: StoreClaims, name: str, holder: str) -> None:
        self._claims, self._name, self._holder, self.lost = claims, name, holder, threading.Event()

    def release(self) -> None:
        if self._claims.forget(self._name):
            self._claims.delete(self._name, self._holder)


def _generation(model: RegisteredModel) -> int:
    return int(model.name.rpartition(".")[2])


def _boot() -> str:
    """What tells this machine from another of the same name; the kernel makes it anew at each start."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
