"""Partial labels: what a bad row stands for when only a known part of rows is labelled.

Why. Where labels cost money, a random part of predictions is audited, often more of the doubtful
ones. The rate among labelled rows is then that of the doubtful.

How. A row that was chosen with a known chance stands for 1 / chance rows: the mean of
bad * labelled / chance over *all* rows is the share of bad ones, whichever were chosen (Horvitz,
Thompson 1952). It is a loss between 0 and 1 / least chance, so `mean_guard.py` judges it, with the
limit as it is and `cap` 1 / least chance; bets there are shares of the limit, so that is the test
of least * loss against least * limit. A row chosen with less than the least chance is cut off at
the cap: it counts for too little, never for too much.

Refused: a guessed chance. Where it is not known why a label is missing, only bounds are right:
`optimistic.py`.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64, Bool


def weighted_loss(bad: Bool, chance: F64) -> F64:
    """How many rows each bad row stands for, >= 0; (n,), (n,) -> (n,).

    Parameters
    ----------
    bad : array of bool
        The row was labelled, and is bad. Rows without a label belong here too: they count as 0.
    chance : array
        Chance with which the row was chosen to be labelled, in (0, 1]; NaN: it was not chosen, its
        label came by itself and stands for one row.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_loss(np.array([True, True, False]), np.array([0.1, np.nan, np.nan])).tolist()
    [10.0, 1.0, 0.0]
    """
    loss: F64 = bad / np.where(np.isnan(chance), 1.0, chance)
    return loss
