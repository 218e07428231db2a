"""What label tokens must know about each architecture. Checked against transformers 5.23."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probeline.errors import ProbelineError, one_of
from probeline.label_tokens.configuration import PREFIX, SUFFIX
from probeline.models.families import family_of
from probeline.models.reading import NO_POSITIONS, check_reading

if TYPE_CHECKING:
    import transformers

    from probeline.label_tokens.configuration import LabelTokenConfig


def new_body(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    """A body with random weights: of an encoder-decoder the encoder, without a pooler."""
    import transformers

    family = family_of(config.model_type, "label tokens")
    if family.encoder_class is not None:
        return getattr(transformers, family.encoder_class)._from_config(config)
    extra = {"add_pooling_layer": False} if family.pooler else {}
    return transformers.AutoModel.from_config(config, **extra)


def check(config: LabelTokenConfig) -> None:
    """Refuse what the body cannot do.

    Raises
    ------
    ProbelineError
        If the position is unknown, a chunk has no label, or as `check_reading`.
    """
    kind = config.body.model_type
    if config.position not in (PREFIX, SUFFIX):
        raise ProbelineError(f"position: {one_of(config.position, (PREFIX, SUFFIX))}")
    if config.chunk is not None and config.chunk < 1:
        raise ProbelineError(f"chunk: {config.chunk} labels per pass; expected 1 or more, or null")
    check_reading(kind, config.position, config.shared_positions, config.labels_attend)


def wants_bool_mask(config: transformers.PreTrainedConfig) -> bool:
    """Whether masks of pairs of tokens are True and False, or what is added to scores.

    Raises
    ------
    ProbelineError
        If the attention in use takes neither.
    """
    used = config._attn_implementation or "eager"
    if used not in ("eager", "sdpa"):
        raise ProbelineError(
            f"attention {used} takes no mask of pairs of tokens, which label tokens that do not "
            "attend to each other need; load the model with attn_implementation='sdpa'"
        )
    return used == "sdpa"


def windows(config: transformers.PreTrainedConfig) -> dict[str, int | None] | int | None:
    """How far attention reaches, None where it has no end: of each kind of layer, or of all.

    A dict is for bodies that take one mask per kind of layer, under the same keys.
    """
    reach = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return reach
    return {kind: reach if kind == "sliding_attention" else None for kind in sorted(set(kinds))}


def first_position(body: transformers.PreTrainedModel) -> int | None:
    """The position number of the first token; None where there are no such numbers."""
    kind = body.config.model_type
    if kind in NO_POSITIONS:
        return None
    padded = family_of(kind, "label tokens").padded_positions
    # Not the config's padding id: MPNet counts from 2, whatever that is.
    return body.embeddings.padding_idx + 1 if padded else 0
