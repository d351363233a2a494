"""Who may import whom (DESIGN): read from the source, and from what an import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HYDRA = {"hydra", "omegaconf"}
TENSORFLOW = {"tensorflow", "keras"}


def room(file: Path) -> str:
    """`analysis` for harness/analysis/stats.py, `config` for harness/config.py."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports when it runs, at the top or later; not what only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node)


IMPORTS = {file: set(imported(ast.parse(file.read_text()))) for file in FILES}


def tops(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in IMPORTS[file]}


def rooms(file: Path) -> set[str]:
    return {name.split(".")[1] for name in IMPORTS[file] if name.startswith("harness.")}


def those_in(*names: str) -> list[Path]:
    found = [file for file in FILES if room(file) in names]
    assert found, names
    return found


def test_analysis_knows_numbers_and_drawings_only() -> None:
    allowed = {
        "numpy",
        "pandas",
        "scipy",
        "statsmodels",
        "matplotlib",
        "PIL",
        "jinja2",
        "harness",
        *sys.stdlib_module_names,
    }
    for file in those_in("analysis"):
        assert tops(file) <= allowed, file
        assert rooms(file) <= {"analysis", "bins"}, file


def test_only_tracking_imports_mlflow() -> None:
    assert {room(file) for file in FILES if "mlflow" in tops(file)} == {"tracking"}


def test_models_data_and_training_know_nothing_of_mlflow_or_hydra() -> None:
    for file in those_in("models", "data", "training"):
        assert not tops(file) & ({"mlflow"} | HYDRA), file
        assert not rooms(file) & {"tracking", "config", "checks", "sweep", "runner", "analysis", "report"}, file


def test_only_the_entry_config_and_composition_know_hydra() -> None:
    assert {room(file) for file in FILES if HYDRA & tops(file)} <= {
        "__main__",
        "config",
        "checks",
        "composition",
        "launching",
    }


def test_tracking_knows_neither_tensorflow_nor_hydra() -> None:
    for file in those_in("tracking"):
        assert not tops(file) & (HYDRA | TENSORFLOW), file


@pytest.mark.parametrize(
    ("modules", "kept_out"),
    [
        (
            "harness, harness.config, harness.composition, harness.sweep, harness.streams",
            TENSORFLOW | {"mlflow", "sklearn", "pandas"},
        ),
        ("harness.models.architectures", TENSORFLOW | HYDRA | {"mlflow"}),
        (
            ", ".join(f"harness.analysis.{file.stem}" for file in FILES if room(file) == "analysis"),
            TENSORFLOW | HYDRA | {"mlflow"},
        ),
        ("harness.tracking.writer", TENSORFLOW | HYDRA | {"sklearn", "scipy.stats", "scipy.optimize"}),
        ("harness.quiet; harness.quiet.import_tensorflow()", HYDRA | {"mlflow", "sklearn", "matplotlib"}),
    ],
    ids=["entry", "architectures", "analysis", "writer", "tensorflow"],
)
def test_importing_these_loads_none_of_those(modules: str, kept_out: set[str]) -> None:
    code = f"import sys, {modules}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "harness" in loaded
    assert not kept_out & set(loaded)
