"""The figure of the score by the share of texts reranked."""

from __future__ import annotations

import pytest

from probeline.errors import ProbelineError
from probeline.files import write_json
from probeline.results.figures import reranked_figure

SPLITS = ("validation", "test")


def report(path, shift=0.0, **more):
    curve = [
        {"split": split, "share": i / 10, "texts": i, "score": 0.8 + 0.01 * i * (8 - i) + shift}
        for split in SPLITS
        for i in range(11)
    ]
    shares = {"validation": 0.3, "test": 0.2}
    shown = {"variant": "prob, power 2", "chosen": True}
    plain = {"metric": "macro-f1", "curve": curve, "shown": shown}
    write_json(path, plain | {"chosen_share": shares, "hard_share": shares} | more)
    return path


def test_before_and_chosen_are_marked(tmp_path):
    outputs = [tmp_path / "share.svg", tmp_path / "share.png"]
    reranked_figure([report(tmp_path / "report.json")], "toy / tiny / stc", outputs)
    svg = outputs[0].read_text()
    assert "toy / tiny / stc" in svg and "Share of texts reranked" in svg
    assert "Chosen, on validation: 30.0% of the texts reranked, macro-F1 0.800 to 0.950" in svg
    assert "Chosen, on test: 20.0% of the texts reranked, macro-F1 0.800 to 0.920" in svg
    assert outputs[1].read_bytes().startswith(b"\x89PNG")


def test_several_seeds(tmp_path):
    paths = [report(tmp_path / "1.json"), report(tmp_path / "2.json", shift=0.02)]
    reranked_figure(paths, "toy", [tmp_path / "share.svg"])
    svg = (tmp_path / "share.svg").read_text()
    assert "macro-F1 0.810 to 0.930 (mean of 2 seeds)" in svg


NOTHING = {
    "shown": {"variant": "mix, weight 0.5, power 1", "chosen": False},
    "chosen_share": {"validation": 0, "test": 0},
}


def test_nothing_was_chosen(tmp_path):
    path = report(tmp_path / "r.json", **NOTHING)
    reranked_figure([path], "toy", [tmp_path / "share.svg"])
    svg = (tmp_path / "share.svg").read_text()
    assert "drawn is the best that was tried (mix, weight 0.5, power 1)" in svg
    assert "though not reranked: 30.0% of validation, 20.0% of test" in svg
    assert "Chosen, on" not in svg


def test_nothing_was_chosen_for_one_of_the_seeds(tmp_path):
    paths = [report(tmp_path / "1.json"), report(tmp_path / "2.json", shift=0.02, **NOTHING)]
    reranked_figure(paths, "toy", [tmp_path / "share.svg"])
    svg = (tmp_path / "share.svg").read_text()
    assert "Nothing was chosen for 1 of 2 seeds" in svg
    # Of the other seed alone.
    assert "Chosen, on test: 20.0% of the texts reranked, macro-F1 0.800 to 0.920" in svg


def test_nothing_was_hard(tmp_path):
    curve = [{"split": split, "share": 0, "texts": 0, "score": 0.9} for split in SPLITS]
    none = {"validation": 0, "test": 0}
    shown = {"variant": "nothing", "chosen": False}
    more = {"curve": curve, "shown": shown, "chosen_share": none, "hard_share": none}
    reranked_figure([report(tmp_path / "r.json", **more)], "toy", [tmp_path / "share.svg"])
    svg = (tmp_path / "share.svg").read_text()
    assert "Nothing was chosen: no text is hard" in svg


def test_the_curve_of_all_texts_takes_the_place_of_the_report_s(tmp_path):
    short = [{"split": split, "share": 0, "texts": 0, "score": 0.8} for split in SPLITS]
    path = report(tmp_path / "report.json", curve=short)
    whole = report(tmp_path / "whole.json", shift=0.02)
    reranked_figure([path], "toy", [tmp_path / "share.svg"], [whole])
    svg = (tmp_path / "share.svg").read_text()
    assert "on test: 20.0% of the texts reranked, macro-F1 0.820 to 0.940" in svg
    write_json(whole, {"curve": []})
    with pytest.raises(ProbelineError, match="key 'curve'") as caught:
        reranked_figure([path], "toy", [tmp_path / "share.svg"], [whole])
    assert str(whole) in str(caught.value)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"curve": []}, "key 'curve'"),
        ({"curve": None}, "key 'curve': expected a list of rows"),
        ({"curve": [{"split": "train", "share": 0, "score": 0}]}, "'train' is not one of"),
        ({"curve": [{"split": "test", "share": 0}]}, "key 'score': expected a finite number"),
        ({"chosen_share": {"validation": 0.1}}, "key 'test': expected a finite number"),
        ({"hard_share": None}, "key 'hard_share': expected an object"),
        ({"shown": {"variant": "prob"}}, "key 'chosen': expected true or false"),
        ({"metric": 3}, "key 'metric'"),
    ],
)
def test_not_a_report(tmp_path, more, message):
    path = report(tmp_path / "report.json", **more)
    with pytest.raises(ProbelineError, match=message) as caught:
        reranked_figure([path], "", [tmp_path / "x.svg"])
    assert str(path) in str(caught.value)


def test_missing_files_and_other_suffixes(tmp_path):
    with pytest.raises(ProbelineError, match="no such file"):
        reranked_figure([tmp_path / "none.json"], "", [tmp_path / "x.svg"])
    with pytest.raises(ProbelineError, match="suffix"):
        reranked_figure([tmp_path / "none.json"], "", [tmp_path / "x.pdf"])
