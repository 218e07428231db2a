"""Panels and series: where a slug belongs, how large a panel is, how a series looks.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), without the yellow, which is
too pale for lines on white.
"""

from __future__ import annotations

from collections.abc import Iterable

from probeline.activations.names import POOLINGS, REPRESENTATIONS

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
# One more than colours: a pair of colour and shape comes back after 56 series only.
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_SHAPES += ("triangle-left", "triangle-right")
# The first four looks; a pooling has the same one in every figure.
_LOOKS = ("mean", "max", "first", "last")
PANELS = {
    "ffn": "FFN activations",
    "hidden": "Hidden states",
    "decoder-ffn": "Decoder FFN activations",
    "decoder-hidden": "Decoder hidden states",
    "combined": "Combinations",
}
_WIDTHS, _NARROWEST = {1: 560, 2: 350, 3: 270}, 230
HEIGHT = 320


def panel_and_series(slug: str) -> tuple[str, str]:
    """(panel, series) of a slug."""
    representation, _, pooling = slug.partition(".")
    if representation in REPRESENTATIONS and pooling in POOLINGS:
        return representation, pooling
    # A combination may be called 'mean'.
    return "combined", f"{slug} (combination)" if slug in POOLINGS else slug


def series_looks(rows: Iterable[dict]) -> dict[str, tuple[str, str]]:
    """(colour, shape) by series, poolings first."""
    series = list(dict.fromkeys(row["series"] for row in rows if "series" in row))
    poolings = [name for name in _LOOKS if name in series]
    numbers = {name: _LOOKS.index(name) for name in poolings}
    others = [name for name in series if name not in poolings]
    numbers |= {name: i for i, name in enumerate(others, len(_LOOKS))}
    return {
        name: (_COLOURS[i % len(_COLOURS)], _SHAPES[i % len(_SHAPES)])
        for name, i in numbers.items()
    }


def panel_width(panels: int) -> int:
    return _WIDTHS.get(panels, _NARROWEST)
