from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.layout import WeightedLayer
from harness.analysis.propagation import expected_moment, first_losses, initializer_of, signal_figure, step_zero
from harness.analysis.theory import initial_cross_entropy

NET = [WeightedLayer("dense1", (100, 50), (100,), "input"), WeightedLayer("logits", (50, 10), (50,), "dense1")]
HE = {"initializer.default._target_": "keras.initializers.HeNormal", "preprocess._target_": "harness.standardize"}


def moments(arm: str, values: dict[tuple[str, str, str], float], runs: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": arm, "run_id": f"{arm}{r}", "step": 0, "layer": layer, "array": array, "moment": moment, "value": v}
            for r in range(runs)
            for (layer, array, moment), v in values.items()
        ]
    )


GOOD = {
    ("dense1", "pre_activation", "mean_square"): 2.0,
    ("dense1", "activation", "mean_square"): 1.0,
    ("dense1", "activation", "dead"): 0.0,
    ("logits", "pre_activation", "mean_square"): 2.0,
}


def test_the_expectation_is_conditional_on_the_measured_input():
    runs = pd.DataFrame([{"arm": "a", **HE}])
    table = step_zero(moments("a", GOOD), runs, ["a"], {"a": NET}).set_index("layer")
    # He: Var[w] = 2/fan_in, so E z^2 = 2 m2, of standardized inputs (m2 = 1) and of measured activations (m2 = 1).
    assert table["expected"].tolist() == pytest.approx([2, 2])
    assert table["ratio"].tolist() == pytest.approx([1, 1])
    assert table["scatter"].tolist() == pytest.approx([np.sqrt(2 / 50), np.sqrt(2 / 10)])
    assert table["verdict"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("change", "layer", "verdict"),
    [
        ({("logits", "pre_activation", "mean_square"): 20.0}, "logits", "off"),
        ({("dense1", "activation", "dead"): 1.0}, "dense1", "dead"),
        ({("dense1", "activation", "saturated"): 0.9}, "dense1", "saturated"),
    ],
)
def test_layers_that_are_off_dead_or_saturated_are_named(change, layer, verdict):
    table = step_zero(moments("a", GOOD | change), pd.DataFrame([{"arm": "a", **HE}]), ["a"], {"a": NET})
    assert table.set_index("layer").loc[layer, "verdict"] == verdict


def test_without_a_net_or_a_known_initializer_nothing_is_expected():
    runs = pd.DataFrame([{"arm": "a", **HE}])
    assert step_zero(moments("a", GOOD), runs, ["a"], {})["expected"].isna().all()
    unknown = runs.assign(**{"initializer.default._target_": "my.Own"})
    assert step_zero(moments("a", GOOD), unknown, ["a"], {"a": NET})["expected"].isna().all()
    assert signal_figure(step_zero(moments("a", GOOD), runs, ["a"], {}), ["a"]).axes


def test_the_summed_squares_under_the_window_give_the_exact_expectation():
    conv = WeightedLayer("conv1", (3, 3, 4, 8), (6, 6, 4), None, (1, 1), "same")
    assert expected_moment(conv, 0.5, np.nan, 7.0) == pytest.approx(3.5)
    assert np.isnan(expected_moment(conv, 0.5, np.nan))
    # A uniform map of mean square 1: the mean number of taps inside a 6 x 6 map is (3 - 2/6)^2.
    assert expected_moment(conv, 0.5, 1.0) == pytest.approx(0.5 * 4 * (3 - 2 / 6) ** 2)


def test_output_goes_before_dense_before_default():
    config = HE | {
        "initializer.output._target_": "keras.initializers.GlorotNormal",
        "initializer.dense._target_": "keras.initializers.RandomNormal",
        "initializer.dense.stddev": "0.01",
        "initializer.conv": "None",
        "initializer.default.gain": np.nan,
    }
    assert initializer_of(config, NET[0]) == ("RandomNormal", {"stddev": 0.01})
    assert initializer_of(config, NET[1]) == ("GlorotNormal", {})
    assert initializer_of(config, WeightedLayer("c", (3, 3, 1, 2), (8, 8, 1), None)) == ("HeNormal", {})


def test_the_first_loss_is_that_of_normal_logits():
    curves = pd.DataFrame([{"arm": "a", "step": 0, "metric": "loss/train", "value": 3.4}])
    row = first_losses(moments("a", GOOD), curves, ["a", "b"], 10).iloc[0]
    assert row["q"] == 2.0
    assert row["expected"] == pytest.approx(initial_cross_entropy(2.0, 10), rel=1e-3)


@pytest.mark.parametrize("q", [1e-5, 0.02, 0.5, 7.0, 300.0, 1e6])
def test_first_losses_follow_the_integral_over_all_scales(q):
    curves = pd.DataFrame([{"arm": "a", "step": 0, "metric": "loss/train", "value": 3.4}])
    frame = moments("a", {("logits", "pre_activation", "mean_square"): q}, runs=1)
    assert first_losses(frame, curves, ["a"], 10)["expected"][0] == pytest.approx(
        initial_cross_entropy(q, 10), rel=2e-3
    )
