"""A score that was chosen as threshold -> a short number that decides as it does."""

import numpy as np
from numpy.typing import NDArray

_LONGEST = 17  # digits; more tell no float64 from the next


def short(chosen: float, scores: NDArray[np.float64]) -> float:
    """The middle between ``chosen`` and the next lower score, in as few digits from four on as lie between them.

    So what scores ``chosen`` is called *fractured* (``>=``), what scores less is not, and neither turns over where
    other hardware computes a score that differs in its last digits.

    Parameters
    ----------
    chosen : float
        One of ``scores``, or infinity: none is to be called *fractured*.
    scores : ndarray, shape (n,)
        Probabilities.

    Returns
    -------
    float
        Inside (0, 1). Where no number in there decides so, because a score is 0 or 1 itself, the nearest in six digits.
    """
    upper = min(chosen, 1.0)
    lower = float(scores[scores < chosen].max(initial=0.0))
    for digits in range(4, _LONGEST + 1):
        found = round((lower + upper) / 2, digits)
        if lower < found <= upper and found < 1:
            return found
    return min(max(upper, 1e-6), 1 - 1e-6)
