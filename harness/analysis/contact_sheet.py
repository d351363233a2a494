"""Training images beside what augmentation makes of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from harness.analysis.figure import NARROW, new_figure

Images = npt.NDArray[np.floating]
ROWS, TIMES = 8, 9
"""Images on a sheet, and how often each is augmented."""
GAP = 0.06
"""Between two images, as a share of their side."""


def contact_sheet(images: Images, augmented: Images, names: Sequence[str]) -> Figure:
    """One row an image: as it is, then each of its augmentations.

    Args:
        images: (n, height, width, channels) in [0, 1]; one channel is gray, of others than three the first is shown.
        augmented: (n, times, height, width, channels); values beyond [0, 1] are clipped.
        names: of the images' classes, n.
    """
    together = np.concatenate([images[:, None], augmented], axis=1)
    together = np.clip(together if together.shape[-1] == 3 else together[..., :1], 0, 1)
    rows, columns, height, width, channels = together.shape
    gap = max(1, round(GAP * max(height, width)))
    cell_h, cell_w = height + gap, width + gap
    sheet = np.ones((rows, cell_h, columns, cell_w, channels), together.dtype)
    sheet[:, :height, :, :width] = together.transpose(0, 2, 1, 3, 4)
    page = sheet.reshape(rows * cell_h, columns * cell_w, channels)
    page = np.insert(page, [cell_w] * 2 * gap, 1, axis=1)  # the images apart from what is made of them
    figure = new_figure(NARROW, NARROW * page.shape[0] / page.shape[1] + 0.5)
    axes = figure.subplots()
    axes.imshow(np.broadcast_to(page, (*page.shape[:2], 3)), interpolation="nearest")
    axes.set_yticks(np.arange(rows) * cell_h + height / 2, names, fontsize=8)
    axes.set_xticks([width / 2, page.shape[1] / 2 + cell_w / 2], ["the image", "augmented"], fontsize=8)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure
