"""Log-probabilities from the shared cache equal one full forward pass per prompt and label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from tiny_language_models import Naive, build_causal
from tiny_models import VOCABULARY, build

from probeline.baselines.icl.calibration import calibrated, content_free_prior, label_scores
from probeline.baselines.icl.scoring import continuation_scores
from probeline.errors import ProbelineError
from probeline.models.causal import load_causal

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# Of one token, of several, sharing the first token, one the beginning of another.
LABELS = [[9], [10, 11], [10, 12, 13], [10], [14, 9, 9, 20], [10, 11, 12]]
# Windows of 8 tokens (mistral, gemma2, gpt_neo) end inside the prompts.
KINDS = ["gpt2", "llama", "mistral", "gemma2", "gpt_neo", "gpt_neox", "opt", "qwen2", "phi"]


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return build_causal(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def truth(folder):
    naive = Naive(folder)
    return np.array([[naive.of_ids(p, label) for label in LABELS] for p in prompts()])


def load(folder, **more):
    return load_causal({"path": str(folder), "dtype": "float32", "device": "cpu", **more})


def prompts():
    """Seven prompts with a common beginning of 12 tokens, two of them with another one."""
    rng = np.random.default_rng(0)
    begin = rng.integers(5, len(VOCABULARY), 12)
    own = [rng.integers(5, len(VOCABULARY), n) for n in (1, 5, 2, 9, 5, 14, 3)]
    found = [np.concatenate([begin, part]) for part in own]
    found[2], found[4] = found[2][4:], found[4][2:9]
    return [ids.astype(np.int32) for ids in found]


GROUPS = np.array([3, 3, 0, 3, 1, 3, 3])


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["alone", "shared"])
@pytest.mark.parametrize("budget", [1, 40, 2048])
def test_equals_one_pass_per_prompt_and_label(model, truth, groups, budget):
    ours = continuation_scores(replace(model, batch_tokens=budget), prompts(), LABELS, groups)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, truth, **CLOSE)


def test_order_of_labels_and_prompts_does_not_matter(model, truth):
    rows, columns = [5, 0, 3, 6, 2, 1, 4], [3, 5, 1, 0, 4, 2]
    asked = [prompts()[row] for row in rows]
    ours = continuation_scores(model, asked, [LABELS[k] for k in columns], GROUPS[rows])
    np.testing.assert_allclose(ours, truth[np.ix_(rows, columns)], **CLOSE)


def test_the_beginning_is_computed_once(model):
    seen = []

    def count(module, args, kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))

    handle = model.network.register_forward_pre_hook(count, with_kwargs=True)
    try:
        shared = [p for p, group in zip(prompts(), GROUPS, strict=True) if group == 3]
        continuation_scores(model, shared, [[9], [10]])
    finally:
        handle.remove()
    # The common beginning of one text, then the rest of all five at once.
    assert seen == [(1, 12), (5, 14)]


def test_a_shorter_beginning_is_cut_from_a_longer_one(model):
    begin = np.arange(5, 25, dtype=np.int32)
    asked = [np.append(begin, k) for k in (30, 31)] + [np.append(begin[:7], k) for k in (32, 33)]
    seen = []
    handle = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        continuation_scores(model, asked, [[9]], np.array([1, 1, 0, 0]))
    finally:
        handle.remove()
    assert seen == [(1, 20), (2, 1), (2, 1)]


def test_no_more_keys_and_values_are_kept_than_the_memory_has_room_for(model, truth):
    seen = []
    handle = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"].shape), with_kwargs=True
    )
    try:
        ours = continuation_scores(replace(model, cached_tokens=60), prompts(), LABELS, GROUPS)
    finally:
        handle.remove()
    assert max(texts for texts, _ in seen) > 1
    assert all(texts * tokens <= 60 for texts, tokens in seen)
    np.testing.assert_allclose(ours, truth, **CLOSE)


def test_the_room_for_keys_and_values_is_measured(tmp_path):
    model = load(build_causal("llama", tmp_path), dtype="bfloat16")
    # Three blocks, two heads of width 4, keys and values, of two bytes each.
    assert model.cached_tokens == 2**31 // (3 * 2 * 4 * 2 * 2)


def test_a_prompt_of_one_token(model):
    one = [np.array([7], dtype=np.int32)]
    assert np.isfinite(continuation_scores(model, one, LABELS)).all()


def test_bfloat16_is_near(folder, truth):
    ours = continuation_scores(load(folder, dtype="bfloat16"), prompts(), LABELS)
    assert np.abs(ours - truth).mean() < 0.3


def test_broken_weights_are_named(folder):
    model = load(folder)
    with torch.no_grad():
        model.network.get_input_embeddings().weight[7] = float("nan")
    with pytest.raises(ProbelineError, match="not a number"):
        continuation_scores(model, [np.array([7], dtype=np.int32)], [[9]])


@pytest.mark.parametrize("kind, message", [("bert", "follow"), ("t5", "encoder-decoder")])
def test_what_is_no_causal_model_is_refused(tmp_path, kind, message):
    auto = "AutoModelForMaskedLM" if kind == "bert" else "AutoModelForSeq2SeqLM"
    folder = build_causal(kind, tmp_path, auto=auto, positions=64)
    with pytest.raises(ProbelineError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_model_without_its_head_is_refused(tmp_path):
    with pytest.raises(ProbelineError, match=r"weights of the language model are missing"):
        load(build("llama", tmp_path))


def test_what_the_tokenizer_puts_first_and_last(tmp_path):
    starts = {kind: load(build_causal(kind, tmp_path / kind)).leading for kind in ("gpt2", "opt")}
    assert starts == {"gpt2": (), "opt": (VOCABULARY["[CLS]"],)}


def test_calibration_is_the_papers_formula():
    rng = np.random.default_rng(0)
    scores, nothing = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    # p_cf: the mean over content-free inputs, normalised; W = diag(p_cf)^-1, b = 0; q = W p.
    p_cf = np.mean([softmax(row) for row in nothing], axis=0)
    p_cf = p_cf / p_cf.sum()
    q = np.stack([np.linalg.inv(np.diag(p_cf)) @ softmax(row) for row in scores])
    ours = calibrated(scores, content_free_prior(nothing))
    assert np.array_equal(ours.argmax(1), q.argmax(1))
    np.testing.assert_allclose(softmax(ours, axis=1), q / q.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.exp(ours), q)
    np.testing.assert_allclose(np.exp(calibrated(scores, None)), softmax(scores, axis=1))


def test_what_is_predicted_from_nothing_becomes_undecided():
    nothing = np.array([[-1.0, -3.0, -2.0]])
    logits = calibrated(nothing, content_free_prior(nothing))
    np.testing.assert_allclose(logits, 0, atol=1e-12)


def test_length_and_several_texts():
    sums = np.array([[-2.0, -6.0, -1.0]])
    mean = label_scores(sums, [1, 3, 2], [0, 0, 1], 2, "mean")
    np.testing.assert_allclose(mean, [[-2.0, -0.5]])
    summed = label_scores(sums, [1, 3, 2], [0, 0, 1], 2, "sum")
    np.testing.assert_allclose(summed, [[np.log((np.exp(-2) + np.exp(-6)) / 2), -1.0]])
