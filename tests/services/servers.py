"""Real services on loopback: PostgreSQL, and an MLflow server on it with proxied artifacts and basic auth."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SECRET, DATABASE_SECRET = "planted-secret-of-the-user", "planted-secret-of-the-database"


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl, as Debian has it, or as it is on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).parent if found else None


def missing() -> str | None:
    """Why there can be no server here, or None."""
    for module in ("psycopg", "flask_wtf", "uvloop"):
        if importlib.util.find_spec(module) is None:
            return f"`make test-services` installs {module}"
    if postgres_programs() is None:
        return "`make test-services` installs PostgreSQL"
    return None


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """An MLflow server: its address, the environment of a user who may log to it, and where its artifacts lie."""

    uri: str
    database: str
    artifacts: Path
    log: Path

    @property
    def user(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": SECRET,
        }


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """An empty PostgreSQL with passwords on: its URI without the password."""
    if reason := missing():
        pytest.skip(reason)
    programs, folder, port = postgres_programs(), Path(tempfile.mkdtemp(prefix="harness-pg-")), free_port()
    assert programs is not None
    (folder / "password").write_text(DATABASE_SECRET)
    as_user: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses
        user = pwd.getpwnam("postgres")
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]

    def ask(program: str, *words: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(folder / "db"), *words]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=100)

    ask("initdb", "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
    options = f"-p {port} -k {folder} -h 127.0.0.1 -F"
    ask("pg_ctl", "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        ask("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`mlflow server` as docs/server.md starts it."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {postgres}\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
    )
    made = Server(f"http://127.0.0.1:{port}", postgres, folder / "artifacts", folder / "log")
    environment = os.environ | {
        "PGPASSWORD": DATABASE_SECRET,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": SECRET,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--backend-store-uri", postgres, "--artifacts-destination", str(made.artifacts), "--app-name", "basic-auth"),
        *("--allowed-hosts", f"127.0.0.1:{port}"),
    ]
    with made.log.open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        patience = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{made.uri}/health", timeout=5):
                break
            assert process.poll() is None, made.log.read_text()
            assert time.monotonic() < patience, made.log.read_text()
            time.sleep(0.2)
        yield made
    finally:
        process.terminate()
        process.wait(30)
