"""Who reads whom in each architecture: what label tokens can be told of it. Light: no torch.

Checked against transformers 5.23.
"""

from __future__ import annotations

from probeline.errors import ProbelineError

_CAUSAL = frozenset(
    {"gemma", "gemma2", "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "phi"}
    | {"qwen2", "qwen3"}
)
# Distances between tokens are counted by their places, which no argument changes.
_COUNT_PLACES = frozenset({"deberta-v2", "gpt_neo", "mpnet", "mt5", "t5"})
NO_POSITIONS = frozenset({"mt5", "t5"})
_NO_MASKS = frozenset({"deberta-v2"})


def is_causal(model_type: str) -> bool:
    """Whether a token sees only those before it."""
    return model_type in _CAUSAL


def check_reading(
    model_type: str, position: str | None, shared_positions: bool, labels_attend: bool
) -> None:
    """Refuse what label tokens cannot do in an architecture.

    Parameters
    ----------
    position : "prefix", "suffix" or None
        None: whatever fits.

    Raises
    ------
    ProbelineError
        If labels are to stand before the text of a decoder, or there are no positions or masks of
        one's own that the options need.
    """
    if position == "prefix" and is_causal(model_type):
        raise ProbelineError(
            f"position: prefix, but {model_type} is a decoder, whose tokens see only those before "
            "them; label tokens must stand after the text: use suffix"
        )
    if shared_positions and model_type in _COUNT_PLACES:
        raise ProbelineError(
            f"shared_positions: {model_type} counts the distances between tokens by their places, "
            "so label tokens cannot share a position; let them read jointly or take another model"
        )
    if not labels_attend and model_type in _NO_MASKS:
        raise ProbelineError(
            f"labels_attend: {model_type} takes no mask of pairs of tokens, so label tokens cannot "
            "be kept from attending to each other; let them read jointly or take another model"
        )
