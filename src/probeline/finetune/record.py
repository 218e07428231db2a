"""What a training run has seen so far: losses, scores, its best step. JSON-like throughout."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from probeline.probe.threshold import Evaluation


@dataclass
class Record:
    """Kept in every checkpoint, so that a resumed run knows what an uninterrupted one would.

    Attributes
    ----------
    history : list of dict
        step, epoch, split ("train" or "validation"), loss, score (None for train).
    best_step : int or None
        Step with the best validation score, of equal ones that with the lowest validation loss.
    best_score, best_loss, best_threshold : float or None
    last_threshold : float or None
        Of the last evaluation.
    waited : int
        Evaluations since the score last rose.
    stopped : bool
        Whether early stopping has ended the run.
    seconds : float
        Spent on training and evaluations, over all runs.
    loss_sum, loss_steps : float, int
        Train losses since the last entry of the history.
    """

    history: list[dict] = field(default_factory=list)
    best_step: int | None = None
    best_score: float | None = None
    best_loss: float | None = None
    best_threshold: float | None = None
    last_threshold: float | None = None
    waited: int = 0
    stopped: bool = False
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0

    def plain(self) -> dict:
        return asdict(self)

    def trained(self, step: int, epoch: float) -> float:
        """Enter the mean train loss since the last entry; return it."""
        loss = self.loss_sum / max(self.loss_steps, 1)
        self.loss_sum, self.loss_steps = 0.0, 0
        self._enter(step, epoch, "train", loss, None)
        return loss

    def evaluated(
        self, step: int, epoch: float, loss: float, found: Evaluation, patience: int | None
    ) -> None:
        """Enter what validation says, and whether it is time to stop."""
        self._enter(step, epoch, "validation", loss, found.score)
        risen = self.best_score is None or found.score > self.best_score
        if risen or (found.score == self.best_score and loss < self.best_loss):
            self.best_step, self.best_score, self.best_loss = step, found.score, loss
            self.best_threshold = found.threshold
        self.last_threshold = found.threshold
        self.waited = 0 if risen else self.waited + 1
        self.stopped = patience is not None and self.waited >= patience

    def _enter(self, step: int, epoch: float, split: str, loss: float, score: float | None):
        self.history.append(
            {"step": step, "epoch": round(epoch, 6), "split": split, "loss": loss, "score": score}
        )
