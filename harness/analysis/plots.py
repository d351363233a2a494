"""All figures in one place, as `harness.plots` for notebooks: matplotlib Figures, and Images of Pillow."""

from harness.analysis.activations import Histogram, histograms
from harness.analysis.curves import learning_curves
from harness.analysis.decompositions import against_value, stacked_bars
from harness.analysis.figure import COLORS, new_figure, png, short_names, styles, svg
from harness.analysis.mistakes import confusion_matrix, worst_mistakes
from harness.analysis.propagation import gradient_figure, signal_figure
from harness.analysis.sources import source_bars
from harness.analysis.strips import better_share, paired_differences, raw_points

__all__ = [
    "COLORS",
    "Histogram",
    "against_value",
    "better_share",
    "confusion_matrix",
    "gradient_figure",
    "histograms",
    "learning_curves",
    "new_figure",
    "paired_differences",
    "png",
    "raw_points",
    "short_names",
    "signal_figure",
    "source_bars",
    "stacked_bars",
    "styles",
    "svg",
    "worst_mistakes",
]
