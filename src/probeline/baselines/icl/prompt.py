"""What the language model reads: an instruction, examples with their labels, the text."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probeline.errors import ProbelineError, one_of

EXAMPLE = "Text: {text}\nLabel: {label}"
PAIR_EXAMPLE = "Text 1: {text_a}\nText 2: {text_b}\nLabel: {label}"
SEPARATOR = "\n\n"
_FIELDS = ("text", "text_a", "text_b", "label")


@dataclass(frozen=True)
class Template:
    """How a prompt is put together.

    Attributes
    ----------
    instruction : str
        Stands first; left out where empty.
    before : tuple of (str, str or None)
        Literal text and the field that follows it, up to the label.
    gap : str
        Spaces before the label. They belong to the label, not to the prompt: most tokenizers join
        a space with the word after it, and a prompt that ends in a space is one they never make.
    after : str
        What follows the label in an example.
    separator : str
        Between instruction, examples and text.
    """

    instruction: str
    before: tuple[tuple[str, str | None], ...]
    gap: str
    after: str
    separator: str

    @property
    def lead(self) -> str:
        """What stands right before a label whatever the text."""
        return self.before[-1][0]

    def query(self, text: str, pair: str | None = None) -> str:
        """The example format up to the label."""
        values = {"text": text, "text_a": text, "text_b": pair}
        return "".join(literal + (values[field] if field else "") for literal, field in self.before)

    def shot(self, text: str, pair: str | None, label: str) -> str:
        """One example with its label."""
        return self.query(text, pair) + self.gap + label + self.after

    def prompt(self, shots: Sequence[str], text: str, pair: str | None = None) -> str:
        """All that stands before the label of `text`; `shots` as made by `shot`."""
        parts = [self.instruction] if self.instruction else []
        return self.separator.join([*parts, *shots, self.query(text, pair)])


def template_of(options: Mapping, pair: bool, labels: Sequence[str]) -> Template:
    """Read a template.

    Parameters
    ----------
    options : mapping
        `instruction`, in which `{labels}` stands for all label texts, sorted; `example` with
        `{text}`, or `{text_a}` and `{text_b}`, then `{label}`; `separator`. All optional.
    pair : bool
        Whether the dataset has second texts.
    labels : sequence of str
        Label texts.

    Raises
    ------
    ProbelineError
        If a field is unknown or missing, or the label does not come last.
    """
    example = options.get("example") or (PAIR_EXAMPLE if pair else EXAMPLE)
    parts = _parse(example)
    fields = [field for _, field in parts if field is not None]
    for field in fields:
        if field not in _FIELDS:
            raise ProbelineError(f"icl.example: field {one_of(field, _FIELDS)}")
    for field in ("text_a", "text_b") if pair else ("text",):
        # The first text has two names, and a template of pairs may use either.
        if field not in fields and not (field != "text_b" and {"text", "text_a"} & set(fields)):
            raise ProbelineError(
                f"icl.example: '{example}' has no {{{field}}}; write for example "
                f"'{PAIR_EXAMPLE if pair else EXAMPLE}'"
            )
    if not pair and "text_b" in fields:
        raise ProbelineError("icl.example: has {text_b}, but the dataset has no second texts")
    if fields.count("label") != 1 or fields[-1] != "label":
        raise ProbelineError(
            f"icl.example: '{example}' must have {{label}} once, after the text: what comes before "
            "it is what the label is predicted from"
        )
    place = [field for _, field in parts].index("label")
    literal = parts[place][0]
    lead = literal.rstrip(" ")
    instruction = options.get("instruction") or ""
    separator = options.get("separator")
    return Template(
        instruction=instruction.replace("{labels}", ", ".join(sorted(labels))),
        before=(*parts[:place], (lead, None)),
        gap=literal[len(lead) :],
        after=parts[place + 1][0],
        separator=SEPARATOR if separator is None else separator,
    )


def _parse(example: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(example))
    except ValueError as error:
        raise ProbelineError(
            f"icl.example: '{example}': {error}; a brace that is meant as such is doubled"
        ) from None
    for _, field, form, conversion in parts:
        if field is not None and (form or conversion):
            raise ProbelineError(f"icl.example: '{{{field}}}' takes no format or conversion")
    joined: list[tuple[str, str | None]] = []
    literal = ""
    for piece, field, _, _ in parts:
        # A doubled brace ends a piece without a field.
        literal += piece
        if field is not None:
            joined.append((literal, field))
            literal = ""
    return [*joined, (literal, None)]
