"""Partial labels: losses from rows of which a known share was chosen to be labelled.

An audit labels row i with a known chance pi_i. Then bad_i * labelled_i / pi_i has the mean of
bad_i, and pi_min times that lies in [0, 1]: a bounded loss for `mean_guard.py` with limit
pi_min * limit (`cap` 1). Unlabelled rows count as 0 and must be handed in.
"""

from __future__ import annotations

from detectors.base import F64, Bool, Interval


def sampled_loss(bad: F64, labelled: Bool, chance: F64, least: float) -> F64:
    """least * bad * labelled / chance of each row, in [0, 1]; shape (n,) all.

    Parameters
    ----------
    bad : array
        Loss in [0, 1] of labelled rows; anything (NaN too) where not labelled.
    labelled : array of bool
        Whether the row was labelled.
    chance : array
        Known chance with which the row was chosen to be labelled, in [least, 1].
    least : float
        Lowest such chance, in (0, 1].

    Raises
    ------
    InvalidRows
        If a labelled row has a chance outside [least, 1], or a loss outside [0, 1].
    """
    raise NotImplementedError


def sampled_limit(limit: float, least: float) -> float:
    """The limit on `sampled_loss` that means `limit` on the share of bad rows."""
    raise NotImplementedError


def unscaled(interval: Interval, least: float) -> Interval:
    """An interval of mean `sampled_loss` as one of the share of bad rows."""
    raise NotImplementedError
