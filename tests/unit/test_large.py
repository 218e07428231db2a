"""The cost of large extractions: sizes that are known, and the laws of the cost model."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import large
from benchmarks.large import MODELS, STORED, Machine, amount, cost, size_of


@pytest.mark.parametrize(
    "name, parameters",
    [
        # Of the published models, without the language models' heads: 8.03 and 70.55 billion with.
        ("MiniLM, 6 blocks", 22_713_216),
        ("BERT-base", 109_482_240),
        ("Llama 3, 8B", 8_030_261_248 - 128256 * 4096),
        ("Llama 3, 70B", 70_553_706_496 - 128256 * 8192),
    ],
)
def test_models_have_the_size_of_the_published_ones(name, parameters):
    assert size_of(name).parameters == parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stored", STORED)
def test_bytes_follow_the_formula_of_the_cost_model(name, stored):
    size, (representations, poolings) = size_of(name), STORED[stored]
    ffn = size.layers * size.ffn if "ffn" in representations else 0
    expected = 2 * len(poolings) * ((size.layers + 1) * size.width + ffn)
    found = cost(name, stored, 128, Machine())
    assert found.bytes == expected
    assert found.block == min(512, max(1, (256 << 20) // expected))


def test_operations_are_two_for_each_weight_and_those_of_attention():
    size = size_of("BERT-base")
    # Of a block: 4 d^2 + 2 d f weights in matrices, biases and two norms beside them.
    matrices = 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert size.matrices == matrices + 12 * (9 * 768 + 3072)
    attention = 12 * 2 * (2 * 128 * 128 * 768)
    assert size.operations(128) == 128 * 2 * size.matrices + attention


def test_what_is_slowest_counts():
    quick = Machine(peak=1e30, disk=1e30, sync=0)
    assert cost("BERT-base", "all", 128, quick).bound == "tokenizing"
    slow = cost("BERT-base", "all", 128, Machine(disk=1e6))
    assert slow.bound == "disk"
    assert slow.text > slow.bytes / 1e6
    weak = cost("BERT-base", "all", 128, Machine(peak=1e12))
    assert weak.bound == "forward pass"
    assert cost("BERT-base", "all", 128, Machine(peak=2e12)).text == pytest.approx(weak.text / 2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("texts", [1, 1000, 10**6, 10**8])
def test_parts_last_an_hour_at_most_and_hold_a_block(name, texts):
    found = cost(name, "mean", 128, Machine())
    parts = found.parts(texts)
    assert 1 <= parts <= -(-texts // found.block)
    assert texts / parts * found.text + found.start <= 3600 * 1.001
    assert found.wall(texts, 1) >= found.hours(texts)
    assert found.wall(texts, parts) <= 1.001


def test_amounts():
    assert [amount(n) for n in (12, 999, 1000, 94_500, 2.4e15)] == [
        "12 B",
        "999 B",
        "1 kB",
        "94 kB",
        "2.4 PB",
    ]


def printed(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(large.main)
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_page_holds_the_tables_that_are_computed():
    page = (Path(__file__).parents[2] / "docs" / "large.md").read_text(encoding="utf-8")
    _, *tables = printed().strip().split("\n\n")
    assert len(tables) == 2
    assert all(table in page for table in tables)


def test_the_command_prints_both_tables_and_what_is_assumed():
    output = printed("--tokens", "64", "--gpus", "2")
    assert "Computed, not measured: texts of 64 tokens" in output
    for name in MODELS:
        assert output.count(f"| {name} |") == 2 * len(STORED)
    assert "hours on 2" in output
