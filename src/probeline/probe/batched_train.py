"""Train the probes of one width together: `probeline.probe.train.train_probe` for many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from probeline.errors import ProbelineError
from probeline.probe.batched import run_batch
from probeline.probe.batched_features import load, to_device
from probeline.probe.batched_progress import Progress
from probeline.probe.matrix import Scaler
from probeline.probe.path import best_step
from probeline.probe.task import TaskData
from probeline.probe.threshold import Evaluation, evaluate
from probeline.probe.train import Probe

# How many arrays of the size of X (p n), of the logits (K n), of the coefficients (p K) and of the
# intercepts' Hessian (K K) a problem takes at its peak: X and its gathered half; float64 counts
# twice.
_OF_FEATURES, _OF_LOGITS, _OF_COEFFICIENTS, _OF_HESSIANS = 1.5, 24, 16, 12


def bytes_of_a_problem(width: int, task: TaskData) -> int:
    """Device memory that one problem of a batch takes at most, in bytes."""
    n, m = (len(task.rows[split]) for split in ("train", "validation"))
    K = 1 if task.classes == 2 and not task.multilabel else task.classes
    numbers = _OF_FEATURES * width * n + width * m
    numbers += _OF_LOGITS * K * n + _OF_COEFFICIENTS * width * K + _OF_HESSIANS * K * K
    return int(4 * numbers)


def batches(widths: Sequence[int], task: TaskData, memory: int) -> list[list[int]]:
    """Problems that are trained together: of one width, within so many bytes, of about equal size.

    Returns
    -------
    list of list of int
        Places in `widths`. A problem larger than `memory` is a batch of its own.
    """
    found = []
    for width in dict.fromkeys(widths):
        places = [i for i, other in enumerate(widths) if other == width]
        # The rows as they come in lie beside the batch.
        room = memory - 8 * width * len(task.rows["train"])
        most = max(1, room // bytes_of_a_problem(width, task))
        count = -(-len(places) // most)
        found += [part.tolist() for part in np.array_split(places, count)]
    return found


def train_together(
    X: Sequence[Mapping], task: TaskData, options: Mapping, device: torch.device
) -> list[Probe]:
    """Train one probe for each problem.

    Parameters
    ----------
    X : sequence of mapping
        Of split to float array (n, p): raw activations of the task's rows, of one width. Each is
        asked for once, train and validation first, test when all are trained.
    options : mapping
        The `probe` section of the configuration.

    Returns
    -------
    list of Probe
        In the order of X.

    Raises
    ------
    ProbelineError
        If the device's memory is too small.
    """
    try:
        return _trained(X, task, options, device)
    except torch.OutOfMemoryError:
        raise ProbelineError(
            f"probe.device: the memory of {device} is too small for {len(X)} probes together, or "
            "another program holds it; free it, or set probe.device: cpu"
        ) from None


def _trained(X: Sequence[Mapping], task: TaskData, options: Mapping, device) -> list[Probe]:
    loaded = load(X, options["standardize"], device)

    def evaluated(i: int, W: torch.Tensor, b: torch.Tensor) -> Evaluation:
        return evaluate(task, (loaded.validation[i].T @ W + b).cpu().numpy())

    order = list(range(len(X)))
    paths: list[list[Progress]] = [[] for _ in X]
    for class_weight in task.class_weights(options["class_weight"]):
        found = run_batch(
            loaded.train,
            order,
            task.loss(class_weight),
            evaluated,
            options,
            l1_ratio=options["l1_ratio"],
            class_weight=class_weight,
        )
        for mine, path in zip(paths, found, strict=True):
            mine.append(path)
    return [
        _probe(rows, mine, scaler, task, device)
        for rows, mine, scaler in zip(X, paths, loaded.scalers, strict=True)
    ]


def _probe(
    rows: Mapping, paths: list[Progress], scaler: Scaler, task: TaskData, device: torch.device
) -> Probe:
    steps = [step for path in paths for step in path.steps]
    chosen = best_step(steps, paths[0].most)
    # Each path holds the fit of its own best step, and the best of all is the best of its path.
    end, step = 0, steps[chosen]
    for path in paths:
        end += len(path.steps)
        if chosen < end:
            fit = path.fit
            break
    logits = _logits(rows["test"], scaler, fit.coefficients, fit.intercept, device)
    score = task.score("test", logits - np.float32(step.threshold))
    return Probe(fit.coefficients, fit.intercept, scaler, steps, chosen, step.score, score)


def _logits(
    rows: np.ndarray, scaler: Scaler, W: np.ndarray, b: np.ndarray, device: torch.device
) -> np.ndarray:
    """`probeline.probe.train.linear_logits` on a device."""
    weights = W / scaler.scale[:, None]
    shifted = b - (scaler.mean.astype(np.float64) @ weights).astype(np.float32)
    return (to_device(rows, device) @ torch.from_numpy(weights).to(device)).cpu().numpy() + shifted
