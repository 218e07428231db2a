"""Accelerated proximal gradient steps of B problems at once, and the certificate of where they are.

The method is FISTA (Beck and Teboulle 2009) with adaptive restart (O'Donoghue and Candes 2015).
Step lengths, momentum and restarts are each problem's own; nothing in a step waits for the host. A
step is one product with X and one with its transpose.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from probeline.probe.batched_loss import BatchedLoss

# A step that was short enough lets the next one be this much longer.
_LONGER = 0.96
# The curvature along a step may exceed what its length allows for by this share: rounding.
_SLACK = 1.001
# Intercepts move no farther than this in one step.
_FARTHEST = 2.0


@dataclass
class Iterates:
    """Where B problems are, and what carries over from step to step.

    Attributes
    ----------
    W, V : Tensor, shape (B, p, K)
        Coefficients, and the extrapolated point from which the next step goes.
    b, c : Tensor, shape (B, K)
        Intercepts of the two.
    Z, Y : Tensor, shape (B, K, n)
        Their logits, intercepts included.
    momentum : Tensor, shape (B,)
    length : Tensor, shape (B,)
        Bound of the curvature: steps are its inverse.
    caution : Tensor, shape (B,)
        How much shorter than Newton's the steps of the intercepts are; at least 1.
    """

    W: torch.Tensor
    V: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    Z: torch.Tensor
    Y: torch.Tensor
    momentum: torch.Tensor
    length: torch.Tensor
    caution: torch.Tensor

    def select(self, keep: torch.Tensor) -> Iterates:
        """The problems at these places (int64)."""
        return Iterates(*(getattr(self, f.name)[keep] for f in fields(self)))

    def beware(self, which: torch.Tensor) -> None:
        """Go more carefully where the objective has risen, bool (B,)."""
        self.restart(which)
        self.caution = torch.where(which, 2 * self.caution, (0.8 * self.caution).clamp(min=1.0))

    def restart(self, which: torch.Tensor) -> None:
        """Take the momentum from some problems, bool (B,)."""
        self.V = _where(which, self.W, self.V)
        self.c = _where(which, self.b, self.c)
        self.Y = _where(which, self.Z, self.Y)
        self.momentum = torch.where(which, 1.0, self.momentum)


@dataclass(frozen=True)
class Penalty:
    """lambda (B,) of each problem, the share `alpha` of its norm, and whether that is of rows."""

    size: torch.Tensor
    alpha: float
    group: bool

    def value(self, W: torch.Tensor) -> torch.Tensor:
        """The penalties of W (B, p, K), float64 (B,)."""
        norm = self.sizes(W).flatten(1).sum(dim=1, dtype=torch.float64)
        square = W.flatten(1).square().sum(dim=1, dtype=torch.float64)
        return self.size.double() * (self.alpha * norm + (1 - self.alpha) / 2 * square)

    def sizes(self, W: torch.Tensor) -> torch.Tensor:
        """What the norm sums over: |W| (B, p, K), or the norms of its rows (B, p, 1)."""
        return W.norm(dim=2, keepdim=True) if self.group else W.abs()

    def shrunk(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """The proximal operator at x (B, p, K), the penalty times `step` (B, 1, 1 or K)."""
        step = step * self.size[:, None, None]
        threshold = self.alpha * step
        if self.group:
            x = x * (1 - threshold / self.sizes(x).clamp(min=1e-30)).clamp(min=0)
        else:
            x = x - x.clamp(-threshold, threshold)
        return x if self.alpha == 1 else x / (1 + (1 - self.alpha) * step)


def descend(
    X: torch.Tensor, loss: BatchedLoss, at: Iterates, penalty: Penalty, steps: int
) -> Iterates:
    """Take so many steps.

    Parameters
    ----------
    X : Tensor, shape (B, p, n)
        Centred features by rows, those that `at` has coefficients of.
    """
    W, V, b, c, Z, Y = at.W, at.V, at.b, at.c, at.Z, at.Y
    momentum, length = at.momentum, at.length
    p = loss.probabilities(Y)
    # The intercepts go along at their best, or nearly: a Newton step each time, with the Hessian of
    # here. As variables like others they would double the number of steps (measured).
    inverse = loss.inverse_hessian(p) / at.caution[:, None, None]
    for _ in range(steps):
        slope = loss.residual(p).sum(dim=2, keepdim=True)
        shift = torch.bmm(inverse, slope).clamp_(-_FARTHEST, _FARTHEST)
        c, Y = c - shift[:, :, 0], Y - shift
        p = loss.probabilities(Y)
        gradient = torch.bmm(X, loss.residual(p).transpose(1, 2))
        step = (1 / length)[:, None, None]
        new = penalty.shrunk(V - step * gradient, step)
        Z_new = torch.baddbmm(c[:, :, None], new.transpose(1, 2), X)
        # <gradient(new) - gradient(V), new - V> is the curvature on the way there, free of the
        # cancellation in a difference of two objectives.
        moved = loss.weighted(loss.probabilities(Z_new) - p)
        curvature = moved.mul_(Z_new - Y).sum(dim=(1, 2))
        back = new - V
        taken = curvature <= _SLACK * length * back.square().sum(dim=(1, 2))
        turned = (back * (new - W)).sum(dim=(1, 2)) < 0
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        beta = torch.where(turned, 0.0, (momentum - 1) / following)
        following = torch.where(turned, 1.0, following)
        # W + (1 + beta) (new - W): the extrapolated point.
        far = (1 + beta)[:, None, None]
        V = _where(taken, torch.lerp(W, new, far), V)
        Y = _where(taken, torch.lerp(Z, Z_new, far), Y)
        c, b = _where(taken, torch.lerp(b, c, far[:, :, 0]), c), _where(taken, c, b)
        W, Z = _where(taken, new, W), _where(taken, Z_new, Z)
        momentum = torch.where(taken, following, momentum)
        length = length * torch.where(taken, _LONGER, 1.5)
        p = loss.probabilities(Y)
    return Iterates(W, V, b, c, Z, Y, momentum, length, at.caution)


@dataclass(frozen=True)
class Certificate:
    """What is known of B points, each at its best intercept.

    Attributes
    ----------
    objective, gap : Tensor of float64, shape (B,)
        `probeline.probe.solver.Fit` says what they are.
    gradient : Tensor, shape (B, p, K)
        Of the loss with respect to W.
    """

    objective: torch.Tensor
    gap: torch.Tensor
    gradient: torch.Tensor


def certify(X: torch.Tensor, loss: BatchedLoss, at: Iterates, penalty: Penalty) -> Certificate:
    """Move `at` to its best intercepts and measure how far from optimal it is on all features.

    The duality gap is that of `probeline.probe.solver.relative_gap`.
    """
    best = loss.at_best_intercept(at.Z)
    at.Z, at.b = best.logits, at.b + best.shift
    at.Y, at.c = at.Y + best.shift[:, :, None], at.c + best.shift
    gradient = torch.bmm(X, best.residual.transpose(1, 2))
    objective = best.value + penalty.value(at.W)
    sizes = penalty.sizes(gradient).flatten(1)
    if penalty.alpha == 1:
        largest = sizes.amax(dim=1) if sizes.shape[1] else torch.zeros_like(penalty.size)
        scale = (penalty.size / largest.clamp(min=1e-30)).clamp(max=1.0)
        conjugate = torch.zeros_like(objective)
    else:
        scale = torch.ones_like(penalty.size)
        excess = (sizes - penalty.alpha * penalty.size[:, None]).clamp(min=0).double()
        ridge = penalty.size.double() * (1 - penalty.alpha)
        conjugate = excess.square().sum(dim=1) / (2 * ridge)
    dual = -loss.conjugate(best.residual, scale) - conjugate
    gap = (objective - dual).clamp(min=0) / objective.clamp(min=1e-12)
    return Certificate(objective, gap, gradient)


def _where(which: torch.Tensor, this: torch.Tensor, that: torch.Tensor) -> torch.Tensor:
    """`torch.where` by problem, bool (B,)."""
    return torch.where(which.view(-1, *[1] * (this.dim() - 1)), this, that)
