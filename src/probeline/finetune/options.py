"""The options of fine-tuning: their defaults and what is allowed. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from probeline.errors import ProbelineError, one_of

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("auto", "no", "bf16", "fp16")
CLASS_WEIGHTS = (None, "balanced")
KEEP = ("best", "last")
ALL_LINEAR = "all-linear"
# How often a training saves its state, and whom it tells of its progress: no weight depends on it.
ASIDE = ("checkpoint_minutes", "report_to")


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters.

    Attributes
    ----------
    rank : int
        Rank of the two factors of each update.
    alpha : float
        The update is scaled by alpha / rank.
    dropout : float
        Dropout before the first factor.
    targets : "all-linear" or tuple of str
        Linear maps of the body that get an adapter: all, or those whose name ends so.
    quantize : "nf4" or None
        Keep the frozen body in 4-bit NF4 with double quantisation; needs CUDA and bitsandbytes.
    merge : bool
        Write the merged model beside the adapter. The adapter of a body in 4 bits is merged into
        the whole weights, so that the merged model's logits differ a little from those written.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: str | tuple[str, ...] = ALL_LINEAR
    quantize: str | None = None
    merge: bool = True


@dataclass(frozen=True)
class Options:
    """How a classifier is fine-tuned.

    Attributes
    ----------
    epochs : float
        Passes over the train rows.
    learning_rate : float
        At the end of the warm-up; 2e-4 for adapters where the section says nothing.
    schedule : one of `SCHEDULES`
        How the learning rate falls after the warm-up; to 0, or not at all.
    warmup : float
        Share of all steps over which the learning rate rises from 0.
    weight_decay : float
        AdamW's, on all but biases and norms.
    batch_size : int
        Texts per forward pass.
    gradient_accumulation : int
        Forward passes per step.
    gradient_checkpointing : bool
        Compute activations again in the backward pass: less memory, a third more time.
    max_grad_norm : float or None
        Largest norm of the gradient; None does not clip.
    early_stopping : int or None
        Stop after so many evaluations without a better validation score; None never stops.
    evaluations : int
        Evaluations on validation per epoch.
    class_weight : None or "balanced"
        Weigh texts by the inverse frequency of their class (per label for multi-label tasks).
    mixed_precision : one of `PRECISIONS`
        "auto" is bf16 on CUDA where it is native, fp16 on older cards, none elsewhere.
    label_smoothing : float
        Share of the target that is spread evenly over the classes.
    group_by_length : bool
        Put texts of similar length into a batch: less padding.
    keep : "best" or "last"
        The checkpoint that is written: best on validation, or the last.
    checkpoint_minutes : float
        Minutes between checkpoints to resume from, beside the one at each evaluation.
    report_to : tuple of str
        Integrations of transformers that are told losses and scores (tensorboard, wandb, ...).
    lora : LoraOptions or None
        None trains every weight.
    """

    epochs: float = 3.0
    learning_rate: float = 2e-5
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    batch_size: int = 16
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    max_grad_norm: float | None = 1.0
    early_stopping: int | None = None
    evaluations: int = 1
    class_weight: str | None = None
    mixed_precision: str = "auto"
    label_smoothing: float = 0.0
    group_by_length: bool = True
    keep: str = "best"
    checkpoint_minutes: float = 10.0
    report_to: tuple[str, ...] = ()
    lora: LoraOptions | None = None

    def plain(self) -> dict:
        """JSON-like, with lists for tuples."""
        return _plain(asdict(self))


# Key: (what it must be, in words, and the test of it).
_RULES = {
    "epochs": ("a number above 0", lambda v: is_number(v) and v > 0),
    "learning_rate": ("a number above 0, or null", lambda v: v is None or (is_number(v) and v > 0)),
    "schedule": (f"one of {', '.join(SCHEDULES)}", lambda v: v in SCHEDULES),
    "warmup": ("a share from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1),
    "weight_decay": ("a number of 0 or more", lambda v: is_number(v) and v >= 0),
    "batch_size": ("an integer of 1 or more", lambda v: is_integer(v) and v >= 1),
    "gradient_accumulation": ("an integer of 1 or more", lambda v: is_integer(v) and v >= 1),
    "gradient_checkpointing": ("true or false", lambda v: isinstance(v, bool)),
    "max_grad_norm": ("a number above 0, or null", lambda v: v is None or (is_number(v) and v > 0)),
    "early_stopping": (
        "an integer of 1 or more, or null",
        lambda v: v is None or (is_integer(v) and v >= 1),
    ),
    "evaluations": ("an integer of 1 or more", lambda v: is_integer(v) and v >= 1),
    "class_weight": ("null or balanced", lambda v: v in CLASS_WEIGHTS),
    "mixed_precision": (f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS),
    "label_smoothing": (
        "a share from 0 to 1, 1 excluded",
        lambda v: is_number(v) and 0 <= v < 1,
    ),
    "group_by_length": ("true or false", lambda v: isinstance(v, bool)),
    "keep": ("best or last", lambda v: v in KEEP),
    "checkpoint_minutes": ("a number above 0", lambda v: is_number(v) and v > 0),
    "report_to": ("a list of names", lambda v: _names(v)),
    "lora": ("null or a section", lambda v: v is None or isinstance(v, Mapping | LoraOptions)),
}
_LORA_RULES = {
    "rank": ("an integer of 1 or more", lambda v: is_integer(v) and v >= 1),
    "alpha": ("a number above 0", lambda v: is_number(v) and v > 0),
    "dropout": ("a share from 0 to 1, 1 excluded", lambda v: is_number(v) and 0 <= v < 1),
    "targets": (
        f"{ALL_LINEAR} or a list of names of linear maps",
        lambda v: v == ALL_LINEAR or (_names(v) and len(v) > 0),
    ),
    "quantize": ("null or nf4", lambda v: v in (None, "nf4")),
    "merge": ("true or false", lambda v: isinstance(v, bool)),
}


def read_options(section: Mapping) -> Options:
    """Check the section `finetune:`; what it leaves out takes its default.

    Raises
    ------
    ProbelineError
        If a key is unknown or a value not allowed.
    """
    values = checked(section, _RULES, "finetune")
    if values.get("lora") is not None and not isinstance(values["lora"], LoraOptions):
        values["lora"] = LoraOptions(**checked(values["lora"], _LORA_RULES, "finetune.lora"))
    if values.get("learning_rate") is None:
        values["learning_rate"] = 2e-5 if values.get("lora") is None else 2e-4
    return Options(**values)


def checked(section: Mapping, rules: Mapping, where: str) -> dict:
    """The values of a section, as `rules` want them: {key: (what it must be, in words, test)}.

    Lists become tuples, and numbers float where the words are "a number" or "a share".

    Raises
    ------
    ProbelineError
        If a key is unknown or a value not allowed; `where` names the section.
    """
    values = dict(section)
    for key, value in values.items():
        if key not in rules:
            raise ProbelineError(f"{where}: {one_of(key, rules)}")
        expected, allowed = rules[key]
        if not allowed(value):
            raise ProbelineError(f"{where}.{key}: expected {expected}, found {value!r}")
        if isinstance(value, list):
            values[key] = tuple(value)
        elif expected.startswith(("a number", "a share")) and value is not None:
            values[key] = float(value)
    return values


def is_number(value) -> bool:
    """Whether it is a finite number, and no bool."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) != float("inf") and value == value


def is_integer(value) -> bool:
    """Whether it is an integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _names(value) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
