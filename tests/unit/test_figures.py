"""Figures: the right marks, labels and formats; the trade-off table against a naive computation."""

from __future__ import annotations

import csv
import io
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probeline.aggregate.grid import Candidate
from probeline.aggregate.stage import write_grid
from probeline.errors import ProbelineError
from probeline.files import write_json
from probeline.probe.path import Step
from probeline.results.figures import (
    Point,
    layer_figure,
    pareto_front,
    tradeoff_figure,
    tradeoff_table,
    write_tradeoff,
)

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def write_layers(path, representations=("ffn", "hidden"), poolings=("first", "mean"), top=3, low=0):
    """A table in the format of the layers stage; the last pooling's last row is `last`, and the
    row with the highest validation score `best`. `low` many rows have a score of 0.2."""
    rows = []
    for representation in representations:
        for p, pooling in enumerate(poolings):
            for layer in range(representation == "ffn", top + 1):
                score = 0.80 + 0.01 * layer + 0.02 * p
                rows.append(
                    {
                        "representation": representation,
                        "pooling": pooling,
                        "layer": layer,
                        "validation_score": score,
                        "test_score": score - 0.05,
                        "log_loss": 0.5,
                        "C": 1.0,
                        "best": False,
                        "last": False,
                    }
                )
    for row in rows[:low]:
        row["test_score"] = 0.2
    max(rows, key=lambda row: row["validation_score"])["best"] = True
    rows[-1]["last"] = True
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def candidate(neurons, score, depth=1, eta=0.1):
    step = Step(1.0, 1.0, 0.0, None, score, 0.0, 0.5, 0.0, neurons, neurons, 0.1, 0.0, 3, True)
    return Candidate(eta, depth, neurons, step)


def make_grid(path, candidates):
    """Write a grid by the stage's own writer, which asks only two things of the final fit."""
    chosen = max(candidates, key=lambda c: c.step.score)
    final = SimpleNamespace(step=chosen.step, neurons=range(chosen.step.neurons))
    write_grid(path, candidates, chosen, final, 0.8, {"slug": "any", "seconds": 1.0})
    return path


@pytest.fixture
def inputs(tmp_path):
    """Files of one run: two single slugs and a combination."""
    grids = {
        "ffn.mean": [candidate(5, 0.80), candidate(5, 0.79), candidate(50, 0.90, 2)],
        "hidden.first": [candidate(3, 0.78), candidate(30, 0.77), candidate(300, 0.89, 3)],
        "both": [candidate(10, 0.85), candidate(80, 0.91, 3)],
    }
    grids = {slug: make_grid(tmp_path / f"{slug}.parquet", found) for slug, found in grids.items()}
    scores = {
        variant: {
            "slug": slug,
            "neurons": neurons,
            "depth": depth,
            "validation_score": score,
            "test_score": 0.8761,
        }
        for variant, slug, neurons, depth, score in (
            ("selected", "both", 80, 3, 0.912),
            ("smallest", "ffn.mean", 50, 2, 0.904),
        )
    }
    write_json(tmp_path / "stc.json", scores)
    write_json(tmp_path / "se.json", {"validation_score": 0.8811, "test_score": 0.8612})
    return SimpleNamespace(
        folder=tmp_path,
        grids=grids,
        scores=tmp_path / "stc.json",
        layers=write_layers(tmp_path / "layers.parquet"),
        embedding=tmp_path / "se.json",
    )


def draw_layers(inputs, *outputs, **changed):
    given = {"layers": inputs.layers, "sentence_embedding": inputs.embedding} | changed
    layer_figure(metric="accuracy", title="bbc / label / minilm", outputs=outputs, **given)


def draw_tradeoff(inputs, *outputs, **changed):
    given = {
        "grids": inputs.grids,
        "scores": inputs.scores,
        "layers": inputs.layers,
        "sentence_embedding": inputs.embedding,
    } | changed
    tradeoff_figure(metric="macro-f1", title="bbc / label / minilm", outputs=outputs, **given)


def svg_of(draw, inputs, **changed):
    path = inputs.folder / "figure.svg"
    draw(inputs, path, **changed)
    return path.read_text(encoding="utf-8")


def texts(svg):
    return re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", svg)


def marks(svg, kind):
    """Attributes of the items of each drawn (clipped or plain) group of a kind of mark."""
    groups = re.findall(rf'<g class="mark-{kind} role-mark [^>]*>(.*?)</g>', svg)
    return [re.findall(r"<(?:path|line) [^>]*>", group) for group in groups]


def coloured(svg, kind, colour):
    return [item for group in marks(svg, kind) for item in group if f'"{colour}"' in item]


# Score by layer


def test_layer_figure_formats(inputs):
    outputs = [inputs.folder / "new/layers.png", inputs.folder / "new/layers.svg"]
    draw_layers(inputs, *outputs)
    png, svg = (path.read_bytes() for path in outputs)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert svg.startswith(b"<svg ")
    size = re.search(rb'width="(\d+)" height="(\d+)"', svg)
    assert struct.unpack(">II", png[16:24]) == tuple(2 * int(side) for side in size.groups())
    assert sorted(path.name for path in (inputs.folder / "new").iterdir()) == [
        "layers.png",
        "layers.svg",
    ]


def test_layer_figure_says_what_it_shows(inputs):
    svg = svg_of(draw_layers, inputs)
    found = texts(svg)
    for label in (
        "bbc / label / minilm",
        "FFN activations",
        "Hidden states",
        "first",
        "mean",
        "Test accuracy",
        "Layer (0 = embeddings)",
        "last layer 0.800",
        "sentence embedding 0.861",
        "○ Best layer on validation: ffn.mean, layer 3: test 0.800",
    ):
        assert label in found
    assert not any(text.startswith("Not shown") for text in found)
    assert min(map(float, re.findall(r'font-size="([\d.]+)px"', svg))) >= 11


def test_layer_figure_marks(inputs):
    svg = svg_of(draw_layers, inputs)
    # A line in each of two panels; 3 layers of FFN and 4 of hidden states.
    assert len(coloured(svg, "line", BLUE)) == len(coloured(svg, "line", GREEN)) == 2
    assert len(coloured(svg, "symbol", BLUE)) == len(coloured(svg, "symbol", GREEN)) == 7
    assert len(coloured(svg, "symbol", "black")) == 1
    rules = [rule for group in marks(svg, "rule") for rule in group]
    assert len(rules) == 4
    assert sum('stroke-dasharray="7,4"' in rule for rule in rules) == 2


def test_higher_score_is_drawn_higher(inputs):
    draw = svg_of(draw_layers, inputs, layers=write_layers(inputs.folder / "l", ("hidden",)))
    line = next(item for item in coloured(draw, "line", BLUE))
    heights = [float(pair.split(",")[1]) for pair in re.findall(r"[ML]([\d.]+,[\d.]+)", line)]
    assert len(heights) == 4
    assert heights == sorted(heights, reverse=True)


def test_a_score_far_below_does_not_squeeze_the_rest(inputs):
    layers = write_layers(inputs.folder / "l", low=1)
    svg = svg_of(draw_layers, inputs, layers=layers)
    noted = [text for text in texts(svg) if text.startswith("Not shown: scores below 0.7")]
    assert len(noted) == 1
    assert "0.2" not in texts(svg)


@pytest.mark.parametrize(
    ("representations", "poolings", "top"),
    [
        (("hidden",), ("mean",), 3),
        (("ffn",), ("max",), 1),
        (("ffn", "hidden"), ("first", "last", "max", "mean"), 48),
        (("ffn", "hidden", "decoder-ffn", "decoder-hidden"), ("mean", "last"), 12),
    ],
)
def test_layer_figure_shapes(inputs, representations, poolings, top):
    layers = write_layers(inputs.folder / "l", representations, poolings, top)
    svg = svg_of(draw_layers, inputs, layers=layers, sentence_embedding=None)
    assert len(coloured(svg, "symbol", "black")) == 1
    panels, rules = len(representations), [rule for group in marks(svg, "rule") for rule in group]
    assert len(rules) == panels
    assert not any("sentence embedding" in text for text in texts(svg))
    assert len(svg) < 300_000


def test_a_perfect_score_is_inside(inputs):
    table = pq.read_table(inputs.layers).to_pylist()
    for row in table:
        row["test_score"] = 1.0
    pq.write_table(pa.Table.from_pylist(table), inputs.layers)
    svg = svg_of(draw_layers, inputs, sentence_embedding=None)
    ticks = [float(text) for text in texts(svg) if re.fullmatch(r"\d\.\d+", text)]
    assert max(ticks) == 1


# Score against neurons


def test_tradeoff_figure_says_what_it_shows(inputs):
    svg = svg_of(draw_tradeoff, inputs)
    found = texts(svg)
    for label in (
        "FFN activations",
        "Hidden states",
        "Combinations",
        "Pooling or combination",
        "both",
        "Validation macro-F1",
        "Neurons kept (log scale)",
        "last layer 0.850",
        "sentence embedding 0.881",
        "○ Selected: both, 80 neurons, depth 3: validation 0.912, test 0.876",
        "□ Smallest: ffn.mean, 50 neurons, depth 2: validation 0.904, test 0.876",
    ):
        assert label in found


def test_tradeoff_figure_marks(inputs):
    svg = svg_of(draw_tradeoff, inputs)
    assert [len(coloured(svg, "line", colour)) for colour in (BLUE, GREEN, VERMILION)] == [1, 1, 1]
    # Faint: every visible point; the others: those of the front.
    dots = [item for item in coloured(svg, "symbol", BLUE) if 'opacity="0.25"' not in item]
    assert len(dots) == 2
    assert len(coloured(svg, "symbol", "black")) == 2
    assert len([rule for group in marks(svg, "rule") for rule in group]) == 6


def test_selected_may_be_the_smallest(inputs):
    entry = {"slug": "both", "neurons": 80, "depth": 3}
    entry |= {"validation_score": 0.91, "test_score": 0.9}
    write_json(inputs.scores, {"selected": entry, "smallest": entry})
    svg = svg_of(draw_tradeoff, inputs, sentence_embedding=None)
    assert any(text.startswith("○ Selected and smallest: both") for text in texts(svg))
    assert len(coloured(svg, "symbol", "black")) == 1


def test_no_neuron_has_a_place_on_the_log_axis(inputs):
    grids = {"ffn.mean": make_grid(inputs.folder / "g", [candidate(0, 0.88), candidate(4, 0.9)])}
    entry = {"slug": "ffn.mean", "neurons": 0, "depth": 0}
    entry |= {"validation_score": 0.88, "test_score": 0.9}
    write_json(inputs.scores, {"selected": entry, "smallest": entry})
    svg = svg_of(draw_tradeoff, inputs, grids=grids)
    assert "0" in texts(svg)
    assert "NaN" not in svg and "Infinity" not in svg


def test_many_slugs_stay_small_and_apart(inputs):
    def scored(i):
        steps = [candidate(1 + j * j, 0.95 - 0.001 * i - 0.3 / (1 + j), j % 49) for j in range(400)]
        return steps + [candidate(2 + j * j, 0.7 + 0.0001 * j, j % 49) for j in range(600)]

    slugs = ["both", "ffn.mean", "mean", *(f"mix-{i}" for i in range(11))]
    grids = {slug: make_grid(inputs.folder / slug, scored(i)) for i, slug in enumerate(slugs)}
    svg = svg_of(draw_tradeoff, inputs, grids=grids)
    assert len(svg) < 300_000
    assert "mean (combination)" in texts(svg)  # a combination of that name is not the pooling
    legend = r'role-legend-symbol".*?<path [^>]* d="([^"]*)" fill="(#\w+)"'
    looks = set(re.findall(legend, svg))  # (shape, colour)
    assert len(looks) == len(slugs)


@pytest.mark.parametrize("draw", [draw_layers, draw_tradeoff])
def test_the_same_input_gives_the_same_svg(inputs, draw):
    assert svg_of(draw, inputs) == svg_of(draw, inputs)


# The table

points = st.builds(
    Point,
    slug=st.sampled_from(["a", "b"]),
    neurons=st.integers(0, 6),
    depth=st.integers(0, 3),
    eta=st.sampled_from([0.1, 0.5]),
    score=st.sampled_from([-0.2, 0.1, 0.5, 0.7, 0.9]),
)


def naive_front(found, depth):
    def key(p):
        return (p.neurons, p.depth if depth else 0, -p.score)

    def beaten(p):
        return any(
            key(q) != key(p) and all(a <= b for a, b in zip(key(q), key(p), strict=True))
            for q in found
        )

    return {key(p) for p in found if not beaten(p)}


@given(found=st.lists(points, max_size=30), depth=st.booleans())
@example(found=[Point("a", 1, 1, 0.1, 0.5)] * 2, depth=True)
def test_front_against_every_pair(found, depth):
    front = pareto_front(found, depth)
    keys = [(p.neurons, p.depth if depth else 0, -p.score) for p in front]
    assert len(set(keys)) == len(keys)
    assert set(keys) == naive_front(found, depth)
    assert keys == sorted(keys)
    assert set(front) <= set(found)
    if not depth:  # the best score with at most that many neurons
        for point in front:
            best = max(p.score for p in found if p.neurons <= point.neurons)
            assert point.score == best


def test_table_and_csv(inputs):
    table = tradeoff_table(inputs.grids)
    assert table.schema.types == [pa.string(), pa.int64(), pa.int64(), pa.float64(), pa.float64()]
    rows = [(r["slug"], r["neurons"], r["depth"], r["score"]) for r in table.to_pylist()]
    assert rows == [
        ("hidden.first", 3, 1, 0.78),
        ("ffn.mean", 5, 1, 0.80),
        ("both", 10, 1, 0.85),
        ("ffn.mean", 50, 2, 0.90),
        ("both", 80, 3, 0.91),
    ]
    write_tradeoff(inputs.grids, inputs.folder / "t/tradeoff.csv")
    text = (inputs.folder / "t/tradeoff.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "slug,neurons,depth,eta,score"
    read = [
        (r["slug"], int(r["neurons"]), int(r["depth"]), float(r["score"]))
        for r in csv.DictReader(io.StringIO(text))
    ]
    assert read == rows


def test_equal_points_keep_the_lowest_eta(tmp_path):
    same = [candidate(4, 0.8, 2, eta) for eta in (0.5, 0.1)]
    grids = {"ffn.mean": make_grid(tmp_path / "g", same)}
    assert tradeoff_table(grids)["eta"].to_pylist() == [0.1]


# Errors


def refused(call, *expected):
    with pytest.raises(ProbelineError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message
    return message


@pytest.mark.parametrize("name", ["layers", "embedding"])
def test_missing_input_of_the_layer_figure(inputs, name):
    path = getattr(inputs, name)
    path.unlink()
    out = inputs.folder / "figure.svg"
    refused(lambda: draw_layers(inputs, out), str(path), "no such")
    assert not out.exists()


@pytest.mark.parametrize("name", ["layers", "embedding", "scores"])
def test_unreadable_input_of_the_tradeoff_figure(inputs, name):
    path = getattr(inputs, name)
    path.write_bytes(path.read_bytes()[:40])
    refused(lambda: draw_tradeoff(inputs, inputs.folder / "figure.svg"), str(path), "not a")


def test_grids_missing_broken_foreign_none(inputs):
    path = inputs.folder / "x.parquet"
    refused(lambda: tradeoff_table({"ffn.mean": path}), str(path), "no such grid")
    path.write_text("no Parquet")
    refused(lambda: write_tradeoff({"ffn.mean": path}, inputs.folder / "t.csv"), str(path))
    assert not (inputs.folder / "t.csv").exists()
    refused(lambda: tradeoff_table({"ffn.mean": inputs.layers}), str(inputs.layers), "not a")
    refused(lambda: tradeoff_table({}), "no grid")


def test_a_table_that_is_not_of_layers(inputs):
    grid = inputs.grids["both"]
    refused(
        lambda: draw_layers(inputs, inputs.folder / "f.svg", layers=grid),
        str(grid),
        "not a table of layers",
        "pooling",
    )


def test_no_row_is_best(inputs):
    table = pq.read_table(inputs.layers)
    rows = [row | {"best": False} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), inputs.layers)
    refused(lambda: draw_layers(inputs, inputs.folder / "f.svg"), str(inputs.layers), "best")


@pytest.mark.parametrize("value", [None, "high", True, [0.9]])
def test_scores_of_the_wrong_kind(inputs, value):
    write_json(inputs.embedding, {"test_score": value})
    out = inputs.folder / "f.svg"
    refused(lambda: draw_layers(inputs, out), str(inputs.embedding), "'test_score'", "number")


def test_scores_about_another_slug(inputs):
    grids = {slug: path for slug, path in inputs.grids.items() if slug != "both"}
    message = refused(
        lambda: draw_tradeoff(inputs, inputs.folder / "f.svg", grids=grids), str(inputs.scores)
    )
    assert "'both' is not one of ffn.mean, hidden.first" in message


@pytest.mark.parametrize("draw", [draw_layers, draw_tradeoff])
def test_unknown_suffix(inputs, draw):
    outputs = [inputs.folder / "f.svg", inputs.folder / "f.pngs"]
    refused(lambda: draw(inputs, *outputs), "f.pngs", ".svg", "did you mean '.png'?")
    assert not outputs[0].exists()


def test_importing_is_light():
    code = "import probeline.results.figures, sys; print('altair' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
