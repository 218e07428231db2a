"""The paths of many probes at once: B problems of one width as one, on a GPU or any other device.

Each problem has its own path of penalties, warm starts, choice and end, as `probeline.probe.path`
says; the targets are shared. A round is some accelerated steps (`batched_steps`) and a certificate.
A problem whose gap is small enough goes on to its next penalty while the others stay at theirs, and
leaves the batch when its path ends.

Floor of a step: 4 n p K operations a problem at the device's float32 peak, or two readings of X
(8 n p bytes) where K is small. 24 FFN shards of 1,536 neurons, 9,003 texts and 77 classes are 102
GFLOP a step, 2 ms at 50 TFLOP/s. A path takes 500 to 800 steps there. Quasi-Newton models on a Gram
matrix took a third of the passes over the data, and for each of them 50 dependent steps on (p, p)
and (p, K) arrays: no less time on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from probeline.probe.batched_features import Working
from probeline.probe.batched_loss import BatchedLoss
from probeline.probe.batched_progress import Progress
from probeline.probe.batched_steps import Certificate, Iterates, Penalty, certify, descend
from probeline.probe.group_model import row_norms
from probeline.probe.losses import LogisticLoss
from probeline.probe.path import densest, penalties_of, step_of
from probeline.probe.solver import Fit
from probeline.probe.threshold import Evaluation

# Accelerated steps between two certificates, which cost a little more than one step.
STEPS_PER_ROUND = 20
# Features join from this share of the threshold on, or from the strong rule's bound if larger.
_NEAR = 0.9
# Three rounds in a row that gain less than a rounding of the objective end a fit.
_STALLED = 3

# What validation says of problem i at coefficients (p, K) and intercept (K,) on the device.
Evaluate = Callable[[int, torch.Tensor, torch.Tensor], Evaluation]


def run_batch(
    X: torch.Tensor,
    order: list[int],
    loss: LogisticLoss,
    evaluate: Evaluate,
    options: Mapping,
    *,
    l1_ratio: float,
    class_weight: str | None = None,
) -> list[Progress]:
    """Run the paths of B problems, as `probeline.probe.path.run_path` does for one.

    Parameters
    ----------
    X : Tensor of float, shape (B, p, n)
        Centred features by rows; left in another order of problems.
    order : list of int
        Which problem lies where in X; kept up to date.
    loss : LogisticLoss
        Of every problem.
    options : mapping
        As for `run_path`; `max_iterations` counts rounds of `STEPS_PER_ROUND` steps.
    l1_ratio : float
        Above 0.

    Returns
    -------
    list of Progress
        By problem.
    """
    with _exact():
        runner = _Runner(X, order, loss, evaluate, options, l1_ratio, class_weight)
        return runner.run()


@contextmanager
def _exact() -> Iterator[None]:
    """Products in float32 proper: TensorFloat-32 would leave gaps of its own size."""
    switch = torch.backends.cuda.matmul
    # Torch before 2.9 has the older switch alone; mixing the two is an error.
    newer = hasattr(switch, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = getattr(switch, name)
    setattr(switch, name, exact)
    try:
        yield
    finally:
        setattr(switch, name, before)


class _Runner:
    """The batch: arrays of the problems whose paths go on, in the order of X."""

    def __init__(self, X, order, loss, evaluate, options, l1_ratio, class_weight):
        self.all, self.order = X, order
        self.loss = BatchedLoss(loss, X.device, X.dtype)
        self.evaluate, self.options = evaluate, options
        self.alpha, self.class_weight = l1_ratio, class_weight
        self.automatic = options["penalties"] == "auto"
        self.group = options.get("penalty", "l1") == "group-l1" and self.loss.classes > 1
        self.n = X.shape[2]
        self.eps = float(torch.finfo(X.dtype).eps)
        self.X = X
        self.at = _nothing(X, self.loss.classes)
        self.before = self.at.select(torch.arange(len(X), device=X.device))
        self.working = Working(X)
        self.paths = self._start()

    def _start(self) -> list[Progress]:
        ones = torch.ones(len(self.X), dtype=self.X.dtype, device=self.X.device)
        null = certify(self.X, self.loss, self.at, Penalty(ones, self.alpha, self.group))
        self.at.length = _largest_curvature(self.X, self.loss, self.at, null)
        sizes = row_norms if self.group else np.abs
        paths: list[Progress] = [None] * len(self.X)
        # Constant features, which are zero here, do not count, as on the CPU.
        varying = (self.X.amax(dim=2) > 0).sum(dim=1).tolist() if self.n else [0] * len(self.X)
        for place, i in enumerate(self.order):
            gradient, b = _on_host(null.gradient[place]), _on_host(self.at.b[place])
            objective = float(null.objective[place])
            fit = Fit(np.zeros_like(gradient), b, objective, 0.0, 0, True, gradient)
            penalties = penalties_of(self.options, self.alpha, fit, self.n, sizes)
            most = densest(varying[place] * self.loss.classes, self.options)
            paths[i] = Progress(objective, penalties, most)
        return paths

    def run(self) -> list[Progress]:
        while True:
            certificate = certify(self.X, self.loss, self.at, self._penalty())
            told = torch.stack([certificate.objective, certificate.gap]).cpu().numpy()
            done, worse = self._judge(*told)
            self.at.beware(_flags(worse, self.X.device))
            ended = self._finish(done, told)
            if ended.all():
                return self.paths
            self._continue(np.flatnonzero(done & ~ended))
            # With the gradients at the solutions of the last penalties, as the strong rule has it.
            self._choose_features(certificate, fresh=done)
            if ended.any():
                self._leave(ended)
            self._descend()

    def _path(self, place: int) -> Progress:
        return self.paths[self.order[place]]

    def _penalty(self) -> Penalty:
        sizes = [self._path(i).penalty for i in range(len(self.X))]
        return Penalty(self.at.length.new_tensor(sizes), self.alpha, self.group)

    def _judge(self, objective: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which problems are done with their penalty, and which ended a round higher up."""
        done, worse = np.zeros(len(gap), bool), np.zeros(len(gap), bool)
        for i in range(len(gap)):
            path = self._path(i)
            worse[i] = path.certified(float(objective[i]), self.eps)
            done[i] = (
                gap[i] <= self.options["tolerance"]
                or path.rounds >= self.options["max_iterations"]
                or path.stalled == _STALLED
            )
        return done, worse

    def _finish(self, done: np.ndarray, told: np.ndarray) -> np.ndarray:
        """Record the fits of problems that are done; which paths end with them, bool (B,)."""
        ended = np.zeros(len(done), bool)
        for i in np.flatnonzero(done):
            path, W, b = self._path(i), self.at.W[i], self.at.b[i]
            objective, gap = (float(value) for value in told[:, i])
            converged = gap <= self.options["tolerance"]
            passes = path.rounds * STEPS_PER_ROUND
            fit = Fit(_on_host(W), _on_host(b), objective, gap, passes, converged, None)
            found = self.evaluate(self.order[i], W, b)
            path.add(step_of(fit, path.penalty, self.n, self.alpha, self.class_weight, found), fit)
            ended[i] = path.has_ended(self.automatic)
        return ended

    def _continue(self, places: np.ndarray) -> None:
        """Start the next penalty of these problems where `solver.extrapolate` would."""
        if len(places) == 0:
            return
        index = torch.from_numpy(places).to(self.X.device)
        last, before = self.at.select(index), self.before.select(index)
        by, sizes = [], []
        for i in places:
            path = self._path(i)
            ratio = 0.0
            if len(path.steps) > 1:
                one, two = path.steps[-1].penalty, path.steps[-2].penalty
                ratio = np.log(path.penalty / one) / np.log(one / two)
            by.append(ratio)
            sizes.append(path.penalty)
        by = last.length.new_tensor(by)[:, None]
        penalty = Penalty(last.length.new_tensor(sizes), self.alpha, self.group)
        W = last.W + by[:, :, None] * (last.W - before.W)
        b = last.b + by * (last.b - before.b)
        Z = last.Z + by[:, :, None] * (last.Z - before.Z)
        lower = self.loss.value(Z) + penalty.value(W) < (
            self.loss.value(last.Z) + penalty.value(last.W)
        )
        for name, new in (("W", W), ("b", b), ("Z", Z)):
            old = getattr(last, name)
            getattr(self.before, name)[index] = old
            new = torch.where(lower.view(-1, *[1] * (new.dim() - 1)), new, old)
            getattr(self.at, name)[index] = new
        fresh = torch.zeros(len(self.X), dtype=torch.bool, device=self.X.device)
        fresh[index] = True
        self.at.restart(fresh)

    def _choose_features(self, certificate: Certificate, fresh: np.ndarray) -> None:
        """Features in play: those in use, and those that the strong rule does not discard.

        The rule (Tibshirani et al. 2012) discards a zero whose gradient is below 2 threshold -
        threshold before; the largest gradient is what the threshold was before.
        """
        penalties = [
            path.penalty if len(path.steps) < len(path.penalties) else np.inf
            for path in map(self._path, range(len(self.X)))
        ]
        penalty = Penalty(self.at.length.new_tensor(penalties), self.alpha, self.group)
        sizes = penalty.sizes(certificate.gradient).amax(dim=2)
        threshold = self.alpha * penalty.size[:, None]
        largest = sizes.amax(dim=1, keepdim=True) if sizes.shape[1] else 0.0
        bound = torch.maximum(2 * threshold - largest, _NEAR * threshold)
        used = (self.at.W != 0).any(dim=2) | (self.at.V != 0).any(dim=2)
        wanted = ((sizes > bound) | used).cpu().numpy()
        wanted[~fresh] |= self.working.joined[~fresh]
        self.working.set(wanted)

    def _descend(self) -> None:
        working = self.working
        at = self.at
        at.W, at.V = working.take(at.W), working.take(at.V)
        at = descend(working.features, self.loss, at, self._penalty(), STEPS_PER_ROUND)
        at.W, at.V = working.put(at.W), working.put(at.V)
        self.at = at
        for i in range(len(self.X)):
            self._path(i).rounds += 1

    def _leave(self, ended: np.ndarray) -> None:
        """Move the problems that go on to the front of X, in place, and drop the others."""
        count = int((~ended).sum())
        places = list(range(len(ended)))
        holes = [i for i in range(count) if ended[i]]
        movers = [i for i in range(count, len(ended)) if not ended[i]]
        for hole, mover in zip(holes, movers, strict=True):
            held = self.all[hole].clone()
            self.all[hole] = self.all[mover]
            self.all[mover] = held
            self.order[hole], self.order[mover] = self.order[mover], self.order[hole]
            places[hole] = mover
        places = places[:count]
        keep = torch.tensor(places, dtype=torch.int64, device=self.X.device)
        self.X = self.all[:count]
        self.at, self.before = self.at.select(keep), self.before.select(keep)
        self.working.keep(self.X, places)


def _nothing(X: torch.Tensor, classes: int) -> Iterates:
    """No weights and no intercepts."""
    B, p, n = X.shape
    W, b, Z = X.new_zeros(B, p, classes), X.new_zeros(B, classes), X.new_zeros(B, classes, n)
    return Iterates(W, W, b, b, Z, Z, X.new_ones(B), X.new_ones(B), X.new_ones(B))


def _largest_curvature(X, loss: BatchedLoss, at: Iterates, null: Certificate) -> torch.Tensor:
    """Estimates (B,) of the Hessian's largest eigenvalue where there are no weights."""
    v = null.gradient.abs().sum(dim=2, keepdim=True)
    value = v.new_ones(len(X))
    for _ in range(5):
        v = v / v.norm(dim=1, keepdim=True).clamp(min=1e-30)
        v = torch.bmm(X, torch.bmm(v.transpose(1, 2), X).transpose(1, 2))
        value = v.norm(dim=1)[:, 0] / X.shape[2]
    curvature = loss.curvature(loss.probabilities(at.Z))
    return (curvature * value).clamp(min=1e-6)


def _on_host(values: torch.Tensor) -> np.ndarray:
    """A copy, also where the device is the CPU."""
    return np.array(values.cpu().numpy())


def _flags(values: Sequence[bool], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool, device=device)
