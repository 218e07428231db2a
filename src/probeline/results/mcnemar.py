"""McNemar's test: do two methods err equally often on the same texts?"""

from __future__ import annotations

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from probeline.probe.metrics import predict_codes

# Below, the chi-squared approximation is poor.
_EXACT_BELOW = 25


def mcnemar_p(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of two single-label methods being right equally often (McNemar 1947).

    Only texts that one method alone has right count: an exact binomial test where they are fewer
    than 25, else chi-squared with continuity correction (Edwards 1948). See also Dietterich (1998).

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
    first, second : ndarray, shape (n, K), or (n, 1) for a binary task
        Logits.
    """
    right, also = (predict_codes(logits) == labels for logits in (first, second))
    one, other = int((right & ~also).sum()), int((also & ~right).sum())
    both, neither = int((right & also).sum()), int((~right & ~also).sum())
    found = mcnemar(
        [[both, one], [other, neither]],
        exact=one + other < _EXACT_BELOW,
        # It would make equal counts differ.
        correction=one != other,
    )
    return float(found.pvalue)
