"""The triplets stage reads what it should and writes what `mine` finds."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_texts import LABELS, labelled

from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.lrsl.crossfit import write_crossfit
from probeline.lrsl.mining import mine_triplets
from probeline.lrsl.triplets import read_triplets
from probeline.probe.task import task_data
from probeline.results.predictions import write_predictions

OPTIONS = {"k": 2, "per_text": None, "hard_only": False, "per_class": None}
META = {"model": "tiny", "method": "stc", "variant": "x"}


@pytest.fixture(params=[False, True], ids=["texts", "pairs"])
def case(request, tmp_path):
    """A dataset; logits that are right of every third text, cross-fitted, and right of all."""
    folder = labelled(tmp_path / "data", pairs=request.param)
    dataset = read_dataset(folder)
    task = task_data(dataset, "label")
    rng = np.random.default_rng(0)
    own = (
        rng.random((48, 4)).astype(np.float32) + 5 * np.eye(4, dtype=np.float32)[np.arange(48) % 4]
    )
    shift = np.where(np.arange(24) % 3 > 0, 1, 0)
    fitted = own[:24][np.arange(24)[:, None], (np.arange(4) - shift[:, None]) % 4]
    write_predictions(tmp_path / "stc.h5", dataset, task, own, META)
    write_crossfit(tmp_path / "crossfit.h5", dataset, task, np.arange(24) % 2, fitted, META)
    return folder, dataset, tmp_path


def mined(case, crossfitted=True, seed=0, given=None, is_hard=None, **options):
    folder, _, place = case
    logits = place / ("crossfit.h5" if crossfitted else "stc.h5")
    out = place / "triplets.parquet"
    mine_triplets(
        folder,
        "label",
        "stc",
        logits,
        out,
        OPTIONS | options,
        seed,
        crossfitted=crossfitted,
        given=given,
        is_hard=is_hard,
    )
    table, meta = read_triplets(out, case[1].fingerprint, "label")
    return table.to_pylist(), meta


@pytest.mark.parametrize("crossfitted", [False, True])
def test_from_either_file(case, crossfitted):
    _, dataset, _ = case
    found, meta = mined(case, crossfitted)
    above = [t for t in found if t["logit_gap"] < 0]
    rows = [row for row in range(24) if crossfitted and row % 3]
    assert sorted({t["row"] for t in above}) == rows
    assert {t["row"] for t in found} == set(range(24))
    for t in found:
        row = t["row"]
        parts = [dataset.texts[row]] + ([dataset.pairs[row]] if dataset.pairs else [])
        assert t["text"] == " ".join(parts)
        assert t["label"] == LABELS[row % 4] != t["negative_label"]
    assert {t["positive"] for t in found} == {"second half", "stock markets", "rain", "long speech"}
    wanted = {"source": "stc", "crossfitted": crossfitted, "seed": 0, "options": OPTIONS}
    assert meta.items() >= wanted.items()


def test_label_texts_and_hard_ones(case):
    found, _ = mined(case, given={"rain": ["rain", "water from clouds"]})
    texts = {t["negative"] for t in found if t["negative_label"] == "rain"}
    assert texts == {"rain", "water from clouds"}
    wrong = {row for row in range(24) if row % 3}
    assert {t["row"] for t in mined(case, hard_only=True)[0]} == wrong
    hard = mined(case, hard_only=True, is_hard=lambda logits: np.arange(len(logits)) < 4)[0]
    assert {t["row"] for t in hard} == wrong | {0, 3}


def test_refused_in_one_line(case):
    place = case[2]
    with pytest.raises(ProbelineError, match=r"stc\.h5: gives no triplets"):
        mined(case, crossfitted=False, k=1)
    with pytest.raises(ProbelineError, match="label_texts: 'rian' is not one of"):
        mined(case, given={"rian": "x"})
    other = labelled(place / "other", labels=("a", "b", "c", "d"))
    for crossfitted, message in ((True, "logits of"), (False, "predictions of another dataset")):
        logits = place / ("crossfit.h5" if crossfitted else "stc.h5")
        with pytest.raises(ProbelineError, match=message):
            mine_triplets(
                other, "label", "stc", logits, place / "t", OPTIONS, 0, crossfitted=crossfitted
            )
