"""Label tokens beside a tokenizer of any family: their names, their place, the room they leave."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from probeline.errors import ProbelineError
from probeline.label_tokens.configuration import LabelTokenConfig


def token_names(labels: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Name the token of each label, for figures and tables: `[label:joy]`.

    No tokenizer ever reads these names, so any letters will do; but they are all different, and
    none is in `taken`, the vocabulary they stand beside.
    """
    names = []
    for label in labels:
        name, number = f"[label:{label}]", 2
        while name in taken or name in names:
            name, number = f"[label:{label}#{number}]", number + 1
        names.append(name)
    return names


def first_tokens(tokenizer) -> int:
    """How many special tokens the tokenizer puts before a text, such as [CLS]: 1, or 0."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return start
    return 0


def text_room(
    config: LabelTokenConfig, positions: int | None, special: int, max_length: int
) -> int:
    """Tokens that a text may have: truncation eats the text, never the labels.

    Parameters
    ----------
    positions : int or None
        The body's window; None where it has no end.
    special : int
        Special tokens that the tokenizer adds to a pair of texts.
    max_length : int
        Most tokens of a text, special ones included, were there no label.

    Raises
    ------
    ProbelineError
        If the labels leave no room for text.
    """
    if positions is None:
        return max_length
    room = positions - config.positions_taken
    if room <= special:
        most = positions - special - 1
        raise ProbelineError(
            f"label tokens: {config.positions_taken} of them leave no room for text beside "
            f"{special} special tokens in the model's {positions} positions; set chunk or "
            f"shortlist to at most {most}, or let them share a position"
        )
    return min(max_length, room)


def fit_tokenizer(tokenizer, room: int, token_types: bool) -> None:
    """Make a tokenizer cut and pad alone, in any pipeline, as training does.

    Parameters
    ----------
    room : int
        What `text_room` says.
    token_types : bool
        The body has segments of pairs.

    Raises
    ------
    ProbelineError
        If it has neither a padding nor an end token.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ProbelineError(
                "label tokens: the tokenizer has neither a padding token nor an end token, so "
                "texts cannot be put into batches; set `tokenizer:` to one that has"
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = room
    names = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
    # A tokenizer writes down only what it was made with.
    for name, value in (("padding_side", "right"), ("model_input_names", names)):
        setattr(tokenizer, name, value)
        tokenizer.init_kwargs[name] = value
