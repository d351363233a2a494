"""A study as a page: claims first, then the sections in the order in which a reviewer asks for them."""

from collections import Counter

from harness.analysis import net_sections, score_sections
from harness.analysis.claims import KINDS
from harness.analysis.render import Page
from harness.analysis.study import Study

SECTIONS = (
    score_sections.provenance,
    score_sections.overview,
    score_sections.points,
    score_sections.differences,
    score_sections.pairwise,
    score_sections.forest,
    score_sections.selection,
    score_sections.spread,
    net_sections.bias_variance,
    net_sections.learning_curves,
    net_sections.activations,
    net_sections.step_zero,
    net_sections.across_data,
    net_sections.single_examples,
    net_sections.limits,
)


def page(study: Study) -> Page:
    """The report of a study."""
    sections = [section(study) for section in SECTIONS]
    return Page(study.name, study.question, study.claims, remarks(study), sections)


def remarks(study: Study) -> list[str]:
    """What stands beside the claims: why there are none, and what is missing."""
    found = []
    counts = Counter(claim.kind for claim in study.claims)
    if sum(counts.values()) > Page.unfolded:
        found.append(f"All together: {', '.join(f'{counts[kind]} {kind}' for kind in KINDS if counts[kind])}.")
    if not study.claims:
        if len(study.compared) < 2:
            found.append("One arm: nothing is claimed.")
        else:
            found.append(
                "No baseline was declared, so nothing is claimed: sweep.baseline=ARM or sweep.family=all_pairs."
            )
    missing, failed = int(study.summary["missing"].sum()), int(study.summary["failed"].sum())
    if missing or failed:
        total = len(study.arms) * study.planned
        found.append(f"Unfinished: of {total} runs {missing} are missing and {failed} failed.")
    if study.planned == 1:
        found.append("Single run: one block says nothing about luck.")
    return found
