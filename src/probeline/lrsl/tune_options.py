"""The options of tuning an embedding: their defaults and what is allowed. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from probeline.finetune.options import KEEP, PRECISIONS, checked, is_integer, is_number

LOSSES = ("mnrl", "triplet", "cached-mnrl")


@dataclass(frozen=True)
class TuneOptions:
    """How an embedding is tuned.

    Attributes
    ----------
    loss : one of `LOSSES`
        `RankingLoss`, sentence-transformers' TripletLoss on cosine distances, `CachedRankingLoss`.
    epochs : float
        Passes over the triplets.
    batch_size : int
        Triplets per step; the ranking losses take the other ones' labels for negatives.
    learning_rate : float
        AdamW's at the end of the warm-up; it falls linearly to 0.
    warmup : float
        Share of all steps over which the learning rate rises from 0.
    scale : float
        By which the ranking losses multiply cosines.
    margin : float
        By which the triplet loss wants the right label to be closer.
    mini_batch : int
        Triplets that are in memory at a time with the cached loss.
    mixed_precision : one of `finetune.options.PRECISIONS`
    keep : "best" or "last"
        The epoch that is written: best by retrieval accuracy on validation, or the last.
    checkpoint_minutes : float
        Minutes between checkpoints to resume from, beside the one after each epoch.
    """

    gradient_accumulation: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    max_grad_norm: ClassVar[float] = 1.0

    loss: str = "mnrl"
    epochs: float = 1.0
    batch_size: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    scale: float = 20.0
    margin: float = 0.5
    mini_batch: int = 32
    mixed_precision: str = "auto"
    keep: str = "best"
    checkpoint_minutes: float = 10.0

    def plain(self) -> dict:
        """JSON-like."""
        return asdict(self)

    def deciding(self) -> dict:
        """Those that change the weights of some step."""
        found = self.plain()
        for key in ("keep", "checkpoint_minutes"):
            del found[key]
        return found


def _above_0(v) -> bool:
    return is_number(v) and v > 0


def _from_1(v) -> bool:
    return is_integer(v) and v >= 1


# Key: (what it must be, in words, and the test of it).
_RULES = {
    "loss": (f"one of {', '.join(LOSSES)}", lambda v: v in LOSSES),
    "epochs": ("a number above 0", _above_0),
    "batch_size": ("an integer of 1 or more", _from_1),
    "learning_rate": ("a number above 0", _above_0),
    "warmup": ("a share from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1),
    "scale": ("a number above 0", _above_0),
    "margin": ("a number above 0", _above_0),
    "mini_batch": ("an integer of 1 or more", _from_1),
    "mixed_precision": (f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS),
    "keep": ("best or last", lambda v: v in KEEP),
    "checkpoint_minutes": ("a number above 0", _above_0),
}


def read_tune_options(section: Mapping) -> TuneOptions:
    """Check the section `lrsl.tune`; what it leaves out takes its default.

    Raises
    ------
    ProbelineError
        If a key is unknown or a value not allowed.
    """
    return TuneOptions(**checked(section, _RULES, "lrsl.tune"))
