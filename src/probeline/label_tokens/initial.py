"""What the embeddings of the label tokens begin with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from probeline.errors import ProbelineError, one_of

RANDOM, MEAN, LABEL_TEXT, CLS, MIX = INITIALIZATIONS = (
    "random",
    "mean",
    "label_text",
    "cls",
    "mix",
)


def initial_rows(
    method: str,
    embeddings: torch.Tensor,
    tokenizer,
    texts: Sequence[str | Sequence[str]],
    seed: int = 0,
) -> torch.Tensor:
    """The first embedding of each label's token.

    Parameters
    ----------
    method : str
        "random": normal, with the mean 0 and the standard deviation of the vocabulary's values;
        "mean": the mean of the vocabulary; "label_text": the mean of the label's own word pieces;
        "cls": the token that stands for a text, [CLS], else the start token, else the end token;
        "mix": half "label_text", half "cls".
    embeddings : torch.Tensor
        (V, D) the body's; rows beyond the tokenizer's vocabulary are padding and do not count.
    tokenizer : transformers.PreTrainedTokenizerBase
    texts : sequence, one per label
        Its name or description, or several wordings, whose pieces are taken together.
    seed : int
        Of "random".

    Returns
    -------
    torch.Tensor
        float32 (K, D)

    Raises
    ------
    ProbelineError
        If the method is unknown, a label's text has no word piece, or the tokenizer has no such
        token.
    """
    if method not in INITIALIZATIONS:
        raise ProbelineError(f"initialization: {one_of(method, INITIALIZATIONS)}")
    known = embeddings.detach()[: len(tokenizer)].float().cpu()
    shape = len(texts), known.shape[1]
    if method == RANDOM:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator) * known.std()
    if method == MEAN:
        return known.mean(0).expand(shape).clone()
    if method == CLS:
        return known[_cls(tokenizer)].expand(shape).clone()
    rows = torch.stack([known[_pieces(tokenizer, text)].mean(0) for text in texts])
    return (rows + known[_cls(tokenizer)]) / 2 if method == MIX else rows


def _cls(tokenizer) -> int:
    for name in ("cls_token_id", "bos_token_id", "eos_token_id"):
        found = getattr(tokenizer, name)
        if found is not None:
            return found
    raise ProbelineError(
        "initialization: the tokenizer has no [CLS], start or end token; expected one of "
        f"{RANDOM}, {MEAN}, {LABEL_TEXT}"
    )


def _pieces(tokenizer, text: str | Sequence[str]) -> list[int]:
    wordings = [text] if isinstance(text, str) else list(text)
    pieces = [piece for wording in wordings for piece in _of_wording(tokenizer, wording)]
    if not pieces:
        raise ProbelineError(
            f"initialization: the tokenizer makes no token of the label's text '{wordings[0]}'; "
            "give the label a description"
        )
    return pieces


def _of_wording(tokenizer, text: str) -> list[int]:
    # Byte-level BPE has other, and mostly better, pieces for a word after a space, as words stand
    # in texts; the others make one piece more of that space, or none.
    plain, spaced = tokenizer([text, f" {text}"], add_special_tokens=False)["input_ids"]
    return spaced if len(spaced) <= len(plain) else plain
