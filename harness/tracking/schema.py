"""The version of an sqlite store: is it one that this MLflow reads? Said in a line, before MLflow meets it."""

import contextlib
import sqlite3
from functools import cache
from pathlib import Path
from urllib.parse import quote

CHECKED_BYTES = 32 * 2**20
"""Larger databases are not read page by page at each start: a second for 300 MB. The doctor reads all of them."""


class SchemaError(ValueError):
    """A database that this MLflow cannot use: what it is, the way out, and whether it only is older."""

    def __init__(self, what: str, way_out: str, older: bool = False) -> None:
        super().__init__(f"{what}; {way_out}")
        self.what, self.way_out, self.older = what, way_out, older


def check_schema(database: Path, pages: bool = True) -> None:
    """Refuse a database that is damaged or of another version of MLflow's tables; one without any is new.

    Args:
        database: an sqlite file that is there.
        pages: also look at all its pages, a second for 300 MB.

    Raises:
        SchemaError: with what to do.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=5)) as store:
            tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return
            found = (
                store.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
            if pages and (damage := store.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(" ".join(str(damage).split()))
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            return
        raise SchemaError(
            f"{database} is damaged: {error}",
            "put back a copy, or save what can be read with `sqlite3 mlflow.db .recover | sqlite3 new.db`",
        ) from None
    check_version(database, found[0][0] if found else None)


def check_version(database: Path, version: str | None) -> None:
    """Refuse a version of MLflow's tables that is not this MLflow's.

    Raises:
        SchemaError: older, newer, or no tables of MLflow's at all.
    """
    if version is None:
        raise SchemaError(f"{database} is no database of MLflow's", "give another folder")
    known = _versions()
    if version == known[0]:
        return
    if version in known:
        raise SchemaError(
            f"{database} is of an older MLflow (version {version} of its tables, {known[0]} here)",
            f"`python -m harness.doctor --folder {database.parent} --fix` copies and upgrades it",
            older=True,
        )
    raise SchemaError(
        f"{database} is of a newer MLflow (version {version} of its tables is not known here)",
        "install the MLflow that wrote it, or give another folder",
    )


def make(database: Path) -> None:
    """Make MLflow's tables in a file beside it, which takes its name when it is whole: that takes MLflow seconds."""
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables

    part = database.with_name(f".{database.name}.part")
    for left in (part, part.with_name(f"{part.name}-journal")):
        left.unlink(missing_ok=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{part}")
    try:
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()
    part.replace(database)


def upgrade(database: Path) -> None:
    """Bring its tables to this MLflow's version, after a copy beside it."""
    import sqlalchemy
    from mlflow.store.db.utils import _upgrade_db

    with (
        contextlib.closing(sqlite3.connect(database)) as source,
        contextlib.closing(sqlite3.connect(database.with_name(f"{database.name}.before-upgrade"))) as copy,
    ):
        source.backup(copy)
    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    try:
        _upgrade_db(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


@cache
def _versions() -> list[str]:
    """Every version of MLflow's tables up to this one's, the latest first."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))  # type: ignore[no-untyped-call]
    return [script.revision for script in scripts.walk_revisions()]
