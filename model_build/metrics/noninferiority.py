"""Whether a difference with its interval shows that nothing was lost."""

from __future__ import annotations

from typing import Literal

from model_build.metrics.bootstrap import Estimate

AUC_MARGIN = 0.005
"""A loss of AUC, or of balanced accuracy, below this is taken for none: about five images in a thousand."""
Verdict = Literal["no worse", "worse", "unclear"]


def judge_difference(difference: Estimate, margin: float = AUC_MARGIN) -> Verdict:
    """What a difference with its 95 % interval allows to say.

    Returns
    -------
    str
        "no worse" where the whole interval lies above ``-margin``; "worse" where it lies below 0 (and reaches below the margin); "unclear"
        where it allows both.

    References
    ----------
    Piaggio et al., Reporting of Noninferiority and Equivalence Randomized Trials, JAMA 308 (2012) 2594-2604.
    """
    if difference.low > -margin:
        return "no worse"
    return "worse" if difference.high < 0.0 else "unclear"
