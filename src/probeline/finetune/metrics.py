"""What is reported of a multi-label classifier beside the metric that decides."""

from __future__ import annotations

import numpy as np

from probeline.probe.metrics import roc_auc, score


def multilabel_metrics(
    labels: np.ndarray, logits: np.ndarray, thresholds: float | np.ndarray
) -> dict[str, float | None]:
    """Micro- and macro-F1, subset accuracy, and ROC-AUC over all (text, label) pairs (micro).

    Parameters
    ----------
    labels : ndarray, shape (n, K) of 0 and 1
    logits : ndarray of float, shape (n, K)
    thresholds : float or ndarray, shape (K,)
        Logits above which a label is predicted; ROC-AUC needs none.

    Returns
    -------
    dict
        `micro-f1`, `macro-f1`, `subset-accuracy` and `roc-auc-micro`, None where no label or every
        label holds.
    """
    decided, classes = logits - thresholds, labels.shape[1]
    one_kind = not labels.any() or labels.all()
    return {
        "micro-f1": score("micro-f1", labels, decided, classes),
        "macro-f1": score("macro-f1", labels, decided, classes),
        "subset-accuracy": score("accuracy", labels, decided, classes),
        "roc-auc-micro": None if one_kind else roc_auc(labels.reshape(-1), logits.reshape(-1, 1)),
    }
