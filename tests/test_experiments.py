"""What the experiments conclude, asserted from their stored results."""

from pathlib import Path

import pandas as pd
import pytest

WIDTHS = ["width 3", "width 10", "width 100", "width 300", "width 1000"]


@pytest.fixture(scope="module")
def widths() -> pd.DataFrame:
    folder = Path(__file__).parent.parent / "experiments" / "bias_variance_width"
    return pd.read_csv(folder / "results.csv").set_index("arm").loc[WIDTHS]


def test_the_total_variance_falls_with_width(widths):
    assert widths["brier.variance"].is_monotonic_decreasing
    assert widths["zero_one.variance"].is_monotonic_decreasing


def test_the_bias_falls_until_width_100_and_then_stays(widths):
    bias = widths["brier.bias2"]
    assert bias["width 3"] > 1.5 * bias["width 10"] > 1.5 * bias["width 100"]
    assert abs(bias["width 1000"] - bias["width 100"]) < 0.02


def test_the_part_of_the_seeds_falls_while_that_of_the_data_rises_and_levels_off(widths):
    seeds = widths["brier.v_init"] + widths["brier.v_interaction"]
    assert seeds.is_monotonic_decreasing
    assert seeds["width 3"] > 8 * seeds["width 1000"]
    data = widths["brier.v_data"]
    assert data["width 3"] < data["width 10"] < data["width 100"]
    assert abs(data["width 300"] - data["width 100"]) < 0.02


def test_the_interaction_dominates_the_main_effect_of_the_seeds(widths):
    assert (widths["brier.v_interaction"] > 2 * widths["brier.v_init"]).all()


def test_the_errors_are_near_those_of_the_independent_run(widths):
    reference = pd.read_csv(Path(__file__).parent.parent / "experiments/bias_variance_width/reference.csv")
    both = reference.merge(widths, on="arm", suffixes=("", ".here"))
    assert len(both) == 4
    assert (both["error"] - both["error.here"]).abs().max() < 0.03
    assert (both["brier.bias2"] - both["brier.bias2.here"]).abs().max() < 0.03


def test_bias_and_variance_add_up_to_the_loss(widths):
    assert widths[["brier.check", "zero_one.check", "cross_entropy.check"]].abs().to_numpy().max() < 1e-9
