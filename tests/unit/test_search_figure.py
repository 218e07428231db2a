"""The figure of a hyperparameter search."""

from __future__ import annotations

import pandas as pd
import pytest

from probeline.errors import ProbelineError
from probeline.results.figures.search import search_figure

TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 3],
        "state": ["complete", "complete", "pruned", "pruned"],
        "score": [0.7, 0.85, 0.6, None],
        "best": [0.7, 0.85, None, None],
    }
)
MATTERED = pd.DataFrame({"setting": ["learning_rate", "epochs"], "importance": [0.8, 0.2]})


@pytest.fixture
def tables(tmp_path):
    TRIALS.to_csv(tmp_path / "trials.csv", index=False)
    MATTERED.to_csv(tmp_path / "importance.csv", index=False)
    return tmp_path / "trials.csv", tmp_path / "importance.csv"


def test_the_best_trial_is_ringed(tables, tmp_path):
    outputs = [tmp_path / "search.svg", tmp_path / "search.png"]
    search_figure(*tables, "macro-f1", "tiny on toy", outputs)
    svg = outputs[0].read_text()
    assert "Best: trial 1, validation macro-F1 0.850" in svg
    assert "learning_rate" in svg and "Importance" in svg and "pruned" in svg
    assert outputs[1].read_bytes().startswith(b"\x89PNG")


def test_without_importances(tables, tmp_path):
    MATTERED.iloc[:0].to_csv(tables[1], index=False)
    search_figure(*tables, "accuracy", "tiny on toy", [tmp_path / "search.svg"])
    assert "Importance" not in (tmp_path / "search.svg").read_text()


def test_no_table(tables, tmp_path):
    with pytest.raises(ProbelineError, match="no such table"):
        search_figure(tmp_path / "none.csv", tables[1], "accuracy", "", [tmp_path / "x.svg"])
    with pytest.raises(ProbelineError, match="not a table of a search: expected setting"):
        search_figure(tables[0], tables[0], "accuracy", "", [tmp_path / "x.svg"])
    with pytest.raises(ProbelineError, match="suffix"):
        search_figure(*tables, "accuracy", "", [tmp_path / "x.pdf"])
