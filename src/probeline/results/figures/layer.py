"""The figure of score by layer."""

from __future__ import annotations

import os
from collections.abc import Sequence

from probeline.results.figures.axes import layer_axis, metric_name, score_axis
from probeline.results.figures.drawing import GLYPHS, Figure, check_outputs, draw, make_row
from probeline.results.figures.reading import read_layers, reference_lines


def layer_figure(
    layers: str | os.PathLike,
    sentence_embedding: str | os.PathLike | None,
    metric: str,
    title: str,
    outputs: Sequence[str | os.PathLike],
) -> None:
    """Draw the test score of every probe by layer, one panel per representation.

    The best single layer, chosen on validation, is ringed; horizontal lines show the last layer
    and the sentence embedding.

    Parameters
    ----------
    layers : path
        Table of `probeline.results.layers.compare_layers`.
    sentence_embedding : path or None
        Scores of `probeline.baselines.sentence_embedding`; None where there is no such baseline.
    metric : str
        Name of the score, as in the configuration.
    outputs : sequence of path
        `.svg` or `.png`.

    Raises
    ------
    ProbelineError
        If an input is missing, unreadable or not of its kind, or an output has another suffix.
    """
    check_outputs(outputs)
    table = read_layers(layers)
    lines = reference_lines(table, sentence_embedding, "test_score")
    best = next(row for row in table if row["best"])
    rows = [
        make_row(row["representation"], "line", row["layer"], row["test_score"])
        | {"series": row["pooling"], "dot": True}
        for row in table
    ]
    rows += [make_row(best["representation"], "circle", best["layer"], best["test_score"])]
    name = f"{best['representation']}.{best['pooling']}, layer {best['layer']}"
    ring = f"{GLYPHS['circle']} Best layer on validation: {name}: test {best['test_score']:.3f}"
    scores = [row["test_score"] for row in table]
    always = [best["test_score"], *lines.values()]
    y, below = score_axis(f"Test {metric_name(metric)}", scores, always, reach=1.5)
    x = layer_axis([row["layer"] for row in table])
    draw(Figure(title, [ring, *below], "Pooling", rows, lines, x, y, "linear"), outputs)
