"""Names of shards. Light: a workflow calls this while it is parsed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import Literal

from probeline.errors import ProbelineError, one_of
from probeline.models.reference import ModelShape

REPRESENTATIONS = ("ffn", "hidden", "decoder-ffn", "decoder-hidden")
POOLINGS = ("first", "last", "max", "mean")
# Token counts of a part's texts, of which the join stage makes the summary of all.
LENGTHS = "lengths.npy"

Layers = Literal["all"] | Collection[int]

_NAME = re.compile(
    rf"(?P<representation>{'|'.join(REPRESENTATIONS)})"
    rf"\.(?P<pooling>{'|'.join(POOLINGS)})\.(?P<layer>\d{{2,3}})\.h5"
)


def layers_of(shape: ModelShape, representation: str) -> range:
    """Layer numbers of `representation`: hidden 0..L (0 = embedding output), FFN 1..L.

    Raises
    ------
    ProbelineError
        If the representation is unknown, or a decoder's is asked of a model that has none.
    """
    if representation not in REPRESENTATIONS:
        raise ProbelineError(f"representation {one_of(representation, REPRESENTATIONS)}")
    blocks = shape.layers
    if representation.startswith("decoder-"):
        if shape.decoder_layers is None:
            raise ProbelineError(
                f"representation '{representation}': the model ({shape.model_type or 'unknown'}) "
                "is no encoder-decoder; use ffn or hidden"
            )
        blocks = shape.decoder_layers
    return range(1 if representation.endswith("ffn") else 0, blocks + 1)


@cache
def shard_name(shape: ModelShape, representation: str, pooling: str, layer: int) -> str:
    """Return `{representation}.{pooling}.{layer}.h5`, the layer with 2 digits (3 where L > 99).

    Cached: while a workflow is planned, each job that reads a shard asks for its name.

    Raises
    ------
    ProbelineError
        If the pooling is unknown or the layer out of range.
    """
    if pooling not in POOLINGS:
        raise ProbelineError(f"pooling {one_of(pooling, POOLINGS)}")
    layers = layers_of(shape, representation)
    if layer not in layers:
        raise ProbelineError(
            f"layer {layer} of '{representation}' is out of range; "
            f"the model has {layers[0]} to {layers[-1]}"
        )
    digits = 3 if max(shape.layers, shape.decoder_layers or 0) > 99 else 2
    return f"{representation}.{pooling}.{layer:0{digits}d}.h5"


def check_layers(
    shape: ModelShape, representations: Iterable[str], layers: Layers, where: str
) -> None:
    """Raise ProbelineError, naming the option `where`, if one of `layers` is in none of these."""
    known = {n for representation in representations for n in layers_of(shape, representation)}
    if layers == "all" or not known:
        return
    for layer in [layers] if isinstance(layers, str) else layers:
        if layer not in known:
            raise ProbelineError(
                f"{where}: {layer!r} is out of range; the model has layers {min(known)} to "
                f"{max(known)}"
            )


def chosen_layers(shape: ModelShape, representation: str, layers: Layers) -> list[int]:
    """Return those of `layers` ("all", or numbers) that `representation` has, in order."""
    return [n for n in layers_of(shape, representation) if layers == "all" or n in layers]


def shard_names(
    shape: ModelShape,
    representations: Iterable[str],
    poolings: Iterable[str],
    layers: Layers = "all",
) -> list[str]:
    """Return the names of a model's shards, of all layers or of some, in the fixed order of
    representations, then poolings, then layers, whatever the order in which they are asked for."""
    asked, wanted = list(representations), list(poolings)
    for representation in asked:
        layers_of(shape, representation)
    for pooling in wanted:
        if pooling not in POOLINGS:
            raise ProbelineError(f"pooling {one_of(pooling, POOLINGS)}")
    return [
        shard_name(shape, representation, pooling, layer)
        for representation in REPRESENTATIONS
        if representation in asked
        for pooling in POOLINGS
        if pooling in wanted
        for layer in chosen_layers(shape, representation, layers)
    ]


def bytes_per_text(shape: ModelShape, names: Iterable[str], storage_dtype: str) -> int | None:
    """Return what shards of a model together take for a text, by their names; None where its
    widths are not known yet."""
    widths = [shape.width(parse_name(name)[0]) for name in names]
    if None in widths:
        return None
    return sum(widths) * {"float16": 2, "float32": 4}[storage_dtype]


def part_folder(number: int | str, parts: int) -> str:
    """Return the name of the folder that holds part `number` (1 to `parts`, or a wildcard) of every
    shard."""
    return f"part-{number}-of-{parts}"


def is_name(name: str) -> bool:
    """Return whether a file name is a shard's."""
    return _NAME.fullmatch(name) is not None


def parse_name(name: str) -> tuple[str, str, int]:
    """Return (representation, pooling, layer) of a shard's file name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ProbelineError(
            f"{name}: not the name of a shard; expected representation.pooling.layer.h5, "
            "like hidden.mean.03.h5"
        )
    return match["representation"], match["pooling"], int(match["layer"])
