"""In-context learning from end to end equals prompts written by hand, one pass each."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_texts import labelled
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score
from tiny_language_models import Naive, build_causal
from tiny_models import VOCABULARY

from probeline.activations.shards import write_shard
from probeline.baselines.icl.stage import icl
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.results.predictions import read_predictions

WORDS = ["second half", "stock markets", "rain", "long speech"]
KINDS = {"gpt2": (), "llama": (VOCABULARY["[CLS]"],)}
CLOSE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return build_causal(kind, tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="module")
def naive(folder):
    return Naive(folder)


def run(out, data, folder, spec=None, shard=None, metric=None, **options):
    files = out / "p.h5", out / "s.json"
    model = {"path": str(folder), "dtype": "float32", "device": "cpu", **(spec or {})}
    icl(
        data,
        "label",
        model,
        "tiny",
        *files,
        {"shots": 1, "calibrate": False, **options},
        seed=0,
        metric=metric,
        embedding_shard=shard,
    )
    return read_predictions(files[0]), read_json(files[1])


def example(dataset, row, words=WORDS, label=True) -> str:
    """The default example format, by hand."""
    codes = dataset.labels("label")[row]
    own = sorted(words[k] for k in np.flatnonzero(codes)) if np.ndim(codes) else [words[codes]]
    text = f"Text: {dataset.texts[row]}"
    if dataset.pairs:
        text = f"Text 1: {dataset.texts[row]}\nText 2: {dataset.pairs[row]}"
    return f"{text}\nLabel:" + (f" {', '.join(own)}" if label else "")


def by_hand(naive, kind, dataset, rows, shots_of, words=WORDS, **options) -> np.ndarray:
    """log p (n, K) of the labels."""
    labels = [f" {word}" for word in words]
    scores = [
        naive.scores(
            "\n\n".join(
                [example(dataset, s, words) for s in shots_of(row)]
                + [example(dataset, row, label=False)]
            ),
            labels,
            KINDS[kind],
            **options,
        )
        for row in rows
    ]
    return log_softmax(np.array(scores), axis=1)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("shots", [0, 1])
def test_equals_prompts_by_hand(tmp_path, kind, folder, naive, task, shots):
    data = labelled(tmp_path / "d", task)
    dataset = read_dataset(data)
    found, report = run(tmp_path, data, folder, shots=shots)
    words = WORDS[:2] if task == "binary" else WORDS
    shown = report["shot_rows"]
    assert len(shown) == shots * len(words)
    truth = by_hand(naive, kind, dataset, range(24, 48), lambda row: shown, words)
    if task == "binary":
        truth = truth - truth.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.logits[24:], truth - report["threshold"], **CLOSE)
    assert (found.thresholds == np.float32(report["threshold"])).all()
    assert not found.logits[:24].any()
    assert found.defined.tolist() == [False] * 24 + [True] * 24
    if task == "multilabel":
        true = dataset.labels("label")[36:]
        expected = f1_score(true, found.of("test") > 0, average="micro", zero_division=0)
    else:
        expected = (found.of("test").argmax(1) == dataset.labels("label")[36:]).mean()
    assert report["test_score"] == pytest.approx(expected)
    assert report["texts"] == {"train": 0, "validation": 12, "test": 12}
    assert report["parameters_trained"] == 0
    assert report["texts_per_second"] > 0
    assert report["seconds"] > report["train_seconds"] == 0
    assert report["shots_dropped"]["most"] == report["texts_truncated"] == 0
    assert found.meta["method"] == "icl"


def test_sums_and_pairs(tmp_path, kind, folder, naive):
    data = labelled(tmp_path / "d", pairs=True)
    dataset = read_dataset(data)
    found, report = run(tmp_path, data, folder, normalize="sum")
    shown = report["shot_rows"]
    truth = by_hand(naive, kind, dataset, range(36, 48), lambda row: shown, normalize="sum")
    np.testing.assert_allclose(found.of("test"), truth, **CLOSE)


def test_calibration_divides_by_what_nothing_says(tmp_path, kind, folder, naive):
    data = labelled(tmp_path / "d")
    dataset = read_dataset(data)
    found, report = run(tmp_path, data, folder, calibrate=True)
    begin = "\n\n".join(example(dataset, row) for row in report["shot_rows"])
    labels = [f" {word}" for word in WORDS]
    nothing = [
        softmax(naive.scores(f"{begin}\n\nText: {text}\nLabel:", labels, KINDS[kind]))
        for text in ("N/A", "", "[MASK]")
    ]
    p = np.exp(by_hand(naive, kind, dataset, range(36, 48), lambda row: report["shot_rows"]))
    ratio = p / np.mean(nothing, axis=0)
    np.testing.assert_allclose(np.exp(found.of("test")), ratio, rtol=5e-3)


@pytest.mark.parametrize("calibrate", [False, True])
def test_nearest_examples(tmp_path, kind, folder, naive, calibrate):
    data = labelled(tmp_path / "d")
    dataset = read_dataset(data)
    X = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)
    meta = {"dataset_fingerprint": dataset.fingerprint}
    write_shard(tmp_path / "e.h5", X, meta)
    options = {"select": "nearest", "shots": 3, "calibrate": calibrate}
    found, _ = run(tmp_path, data, folder, shard=tmp_path / "e.h5", **options)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)

    def shots_of(row):
        return np.argsort(unit[:24] @ unit[row])[-3:]

    truth = by_hand(naive, kind, dataset, [36, 40], shots_of)
    if calibrate:
        labels = [f" {word}" for word in WORDS]
        for place, row in enumerate([36, 40]):
            begin = "\n\n".join(example(dataset, s) for s in shots_of(row))
            nothing = [
                softmax(naive.scores(f"{begin}\n\nText: {text}\nLabel:", labels, KINDS[kind]))
                for text in ("N/A", "", "[MASK]")
            ]
            truth[place] -= np.log(np.mean(nothing, axis=0))
    np.testing.assert_allclose(found.logits[[36, 40]], truth, **CLOSE)


def test_padding_side_batch_size_and_label_order(tmp_path, kind, folder):
    codes = np.arange(48) % 4
    data = labelled(tmp_path / "d", codes=codes)
    reference, _ = run(tmp_path, data, folder, calibrate=True)
    left = build_causal(kind, tmp_path / "left", side="left")
    for spec, other in (({}, left), ({"batch_tokens": 1}, folder), ({"batch_tokens": 70}, folder)):
        found, _ = run(tmp_path, data, other, spec, calibrate=True)
        np.testing.assert_allclose(found.logits, reference.logits, **CLOSE)
    order = [2, 0, 3, 1]
    names = [reference.labels[k] for k in order]
    # The same texts: they are made from the codes, which are renumbered after that.
    shuffled = tmp_path / "shuffled"
    rewrite(data, shuffled, names, np.argsort(order)[codes])
    found, _ = run(tmp_path, shuffled, folder, calibrate=True)
    assert found.labels == names
    np.testing.assert_allclose(found.logits, reference.logits[:, order], **CLOSE)


def rewrite(data, folder, names, codes):
    import pyarrow as pa

    from probeline.data.writing import write_dataset

    dataset = read_dataset(data)
    sizes = {split: stop - start for split, (start, stop) in dataset.offsets.items()}
    task = {"kind": "single", "labels": names, "counts": {}}
    about = {"name": dataset.name, "tasks": {"label": task}}
    write_dataset(folder, about, pa.table({"text": dataset.texts}), sizes, {"label": codes})


def test_what_does_not_fit_is_dropped_and_said(tmp_path, kind, folder, naive, caplog):
    data = labelled(tmp_path / "d")
    dataset = read_dataset(data)
    _, whole = run(tmp_path, data, folder, shots=2)
    shown = whole["shot_rows"]
    assert len(shown) == 8

    def tokens(row, label):
        text = example(dataset, row, label=label)
        return len(naive.tokenizer(text, add_special_tokens=False)["input_ids"])

    def kept_at(context):
        # The longest labels are of two tokens, of which the last is not read.
        free = {row: context - 1 - len(KINDS[kind]) - tokens(row, False) for row in range(24, 48)}
        sums = np.cumsum([0, *(tokens(shot, True) for shot in shown)])
        return {row: int((sums <= room).sum()) - 1 for row, room in free.items()}

    # A context in which longer texts have room for fewer examples than shorter ones.
    context = next(c for c in range(60, 75) if len(set(kept_at(c).values())) > 1)
    with caplog.at_level("WARNING"):
        found, report = run(tmp_path, data, folder, shots=2, context=context)
    kept = kept_at(context)
    dropped = [8 - kept[row] for row in range(24, 48)]
    assert report["shot_rows"] == shown
    assert report["shots_dropped"] == {
        "prompts": sum(number > 0 for number in dropped),
        "most": max(dropped),
        "mean": pytest.approx(np.mean(dropped)),
    }
    assert f"up to {max(dropped)} examples were dropped" in caplog.text
    truth = by_hand(naive, kind, dataset, range(36, 48), lambda row: shown[: kept[row]])
    np.testing.assert_allclose(found.of("test"), truth, **CLOSE)


def test_parts_of_splits(tmp_path, kind, folder):
    data = labelled(tmp_path / "d")
    whole, _ = run(tmp_path, data, folder)
    found, report = run(tmp_path, data, folder, max_texts={"train": 2, "validation": 5, "test": 4})
    assert report["texts"] == {"train": 2, "validation": 5, "test": 4}
    assert found.defined.sum() == 11
    assert not found.logits[~found.defined].any()
    assert np.isfinite(found.logits).all()
    both = found.defined & whole.defined
    np.testing.assert_allclose(found.logits[both], whole.logits[both], **CLOSE)
    answers = found.of("test").argmax(1)
    true = read_dataset(data).labels("label")[found.rows_of("test")]
    assert report["test_score"] == pytest.approx((answers == true).mean())


def test_one_class_in_train_and_texts_for_labels(tmp_path, kind, folder, caplog):
    codes = np.arange(48) % 2
    codes[:24] = 1
    data = labelled(tmp_path / "d", "binary", codes=codes)
    texts = {"second_half": ["rain", "the bank"]}
    with caplog.at_level("INFO"):
        found, report = run(tmp_path, data, folder, shots=2, label_texts=texts, metric="macro-f1")
    assert len(report["shot_rows"]) == 2
    assert "no example: second_half" in caplog.text
    assert np.isfinite(found.logits).all()


def test_the_same_run_twice_is_equal_to_the_bit(tmp_path, kind, folder):
    data = labelled(tmp_path / "d")
    first, second = (run(tmp_path, data, folder, calibrate=True)[0] for _ in range(2))
    assert np.array_equal(first.logits, second.logits)


def test_a_metric_that_the_chosen_texts_cannot_be_scored_by(tmp_path, kind):
    data = labelled(tmp_path / "d", "binary")
    # One text has one class, and no model is needed to see that.
    options = {"metric": "roc-auc", "max_texts": {"test": 1}}
    with pytest.raises(ProbelineError, match="roc-auc needs rows of both kinds"):
        run(tmp_path, data, tmp_path / "no model", **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shot": 3}, "did you mean 'shots'"),
        ({"shots": -1}, "below 0"),
        ({"select": "near"}, "did you mean 'nearest'"),
        ({"select": "nearest"}, "needs embeddings"),
        ({"normalize": "men"}, "did you mean 'mean'"),
        ({"example": "Label: {label}"}, "has no {text}"),
        ({"max_texts": {"valid": 3}}, "not one of"),
        ({"max_texts": {"test": 0}}, "max_texts.test"),
        ({"context": 257}, "above the 256 positions"),
        ({"context": 1}, "label's text takes 2 tokens"),
        ({"context": 4}, "raise `context`"),
    ],
)
def test_mistakes_are_one_line(tmp_path, kind, folder, options, message):
    with pytest.raises(ProbelineError, match=message) as error:
        run(tmp_path, labelled(tmp_path / "d"), folder, **options)
    assert "\n" not in str(error.value)
