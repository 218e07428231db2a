"""The kinds of value a configuration holds: numbers, words, lists without repeats, and "either or".

A configuration reaches us parsed, by `reading.read` or by Snakemake's own YAML loader. Both follow
YAML 1.1, where ``1e-3`` is text (a float needs a dot there) and ``no`` is a boolean. The kinds
below take such a number for what was meant; everything else keeps its own type, so that ``true``
or ``"0.2"`` never becomes a number unnoticed.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
)
from pydantic_core import PydanticCustomError

from probeline.config.words import hint, shown

TAGS = {shape: f"\0{shape}" for shape in ("text", "number", "list", "mapping")}
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")

# What becomes part of a file name. Snakemake's wildcards are parted at "/" and ".".
SLUG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
SLUG_WORDS = "letters, digits, '-' and '_', the first a letter or digit, 64 at most"

# The model under whose name a method without one, TF-IDF, has its results.
NO_MODEL = "tfidf"

# The task of whole paths through a hierarchy, beside those named like its columns.
PATH_TASK = "path"

Representation = Literal["ffn", "hidden", "decoder-ffn", "decoder-hidden"]
Pooling = Literal["first", "last", "max", "mean"]
Metric = Literal["accuracy", "macro-f1", "micro-f1", "matthews", "roc-auc"]
Loader = Literal["hub", "csv", "tsv", "json", "parquet", "folder"]
REPRESENTATIONS: tuple[str, ...] = get_args(Representation)
POOLINGS: tuple[str, ...] = get_args(Pooling)


class Closed(BaseModel):
    """A part of the configuration: no key but the listed ones, no silent conversion of values."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def mistake(message: str) -> PydanticCustomError:
    """Return an error whose `message` stands as it is behind the key's path."""
    return PydanticCustomError("mistake", "{message}", {"message": message})


def _as_number(value: Any) -> Any:
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return float(value)
    return value


def _as_whole(value: Any) -> Any:
    value = _as_number(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def whole(minimum: int | None = None, maximum: int | None = None) -> Any:
    """Return the type of a whole number from `minimum` to `maximum`; 1e4 counts as one."""
    return Annotated[int, Field(ge=minimum, le=maximum), BeforeValidator(_as_whole)]


def number(**bounds: float) -> Any:
    """Return the type of a finite number within `bounds` (gt, ge, lt, le); 1e-3 counts as one."""
    return Annotated[float, Field(allow_inf_nan=False, **bounds), BeforeValidator(_as_number)]


def distinct(item: Any, order: tuple[str, ...] = (), minimum: int = 1) -> Any:
    """Return the type of a list without repeats whose order means nothing.

    It is sorted (by `order` where given), so that writing the same choice in another order changes
    no job's parameters.
    """
    return Annotated[
        list[item],
        Field(min_length=minimum, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_no_repeats),
        AfterValidator(lambda values: sorted(values, key=order.index if order else None)),
    ]


def _no_repeats(values: list) -> list:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise mistake(f"{shown(value)} stands in the list more than once")
    return values


def ordered(item: Any, minimum: int = 1, maximum: int | None = None) -> Any:
    """Return the type of a list without repeats whose order has a meaning."""
    return Annotated[
        list[item],
        Field(min_length=minimum, max_length=maximum, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_no_repeats),
    ]


def either(**shapes: Any) -> Any:
    """Return a union told apart by shape: keys are among text, number, list, mapping.

    Pydantic then reports the mistakes of the one member that was meant instead of those of all.
    Pydantic also puts the tags into error paths, where `problems` drops them.
    """
    members = (Annotated[kind, Tag(TAGS[shape])] for shape, kind in shapes.items())
    return Annotated[Union[tuple(members)], Discriminator(_shape_finder(set(shapes)))]  # noqa: UP007


def _shape_finder(shapes: set[str]) -> Callable[[Any], str | None]:
    def find(value: Any) -> str | None:
        if "number" in shapes:
            value = _as_number(value)
        found = None
        if isinstance(value, str):
            found = "text"
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found = "number"
        elif isinstance(value, list):
            found = "list"
        elif isinstance(value, dict | BaseModel):
            found = "mapping"
        return TAGS[found] if found in shapes else None

    return find


def _known_encoding(name: str) -> str:
    wrong = mistake(
        f"{shown(name)} is not a text encoding Python knows, such as utf-8, cp1252, latin-1, utf-16"
    )
    try:
        b"a".decode(name)  # refuses what is a codec but no text encoding, such as hex
    except UnicodeError:
        pass  # one byte is no whole character in this encoding
    except (LookupError, ValueError):
        raise wrong from None
    return codecs.lookup(name).name


def _member(value: str) -> str:
    representation, dot, pooling = value.partition(".")
    if not dot:
        raise mistake(f"{shown(value)} is not <representation>.<pooling>, such as ffn.mean")
    if representation not in REPRESENTATIONS:
        raise mistake(_wrong_part(value, representation, REPRESENTATIONS))
    if pooling not in POOLINGS:
        raise mistake(_wrong_part(value, pooling, POOLINGS))
    return value


def _wrong_part(value: str, part: str, choices: tuple[str, ...]) -> str:
    return f"{shown(value)}: {shown(part)} is not one of {', '.join(choices)}{hint(part, choices)}"


Text = Annotated[str, Field(pattern=r"\S")]
Flag = StrictBool
Encoding = Annotated[Text, AfterValidator(_known_encoding)]
Encodings = ordered(Encoding)
Column = Text
Positive = number(gt=0)
Fraction = number(gt=0, lt=1)
Share = number(gt=0, le=1)
Parts = whole(1, 9999)
MEMBERS = tuple(f"{r}.{p}" for r in REPRESENTATIONS for p in POOLINGS)
Member = Annotated[
    str,
    AfterValidator(_member),
    Field(json_schema_extra={"enum": list(MEMBERS)}),
]
Penalties = either(text=Literal["auto"], list=distinct(Positive))
ClassWeight = Literal["auto", "balanced"] | None
