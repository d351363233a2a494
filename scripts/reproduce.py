"""Write an experiment's results from the MLflow store: `python scripts/reproduce.py bias_variance_width`.

Reads the sweep of the same name; writes results.csv, parts.svg and the table in README.md below experiments/<name>/.
Trains nothing: the command that does is in the README.
"""

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = {
    "error": "test error",
    "error.train": "train error",
    "brier.bias2": "Brier bias²",
    "brier.v_data": "V data",
    "brier.v_init": "V seed",
    "brier.v_interaction": "V data × seed",
    "zero_one.bias2": "0-1 bias²",
    "zero_one.variance": "0-1 V",
}


def markdown(table: pd.DataFrame) -> str:
    """The columns of COLUMNS, each value with its jackknife standard error where there is one."""

    def cell(row: pd.Series, name: str) -> str:
        error = row.get(f"{name}.se")
        return f"{row[name]:.3f}" + (f" ± {error:.3f}" if error is not None else "")

    lines = ["| arm | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for _, row in table.iterrows():
        lines.append("| " + " | ".join([row["arm"], *(cell(row, name) for name in COLUMNS)]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "experiment", choices=[path.parent.name for path in sorted(ROOT.glob("experiments/*/README.md"))]
    )
    parser.add_argument("--folder", default="mlruns", help="folder of the store (default: mlruns)")
    given = parser.parse_args()
    import harness
    from harness.analysis.decompositions import stacked_bars
    from harness.analysis.figure import svg
    from harness.tracking.store import StoreError

    folder = ROOT / "experiments" / given.experiment
    try:
        results = harness.load(given.experiment, folder=given.folder)
    except StoreError as error:
        print(f"error: {error}; the command that trains it is in {folder / 'README.md'}", file=sys.stderr)
        return 2
    table = harness.decompose(results)
    table.to_csv(folder / "results.csv", index=False, float_format="%.6g")
    (folder / "parts.svg").write_text(svg(stacked_bars(table, list(table["arm"]))))
    readme = folder / "README.md"
    filled = f"<!-- results -->\n{markdown(table)}\n\n![parts of the error](parts.svg)\n<!-- end -->"
    readme.write_text(re.sub(r"<!-- results -->.*<!-- end -->", lambda _: filled, readme.read_text(), flags=re.S))
    print(markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
