"""The MLflow store: opened, created once, and asked whether it answers, before any training."""

import contextlib
import fcntl
import http.client
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # half a minute; 7 are four, in which Ctrl-C is not heard

from mlflow import MlflowClient, set_tracking_uri
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from harness.tracking.provenance import without_password
from harness.tracking.schema import CHECKED_BYTES, SchemaError, check_schema, make

PATIENCE_SECONDS = 5
SIGN_IN = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or write ~/.mlflow/credentials "
    "(for PostgreSQL itself: PGPASSWORD or ~/.pgpass)"
)


class StoreError(RuntimeError):
    """A store that does not answer or cannot be used; the message is one line."""


class NoStoreError(StoreError):
    """There is no store yet."""


def sqlite_uri(folder: Path) -> str:
    """The store's URI below a folder: sqlite with an absolute path."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def open_store(uri: str | None, folder: Path, create: bool = True) -> MlflowClient:
    """A client of the store at `uri`, or of sqlite below `folder`, which is made when it is not there yet.

    Several processes making one sqlite file together would break it for good, so that happens under a lock.

    Raises:
        StoreError: nothing answers there, the folder cannot be written, or there is no store and `create` is off.
    """
    if uri is None:
        database = folder.resolve() / "mlflow.db"
        if odd := next((sign for sign in "?%" if sign in str(database)), None):
            raise StoreError(
                f"tracking.folder={folder}: {database.parent} holds a {odd!r}, which means something else in a "
                "database's address; give another folder"
            )
        return _sqlite(database, sqlite_uri(folder), f"tracking.folder={folder}", create)
    if without_password(uri) != uri and ":" in uri.partition("://")[2].rpartition("@")[0]:
        raise StoreError(f"tracking.uri={without_password(uri)}: holds a password, which would be logged; {SIGN_IN}")
    if uri.startswith(("http://", "https://")):
        _ask(uri)
        # Artifacts behind the server are found by MLflow's global address.
        set_tracking_uri(uri)
    elif uri.startswith("sqlite:////"):
        return _sqlite(Path(uri.removeprefix("sqlite:///").partition("?")[0]), uri, f"tracking.uri={uri}", create)
    elif "://" in uri and not uri.startswith(("sqlite:", "file:", "databricks")):
        _connect(uri)
    return _client(uri)


def experiment_id(client: MlflowClient, name: str, artifacts: Path | None) -> str:
    """The experiment's id; made when it is not there, its artifacts below `artifacts` or where the server puts them.

    Raises:
        StoreError: the experiment lies in MLflow's trash.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            location = None if artifacts is None else _location(artifacts.resolve() / name)
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise StoreError(f"experiment {name!r}: {_brief(error)}") from error
            found = client.get_experiment_by_name(name)
            assert found is not None
    if found.lifecycle_stage == "deleted":
        raise StoreError(
            f"sweep.name={name}: its experiment is in MLflow's trash; restore it with "
            f"`MLFLOW_TRACKING_URI={without_password(client.tracking_uri)} mlflow experiments restore -x "
            f"{found.experiment_id}` or take another name"
        )
    return str(found.experiment_id)


def find_run(client: MlflowClient, run_id: str) -> Run:
    """The run with this id.

    Raises:
        StoreError: there is none.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise StoreError(f"run {run_id}: {_brief(error)}") from None


def _location(folder: Path) -> str:
    """The folder as MLflow takes it: as a URI where a path would be cut off at a # or decoded at a %."""
    return folder.as_uri() if set("#%") & set(str(folder)) else str(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sqlite(database: Path, uri: str, named: str, create: bool) -> MlflowClient:
    try:
        if not create:
            if not database.exists() or database.stat().st_size == 0:  # or it is just being made
                raise NoStoreError(f"{named}: no {database.name} there; train something first")
            _try_sqlite(database, named, write=False)
            return _client(uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        with _locked(database.parent / ".lock"):
            _try_sqlite(database, named, write=True)
            if database.stat().st_size == 0:
                make(database)
            return _client(uri)
    except OSError as error:
        raise StoreError(f"{named}: {error.strerror or error}; give a folder you can write") from None


def _client(uri: str) -> MlflowClient:
    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # each kind of store has errors of its own
        told = _brief(error)
        if any(f"error code {status}" in told for status in (401, 403)):
            status = "401" if "error code 401" in told else "403"
            told = f"does not let this user in ({status}); {SIGN_IN}"
        raise StoreError(f"tracking.uri={without_password(uri)}: {told}") from None
    return client


def _try_sqlite(database: Path, named: str, write: bool) -> None:
    """Open it, as MLflow tries an sqlite file that cannot be opened for minutes."""
    try:
        place = f"file:{quote(str(database))}?mode={'rwc' if write else 'ro'}"
        with contextlib.closing(sqlite3.connect(place, timeout=PATIENCE_SECONDS, uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
            if write:
                connection.execute("BEGIN IMMEDIATE")
    except (sqlite3.Error, OSError) as error:
        if "locked" not in str(error):  # someone is writing, so it works
            raise StoreError(f"{named}: {database} cannot be used: {error}") from None
    try:
        check_schema(database, pages=database.stat().st_size < CHECKED_BYTES)
    except SchemaError as error:
        raise StoreError(f"{named}: {error}") from None


def _ask(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{without_password(uri).rstrip('/')}/health", timeout=PATIENCE_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in (401, 403, 404):
            raise StoreError(f"tracking.uri={without_password(uri)}: answers {error}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise StoreError(
            f"tracking.uri={without_password(uri)}: no MLflow server answers ({reason}); "
            "start one with `mlflow server`, or leave tracking.uri out for a local store"
        ) from None


def _connect(uri: str) -> None:
    import sqlalchemy

    try:
        with sqlalchemy.create_engine(uri, connect_args={"connect_timeout": PATIENCE_SECONDS}).connect():
            pass
    except Exception as error:  # each database driver has errors of its own
        raise StoreError(f"tracking.uri={without_password(uri)}: {_brief(error)}") from None


def _brief(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
