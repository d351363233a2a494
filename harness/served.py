"""What an MLflow model runs when it is loaded; copied into it: it needs Keras, numpy and pandas, no harness."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LAYERS = "layers"  # as MLflow puts a copy of harness/layers.py beside the copy of this file


class Served:
    """A stored net: raw examples to the probabilities of its classes.

    Args:
        folder: with model.keras and classes.json.
    """

    def __init__(self, folder: Path) -> None:
        import keras

        for module in (f"harness.{LAYERS}", LAYERS):  # registers layers that Keras does not have
            if _is_there(module):
                importlib.import_module(module)
                break
        self._model = keras.models.load_model(folder / "model.keras", compile=False)
        self._classes = json.loads((folder / "classes.json").read_text())

    def predict(self, data: Any, params: Any = None) -> pd.DataFrame:
        """Raw examples (n, height, width, channels) or (n, d), as for `data=npz`, to one row each, one column a class.

        Raises:
            ValueError: examples of another shape.
        """
        if isinstance(data, dict):
            (data,) = data.values()
        x = np.asarray(data, np.float32)
        shape = tuple(self._model.input_shape[1:])
        if x.shape[1:] == shape[:-1] and shape[-1] == 1:
            x = x[..., None]
        if x.shape[1:] != shape:
            raise ValueError(f"inputs: got shape {x.shape}; the net takes (n, {', '.join(map(str, shape))})")
        logits = self._model.predict(x, verbose=0).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return pd.DataFrame(odds / odds.sum(axis=1, keepdims=True), columns=self._classes)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # no harness
        return False


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls."""
    return Served(Path(path))
