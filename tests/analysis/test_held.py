from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.analysis.held import one_at_a_time, sd_interval, source_sds


def runs_of(vary: dict[str, str]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for arm, streams in vary.items():
        for b in range(6):
            seeds = {f"seed.{s}": str(b if streams == "None" or s in streams else 0) for s in ("draw", "init", "order")}
            score = 0.8 if streams == "[]" else float(rng.normal(0.8, 0.01))
            rows.append({"arm": arm, "vary": streams, "outcome": "finished", "accuracy/test": score, **seeds})
    return pd.DataFrame(rows)


VARY = {"init": "['init']", "order": "['order']", "all": "None", "numerics": "[]"}


def test_each_arm_is_named_by_the_streams_it_varies():
    table = one_at_a_time(runs_of(VARY), list(VARY)).set_index("arm")
    assert table["varied"].to_dict() == {
        "init": "init",
        "order": "order",
        "all": "draw + init + order",
        "numerics": "nothing",
    }
    assert table.loc["numerics", "sd"] == 0
    init = runs_of(VARY).query("arm == 'init'")["accuracy/test"]
    assert table.loc["init", "sd"] == pytest.approx(100 * init.std())


def test_a_stream_that_nothing_uses_is_not_varied():
    runs = runs_of({"augment": "['augment']"}).assign(**{"augment.layers": "[]"})
    runs["seed.augment"] = [str(i) for i in range(len(runs))]
    assert one_at_a_time(runs, ["augment"])["varied"].tolist() == ["nothing"]


def test_without_held_streams_there_is_no_table():
    assert not len(one_at_a_time(runs_of({"a": "None", "b": "None"}), ["a", "b"]))
    assert not len(one_at_a_time(runs_of(VARY).drop(columns="vary"), list(VARY)))


def test_the_interval_of_a_standard_deviation_covers_it():
    rng = np.random.default_rng(1)
    sds = rng.normal(0, 3, (4000, 5)).std(axis=1, ddof=1)
    inside = np.mean([low < 3 < high for low, high in (sd_interval(sd, 5) for sd in sds)])
    assert inside == pytest.approx(0.95, abs=0.01)
    low, high = sd_interval(2.0, 10)
    assert (low, high) == pytest.approx((6 / stats.chi2.ppf(0.975, 9) ** 0.5, 6 / stats.chi2.ppf(0.025, 9) ** 0.5))
    assert np.isnan(sd_interval(1.0, 1)).all()


def test_a_bar_an_arm():
    (axes,) = source_sds(one_at_a_time(runs_of(VARY), list(VARY)), list(VARY)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(VARY)
