"""The figure of a learning curve."""

from __future__ import annotations

import pytest

from probeline.errors import ProbelineError
from probeline.finetune.curve import read_curve, write_curve
from probeline.results.figures.training import best_row, training_figure


def row(step, split, loss, score=None) -> dict:
    return {"step": step, "epoch": step / 10, "split": split, "loss": loss, "score": score}


CURVE = [
    row(5, "train", 1.2),
    row(10, "train", 0.9),
    row(10, "validation", 1.0, 0.5),
    row(20, "train", 0.5),
    row(20, "validation", 0.8, 0.75),
    row(30, "train", 0.2),
    row(30, "validation", 0.9, 0.75),
]


def test_the_best_evaluation_is_ringed(tmp_path):
    write_curve(CURVE, tmp_path / "curve.parquet")
    assert read_curve(tmp_path / "curve.parquet") == CURVE
    assert best_row(CURVE)["step"] == 20
    outputs = [tmp_path / "curve.svg", tmp_path / "curve.png"]
    training_figure(tmp_path / "curve.parquet", "macro-f1", "tiny on toy", outputs)
    svg = outputs[0].read_text()
    assert "tiny on toy" in svg and "Validation macro-F1" in svg and "Loss" in svg
    assert "Best on validation: step 20, validation macro-F1 0.750" in svg
    assert outputs[1].read_bytes().startswith(b"\x89PNG")


def test_no_curve(tmp_path):
    with pytest.raises(ProbelineError, match="no such learning curve"):
        training_figure(tmp_path / "none.parquet", "accuracy", "", [tmp_path / "x.svg"])
    write_curve([], tmp_path / "empty.parquet")
    with pytest.raises(ProbelineError, match="not a learning curve"):
        training_figure(tmp_path / "empty.parquet", "accuracy", "", [tmp_path / "x.svg"])
    with pytest.raises(ProbelineError, match="suffix"):
        training_figure(tmp_path / "none.parquet", "accuracy", "", [tmp_path / "x.pdf"])
