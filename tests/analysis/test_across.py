from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from harness.analysis.across import (
    by_data,
    improvement,
    iqm_interval,
    method,
    profile,
    profiles,
    resampled,
    strata,
    table,
)

RNG = np.random.default_rng(0)
DATA = ("digits", "mnist", "cifar10")
ARMS = [f"data={name},initializer={scheme}" for name in DATA for scheme in ("he", "glorot")]
CLASSES = dict.fromkeys(ARMS, 10)


def runs_of(blocks: int = 5, arms: list[str] = ARMS) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "data.digest": arm.partition(",")[0],
                "outcome": "finished",
                "accuracy/test": rng.uniform(0.5, 1),
            }
            for arm in arms
            for _ in range(blocks)
        ]
    )


def test_a_method_is_what_is_the_same_on_every_data_set():
    assert method("data=mnist,initializer=he") == "initializer=he"
    assert method("data=npz,data.path=a.npz,optimizer=sgd") == "optimizer=sgd"
    assert method("data=mnist") == "all"


def test_arms_are_grouped_by_the_data_they_saw():
    assert by_data(runs_of(), ARMS) == {f"data={name}": [a for a in ARMS if f"={name}," in a] for name in DATA}


def test_scores_are_the_share_of_the_way_from_chance_to_perfect():
    runs = runs_of()
    runs.loc[0, ["outcome", "accuracy/test"]] = ["diverged", np.nan]
    found = strata(runs, ARMS, CLASSES)
    assert list(found) == ["initializer=he", "initializer=glorot"]
    accuracy = runs.loc[runs["arm"] == ARMS[0], "accuracy/test"].to_numpy()
    assert found["initializer=he"][0][0] == 0  # diverged: as good as chance
    assert found["initializer=he"][0][1:] == pytest.approx((accuracy[1:] - 0.1) / 0.9)


def test_too_few_data_sets_or_runs_or_unknown_classes_have_no_summary():
    assert strata(runs_of(4), ARMS, CLASSES) == {}
    assert strata(runs_of(arms=ARMS[:4]), ARMS[:4], CLASSES) == {}
    assert strata(runs_of(), ARMS, dict(list(CLASSES.items())[1:])) == {}
    assert not len(table({}, None))


def test_the_interquartile_mean_is_scipys_and_its_interval_holds_it():
    scores = [RNG.normal(size=6), RNG.normal(1, 1, 5), RNG.normal(2, 1, 9)]
    value, low, high = iqm_interval(scores)
    assert value == pytest.approx(trim_mean(np.concatenate(scores), 0.25), abs=1e-12)
    assert low < value < high


def test_runs_are_drawn_again_within_their_data_set():
    samples = resampled([np.zeros(3), np.ones(4)], 50, np.random.default_rng(2))
    assert [each.shape for each in samples] == [(50, 3), (50, 4)]
    assert not samples[0].any()
    assert samples[1].all()


def test_the_probability_of_improvement_counts_ties_half():
    value, low, high = improvement([np.array([0.1, 0.2, 0.3])], [np.array([0.1, 0.2, 0.4])])
    assert value == pytest.approx(4 / 9)
    assert low < value < high
    sure = improvement([np.full(3, 2.0), np.full(3, 1.0)], [np.zeros(3), np.full(3, 1.0)])
    assert sure == pytest.approx((0.75, 0.75, 0.75))


def test_a_bootstrap_interval_of_many_runs_covers_the_interquartile_mean():
    rng = np.random.default_rng(3)
    found = [iqm_interval([rng.normal(size=30) for _ in range(3)], resamples=400) for _ in range(300)]
    assert np.mean([low < 0 < high for _, low, high in found]) == pytest.approx(0.95, abs=0.035)


def test_a_profile_is_the_share_of_the_runs_above_a_score():
    scores = [np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.2, 0.2])]
    assert profile(scores, np.array([0.0, 0.15, 0.5, 1.0])) == pytest.approx([1, 5 / 6, 1 / 6, 0])
    (axes,) = profiles({"a": scores, "b": scores}, resamples=20).axes
    assert len(axes.lines) == 2


def test_the_baselines_method_is_what_the_others_improve_on():
    found = table(strata(runs_of(), ARMS, CLASSES), "initializer=glorot").set_index("method")
    assert found["data sets"].tolist() == [3, 3]
    assert np.isnan(found.loc["initializer=glorot", "improvement"])
    assert 0 <= found.loc["initializer=he", "improvement_low"] <= found.loc["initializer=he", "improvement"] <= 1
