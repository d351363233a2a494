"""Experiment tracking that ends in a claim: multi-seed comparisons of neural nets, logged to MLflow.

For notebooks: `load` a sweep, `compare` its arms, `decompose` them into bias and variance, and `plots` of all kinds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis import plots
    from harness.notebook import compare, decompose, load

__version__ = "0.1.0"
__all__ = ["compare", "decompose", "load", "plots"]


def __getattr__(name: str) -> Any:
    """Import what a notebook asks for when it asks: importing `harness` alone takes milliseconds."""
    if name == "plots":
        return import_module("harness.analysis.plots")
    if name in __all__:
        return getattr(import_module("harness.notebook"), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}; for notebooks it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
