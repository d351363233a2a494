"""The saved model: the same file as Keras writes, with the weights of now."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from harness.training import export
from harness.training.export import Export


def net() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(3, 3, name="conv1"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dropout(0.5, seed=3),
            layers.Dense(4, name="logits"),
        ]
    )


def filled(model: keras.Model, seed: int) -> keras.Model:
    drawn = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(drawn.normal(size=weight.shape).astype("float32"))
    return model


def loaded(content: bytes, folder: Path) -> keras.Model:
    (folder / "model.keras").write_bytes(content)
    return keras.models.load_model(folder / "model.keras")


@pytest.mark.parametrize("large", [export.LARGE, 0], ids=["in place", "by Keras"])
def test_each_file_holds_the_weights_of_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(export, "LARGE", large)
    model = filled(net(), 0)
    exporting = Export(model, model.weights)
    for seed in (1, 2):
        filled(model, seed)
        content = exporting.content(model.weights)
        assert (content is None) == (large == 0)
        back = loaded(content or export.saved(model), tmp_path)
        for mine, weight in zip(back.weights, model.weights, strict=True):
            np.testing.assert_array_equal(mine.numpy(), weight.numpy())
        x = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype("float32")
        np.testing.assert_array_equal(back(x), model(x))


def test_making_one_leaves_the_model_as_it_was() -> None:
    model = filled(net(), 5)
    before = [variable.numpy() for variable in model.variables]
    Export(model, model.weights)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())
