"""What a Trainer does in each step, written down, and the formulas of what it ought to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import TrainerCallback


@dataclass
class Step:
    """One step of an optimizer; gradients are those that it was given, so after clipping."""

    rate: float
    before: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]


class Recorder(TrainerCallback):
    """Keeps a `Step` of every step."""

    def __init__(self):
        self.steps: list[Step] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **_) -> None:
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        gradients = {
            name: weight.grad.clone()
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }
        self.steps.append(Step(rates.pop(), _weights(model), gradients, {}))

    def on_optimizer_step(self, args, state, control, model=None, **_) -> None:
        self.steps[-1].after = _weights(model)


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def rate(schedule: str, step: int, steps: int, warm: int, highest: float) -> float:
    """Learning rate of a step, counted from 0: a linear rise over `warm` steps, then the fall."""
    if step < warm:
        return highest * step / warm
    passed = (step - warm) / (steps - warm)
    falls = {
        "linear": 1 - passed,
        "cosine": (1 + math.cos(math.pi * passed)) / 2,
        "constant": 1.0,
    }
    return highest * falls[schedule]


def norm(gradients: dict[str, torch.Tensor]) -> float:
    """Euclidean norm of all together."""
    return math.sqrt(sum(float((one.double() ** 2).sum()) for one in gradients.values()))


def clipped(gradients: dict[str, torch.Tensor], highest: float | None) -> dict[str, torch.Tensor]:
    """All scaled alike so that their norm is not above `highest` (Pascanu et al. 2013)."""
    found = norm(gradients)
    scale = 1.0 if highest is None or found <= highest else highest / found
    return {name: one * scale for name, one in gradients.items()}


def check_adamw(steps: list[Step], decayed, decay: float) -> None:
    """Each step is that of AdamW (Loshchilov and Hutter 2019, algorithm 2) with torch's defaults.

    Parameters
    ----------
    decayed : callable
        Says of a weight's name whether it decays.
    """
    first, second = {}, {}
    for number, step in enumerate(steps, 1):
        for name, gradient in step.gradients.items():
            g, w = gradient.double(), step.before[name].double()
            first[name] = 0.9 * first.get(name, 0.0) + 0.1 * g
            second[name] = 0.999 * second.get(name, 0.0) + 0.001 * g**2
            m, v = first[name] / (1 - 0.9**number), second[name] / (1 - 0.999**number)
            expected = w * (1 - step.rate * decay * decayed(name))
            expected = expected - step.rate * m / (v.sqrt() + 1e-8)
            torch.testing.assert_close(step.after[name].double(), expected, rtol=1e-5, atol=2e-7)
        for name in step.before.keys() - step.gradients.keys():
            assert torch.equal(step.after[name], step.before[name])
