"""Where a run comes from: code, versions, machine, command."""

import hashlib
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("harness", "tensorflow", "keras", "numpy", "hydra-core", "mlflow", "pandas", "scipy")


@cache
def git() -> dict[str, str]:
    """`git.sha` and `git.dirty` of the current folder's repository; empty outside one."""

    def ask(*arguments: str) -> str | None:
        try:
            return subprocess.run(
                ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    sha = ask("rev-parse", "HEAD")
    if sha is None:
        return {}
    return {"git.sha": sha, "git.dirty": str(bool(ask("status", "--porcelain"))).lower()}


@cache
def versions() -> dict[str, str]:
    """Package -> version, and Python's."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def process() -> dict[str, str]:
    """What identifies this process among all machines: host, pid, start time (seconds since the epoch)."""
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "process_started": f"{psutil.Process().create_time():.2f}",
    }


def alive(host: str, pid: str, process_started: str) -> bool:
    """Whether that process still runs; a process of another host counts as running."""
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(process_started)) < 1
    except (psutil.Error, ValueError):
        return False


def writing_for(process: Mapping[str, str]) -> str:
    """The claim that is held while anything is still to be written of what a process, by its tags, has told."""
    identity = "@".join(process.get(part, "") for part in ("host", "pid", "process_started"))
    return f"writer-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def without_password(text: str) -> str:
    """The text with what stands between :// and @ left out of every URI."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def command_line() -> str:
    """The command as it can be typed again, without passwords."""
    arguments = [without_password(argument) for argument in sys.argv[1:]]
    program = ["python", "-m", "harness"] if Path(sys.argv[0]).name == "__main__.py" else [Path(sys.argv[0]).name]
    return shlex.join([*program, *arguments])
