"""The logistic losses of B problems with the same targets: `probeline.probe.losses` in torch.

Logits are (B, K, n), classes before rows, so that sums over rows and products with X (B, p, n) read
memory in order. Every function works on any device; values are summed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from probeline.probe.losses import LogisticLoss

_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Best:
    """Logits at the best intercept of each problem.

    Attributes
    ----------
    logits, residual : Tensor, shape (B, K, n)
        The gradient with respect to the logits is `residual`; its rows sum to zero.
    shift : Tensor, shape (B, K)
        What was added to the intercepts.
    value : Tensor of float64, shape (B,)
    """

    logits: torch.Tensor
    shift: torch.Tensor
    value: torch.Tensor
    residual: torch.Tensor


class BatchedLoss:
    """A weighted logistic loss that B problems share.

    Parameters
    ----------
    loss : LogisticLoss
        Of one of them, in numpy.
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, loss: LogisticLoss, device: torch.device, dtype: torch.dtype):
        self.kind = loss.kind
        self.classes = loss.targets.shape[1]
        self._targets = torch.tensor(loss.targets.T, dtype=dtype, device=device).contiguous()
        self._weights = torch.tensor(loss.weights.T, dtype=dtype, device=device).contiguous()
        self._eps = float(torch.finfo(dtype).eps)

    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Weighted sums of the losses, float64 (B,)."""
        return self._evaluated(logits)[0]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Softmax over the classes, or sigmoid, (B, K, n)."""
        return logits.softmax(dim=1) if self.kind == "softmax" else logits.sigmoid()

    def residual(self, p: torch.Tensor) -> torch.Tensor:
        """Gradient with respect to the logits, from their probabilities: (B, K, n)."""
        return self.weighted(p - self._targets)

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        """Values (B, K, n) times the weights of their rows, in place."""
        return values.mul_(self._weights)

    def curvature(self, p: torch.Tensor) -> torch.Tensor:
        """The largest second derivative with respect to an intercept, (B,)."""
        return self.weighted(p - p * p).sum(dim=2).amax(dim=1)

    def inverse_hessian(self, p: torch.Tensor) -> torch.Tensor:
        """Inverse of the Hessian with respect to the intercepts, (B, K, K), slightly damped."""
        hessian, size = self._hessian(p)
        hessian.diagonal(dim1=1, dim2=2).add_(1e-4 * size + 1e-12)
        return torch.linalg.inv_ex(hessian)[0].nan_to_num(0.0, 0.0, 0.0).to(p.dtype)

    def _hessian(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The Hessian with respect to the intercepts, float64 (B, K, K), and its size (B, 1)."""
        if self.kind == "sigmoid":
            curvature = self.weighted(p - p * p).sum(dim=2, dtype=torch.float64)
            return torch.diag_embed(curvature), curvature.mean(dim=1, keepdim=True)
        weighted = p * self._weights
        hessian = -torch.bmm(weighted, p.transpose(1, 2)).double()
        diagonal = weighted.sum(dim=2, dtype=torch.float64)
        hessian.diagonal(dim1=1, dim2=2).add_(diagonal)
        # Singular along (1, ..., 1), a direction that changes nothing: no step is taken there.
        size = diagonal.mean(dim=1, keepdim=True)
        hessian += size[:, :, None] / self.classes
        return hessian, size

    def _evaluated(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (B,) and probabilities (B, K, n) from one pass of exponentials."""
        if self.kind == "softmax":
            peak = logits.amax(dim=1, keepdim=True)
            p = (logits - peak).exp_()
            total = p.sum(dim=1, keepdim=True)
            # A small loss must not be the difference of two large numbers.
            each = total.log() + (peak - (self._targets * logits).sum(dim=1, keepdim=True))
            p /= total
        else:
            each = torch.nn.functional.softplus((1 - 2 * self._targets) * logits)
            p = logits.sigmoid()
        return (self._weights * each).sum(dim=(1, 2), dtype=torch.float64), p

    def at_best_intercept(self, logits: torch.Tensor) -> Best:
        """Add to each problem's logits the intercepts (K,) that minimise its loss.

        Damped Newton steps, as `probeline.probe.solver.optimal_intercept` does for one problem.
        """
        B = len(logits)
        b = torch.zeros(B, self.classes, dtype=torch.float64, device=logits.device)
        value, p = self._evaluated(logits)
        residual = self.residual(p)
        gradient, step = self._newton(p, residual)
        # What is left of the gradient enters the duality gap times b: small against the objective.
        enough = (1e-7 * value.clamp(max=1.0)).clamp(min=1e-10)
        noise = 4 * self._eps
        scale = torch.ones_like(value)
        size = gradient.abs().amax(dim=1)
        done = size < enough
        shifted = logits
        for _ in range(_NEWTON_STEPS):
            if bool(done.all()):
                break
            at_rounding = (gradient * step).sum(dim=1) < noise * value.abs()
            # Capped where the curvature has vanished (separable targets).
            cap = (5.0 / step.abs().amax(dim=1).clamp(min=1e-12)).clamp(max=1.0)
            move = torch.where(done, 0.0, scale * cap)[:, None] * step
            candidate = logits + (b - move).to(logits.dtype)[:, :, None]
            new_value, p = self._evaluated(candidate)
            new_residual = self.residual(p)
            taken = (new_value <= value + noise * value.abs()) & ~done
            new_gradient, new_step = self._newton(p, new_residual)
            new_size = new_gradient.abs().amax(dim=1)
            tiny = move.abs().amax(dim=1) < 1e-7
            # A last step, too short to show in the value, still helps while it halves the gradient.
            settled = at_rounding & (new_size > 0.5 * size)
            keep = taken[:, None]
            b = torch.where(keep, b - move, b)
            gradient = torch.where(keep, new_gradient, gradient)
            step = torch.where(keep, new_step, step)
            value = torch.where(taken, new_value, value)
            size = torch.where(taken, new_size, size)
            keep = keep[:, :, None]
            shifted = torch.where(keep, candidate, shifted)
            residual = torch.where(keep, new_residual, residual)
            scale = torch.where(taken, 1.0, 0.5 * scale)
            done |= (taken & (tiny | settled | (size < enough))) | (scale < 1e-4)
        return Best(shifted, b.to(logits.dtype), value, residual)

    def _newton(self, p: torch.Tensor, residual: torch.Tensor) -> tuple:
        """The gradient with respect to the intercepts and the Newton step, float64 (B, K)."""
        gradient = residual.sum(dim=2, dtype=torch.float64)
        hessian, size = self._hessian(p)
        if self.kind == "sigmoid":
            return gradient, gradient / (hessian.diagonal(dim1=1, dim2=2) + 1e-12)
        hessian.diagonal(dim1=1, dim2=2).add_(1e-10 * size + 1e-30)
        step = torch.linalg.solve_ex(hessian, gradient)[0].nan_to_num(0.0, 0.0, 0.0)
        return gradient, step - step.mean(dim=1, keepdim=True)

    def conjugate(self, residual: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Conjugates of the loss at ``scale * residual``, float64 (B,); scale (B,) in [0, 1]."""
        weights = self._weights
        unweighted = torch.where(weights > 0, residual / weights, 0.0).double()
        q = (self._targets + scale[:, None, None] * unweighted).clamp_(0.0, 1.0)
        entropy = torch.special.entr(q)
        if self.kind == "sigmoid":
            entropy += torch.special.entr(1 - q)
        return -(weights * entropy).sum(dim=(1, 2))
