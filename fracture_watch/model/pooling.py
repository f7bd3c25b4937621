"""Several views of a picture -> one logit, and how much each view has to do with it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pool = Literal["noisy-or", "max", "mean"]
Logits = NDArray[np.float64]


def pooled(logits: Logits, pool: Pool) -> Logits:
    """One logit of *fractured* for each picture.

    ``noisy-or`` takes the views as independent witnesses: the probability that none of them shows a fracture is the
    product of theirs. With one view every pool gives its logit.

    Parameters
    ----------
    logits : ndarray of float64, shape (n, views)
    pool : {"noisy-or", "max", "mean"}

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    if pool == "max":
        return np.asarray(logits.max(axis=1))
    if pool == "mean":
        return np.asarray(logits.mean(axis=1))
    none = np.logaddexp(0, logits).sum(axis=1)  # minus the log of the probability that no view shows one
    # logit(1 - exp(-none)), written so that neither a tiny nor a huge value is lost
    return np.asarray(none + np.log(-np.expm1(-none)))


def shares(logits: Logits, pool: Pool) -> Logits:
    """The slope of the pooled logit along each view's; 1 where there is one view.

    Returns
    -------
    ndarray of float64, shape (n, views)
    """
    if pool == "max":
        return np.asarray(np.arange(logits.shape[1]) == logits.argmax(axis=1)[:, np.newaxis], np.float64)
    if pool == "mean":
        return np.full(logits.shape, 1 / logits.shape[1])
    softplus = np.logaddexp(0, logits)
    none = softplus.sum(axis=1, keepdims=True)
    # Each view's probability over that of the whole; both vanish together, so their logs are taken apart.
    return np.asarray(np.exp(logits - softplus - np.log(-np.expm1(-none))))
