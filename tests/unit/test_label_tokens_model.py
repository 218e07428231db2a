"""Classifiers with label tokens against one call of the body per text with every id by hand."""

import json

import numpy as np
import pytest
import torch
import transformers
from label_tokens import (
    COUNT_PLACES,
    FREE_PLACES,
    KINDS,
    LABELS,
    batch,
    classifier,
    extended,
    logits_by_hand,
    with_labels,
)
from sklearn.metrics import log_loss
from tiny_models import PAIRS, SENTENCES, VOCABULARY

from probeline.errors import ProbelineError
from probeline.label_tokens.tokens import fit_tokenizer
from probeline.models.reading import is_causal

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_one_text_by_hand(kind):
    model, words = classifier(kind)
    found = model(**batch(words)).logits
    body = extended(model)
    expected = [logits_by_hand(model, words(text)["input_ids"], body) for text in SENTENCES]
    assert found.shape == (len(SENTENCES), len(LABELS))
    assert np.ptp(expected, axis=0).min() > 1e-3, "the logits tell texts apart"
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["bert", "t5", "llama"])
@torch.no_grad()
def test_pairs_by_hand(kind):
    model, words = classifier(kind)
    found = model(**batch(words, SENTENCES, PAIRS, types=kind == "bert")).logits
    for row, (text, pair) in enumerate(zip(SENTENCES, PAIRS, strict=True)):
        encoded, more = words(text, pair, return_token_type_ids=True), {}
        if kind == "bert":
            types = encoded["token_type_ids"]
            assert sum(types) > 0
            more["token_type_ids"] = torch.tensor([[types[0], *[0] * len(LABELS), *types[1:]]])
        expected = logits_by_hand(model, encoded["input_ids"], **more)
        np.testing.assert_allclose(found[row], expected, **CLOSE)


@pytest.mark.parametrize("options", [{}, {"labels_attend": False}, {"isolated": True}], ids=str)
@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "llama", "mistral"])
@torch.no_grad()
def test_padding_changes_nothing(kind, options):
    model, words = classifier(kind, **options)
    together = model(**batch(words)).logits
    words.padding_side = "left"
    torch.testing.assert_close(model(**batch(words)).logits, together, **CLOSE)
    for row, text in enumerate(SENTENCES):
        alone = {"input_ids": torch.tensor([words(text)["input_ids"]])}
        torch.testing.assert_close(model(**alone).logits[0], together[row], **CLOSE)
    padded = batch(words)
    padded["input_ids"][padded["attention_mask"] == 0] = 9
    torch.testing.assert_close(model(**padded).logits, together, **CLOSE)


def mask_by_hand(model, roles: list[str], positions: list[int], window: int | None):
    """What is added to the scores of one text, from the words of the documentation."""
    config, causal = model.config, is_causal(model.body.config.model_type)
    mask = torch.zeros(1, 1, len(roles), len(roles))
    for query, reader in enumerate(roles):
        for key, read in enumerate(roles):
            apart = positions[query] - positions[key]
            seen = True
            if causal and key > query:
                seen = False
            if reader == read == "label" and query != key and not config.labels_attend:
                seen = False
            if reader == "text" and read == "label" and config.isolated:
                seen = False
            if window is not None and (apart >= window if causal else abs(apart) > window):
                seen = False
            mask[0, 0, query, key] = 0.0 if seen else -1e30
    return mask


@pytest.mark.parametrize(
    "options",
    [
        {"shared_positions": True, "labels_attend": False},
        {"labels_attend": False},
        {"isolated": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", FREE_PLACES)
@torch.no_grad()
def test_options_by_hand(kind, options):
    model, words = classifier(kind, **options)
    found = model(**batch(words)).logits
    body = extended(model)
    body.set_attn_implementation("eager")
    offset = {"roberta": 1, "xlm-roberta": 1, "camembert": 1}.get(kind, 0)
    for row, text in enumerate(SENTENCES):
        ids = words(text)["input_ids"]
        roles = ["text" if i < len(VOCABULARY) else "label" for i in with_labels(model, ids)]
        first, positions = roles.index("label"), list(range(len(roles)))
        if model.config.shared_positions:
            after = len(LABELS) - 1
            positions = [
                first if role == "label" else place - (after if place > first else 0)
                for place, role in enumerate(roles)
            ]
        local = {"modernbert": 4, "mistral": 8, "gemma2": 8}.get(kind)
        if kind in ("modernbert", "gemma2", "qwen2", "qwen3"):
            mask = {
                "full_attention": mask_by_hand(model, roles, positions, None),
                "sliding_attention": mask_by_hand(model, roles, positions, local),
            }
        else:
            mask = mask_by_hand(model, roles, positions, local)
        numbers = torch.tensor([positions]) + offset
        expected = logits_by_hand(model, ids, body, attention_mask=mask, position_ids=numbers)
        np.testing.assert_allclose(found[row], expected, **CLOSE)


@pytest.mark.parametrize("kind", sorted(COUNT_PLACES - {"deberta-v2"}))
@torch.no_grad()
def test_labels_that_do_not_attend_where_places_are_counted(kind):
    model, words = classifier(kind, labels_attend=False)
    found = model(**batch(words)).logits
    body = extended(model)
    body.set_attn_implementation("eager")
    for row, text in enumerate(SENTENCES):
        ids = words(text)["input_ids"]
        roles = ["text" if i < len(VOCABULARY) else "label" for i in with_labels(model, ids)]
        mask = mask_by_hand(model, roles, list(range(len(roles))), None)
        more = {}
        if kind == "gpt_neo":
            more["position_ids"] = torch.arange(len(roles))[None]
        expected = logits_by_hand(model, ids, body, attention_mask=mask, **more)
        np.testing.assert_allclose(found[row], expected, **CLOSE)


@pytest.mark.parametrize("kind", FREE_PLACES)
@torch.no_grad()
def test_label_order_does_not_matter(kind):
    """With shared positions and no attention between labels; otherwise it does."""
    order = [2, 0, 1]
    for options, matters in (
        ({"shared_positions": True, "labels_attend": False}, False),
        ({"isolated": True}, False),
        ({}, True),
    ):
        model, words = classifier(kind, **options)
        before = model(**batch(words)).logits[:, order]
        model.label_embeddings.weight.copy_(model.label_embeddings.weight[order])
        difference = float((model(**batch(words)).logits - before).abs().max())
        assert difference > 1e-3 if matters else difference < 1e-4, (options, difference)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_label_sees_the_text(kind):
    """Every token of it, and in decoders too; padding it does not see."""
    model, words = classifier(kind)
    inputs = batch(words, SENTENCES[:1])
    before = model(**inputs).logits
    for place in range(inputs["input_ids"].shape[1]):
        changed = {name: value.clone() for name, value in inputs.items()}
        changed["input_ids"][0, place] = VOCABULARY["crowd"]
        assert (model(**changed).logits - before).abs().min() > 1e-6


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
@torch.no_grad()
def test_isolated_labels_do_not_see_each_other(kind):
    for options, sees in (({"isolated": True}, False), ({}, True)):
        model, words = classifier(kind, **options)
        before = model(**batch(words)).logits
        model.label_embeddings.weight[0] *= -1
        after = model(**batch(words)).logits
        assert not torch.allclose(after[:, 0], before[:, 0])
        assert torch.allclose(after[:, 1:], before[:, 1:], atol=1e-5) is not sees


@torch.no_grad()
def test_losses():
    for multilabel in (False, True):
        model, words = classifier("bert", multilabel=multilabel)
        inputs = batch(words)
        logits = model(**inputs).logits.double()
        if multilabel:
            labels = torch.arange(3 * len(SENTENCES)).reshape(-1, 3) % 2
            p = torch.sigmoid(logits)
            columns = [log_loss(labels[:, k], p[:, k], labels=[0, 1]) for k in range(3)]
            expected = np.mean(columns)
        else:
            labels = torch.arange(len(SENTENCES)) % 3
            expected = log_loss(labels, torch.softmax(logits, 1))
        assert float(model(**inputs, labels=labels).loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "t5", "gpt2"])
def test_a_frozen_body_is_left_alone(kind):
    """Only the head and the rows of the labels change, under weight decay too."""
    model, words = classifier(kind)
    model.body.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = [name for name, value in model.named_parameters() if value.requires_grad]
    assert rows == ["label_embeddings.weight", "classifier.weight", "classifier.bias"]
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.1)
    labels = torch.arange(len(SENTENCES)) % 3
    losses = []
    for _ in range(40):
        loss = model(**batch(words), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    # The softmax of three logits does not depend on what all have in common.
    assert {*rows[:2]} <= changed <= {*rows}
    assert (model.label_embeddings.weight != before[rows[0]]).any(1).all()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_of_it_is_trained(checkpointing):
    model, words = classifier("bert", labels_attend=False)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model(**batch(words), labels=torch.arange(len(SENTENCES)) % 3).loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_saved_and_loaded(kind, tmp_path):
    model, words = classifier(kind, labels_attend=kind == "deberta-v2", multilabel=True)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    auto = transformers.AutoModelForSequenceClassification
    loaded, found = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())
    assert type(loaded) is type(model)
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    # Not to the bit: how some CPUs add up depends on where in memory the weights lie.
    torch.testing.assert_close(loaded(**batch(words)).logits, model(**batch(words)).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == dict(zip("012", LABELS, strict=True))
    assert config["label_tokens"] == [f"[label:{label}]" for label in LABELS]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", ["bert", "t5", "gpt2"])
@torch.no_grad()
def test_in_a_pipeline(kind, multilabel, tmp_path):
    """Also with texts that are much too long for the window of 64."""
    model, words = classifier(kind, multilabel=multilabel)
    fit_tokenizer(words, 64 - len(LABELS), token_types=kind == "bert")
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    pipe = transformers.pipeline("text-classification", str(tmp_path))
    texts = [*SENTENCES, " ".join(SENTENCES * 3)]
    answers = pipe(texts, batch_size=4, top_k=None, truncation=True)
    for text, answer in zip(texts, answers, strict=True):
        ids = words(text, truncation=True)["input_ids"]
        logits = torch.tensor(logits_by_hand(model, ids))
        expected = torch.sigmoid(logits) if multilabel else torch.softmax(logits, 0)
        found = {entry["label"]: entry["score"] for entry in answer}
        assert found == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    if kind == "bert":
        answer = pipe({"text": SENTENCES[0], "text_pair": SENTENCES[1]}, top_k=None)
        logits = model(**batch(words, SENTENCES[:1], SENTENCES[1:2], types=True)).logits[0]
        expected = torch.sigmoid(logits) if multilabel else torch.softmax(logits, 0)
        found = {entry["label"]: entry["score"] for entry in answer}
        assert found == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@torch.no_grad()
def test_attention_from_label_tokens(kind, tmp_path):
    model, words = classifier(kind)
    model.save_pretrained(tmp_path)
    auto = transformers.AutoModelForSequenceClassification
    loaded = auto.from_pretrained(tmp_path, attn_implementation="eager")
    inputs = batch(words)
    output = loaded(**inputs, output_attentions=True)
    layout = loaded.layout(inputs["attention_mask"].bool())
    body = extended(model)
    body.set_attn_implementation("eager")
    for row, text in enumerate(SENTENCES):
        ids = with_labels(model, words(text)["input_ids"])
        expected = body(torch.tensor([ids]), output_attentions=True).attentions
        assert layout.real[row].sum() == len(ids)
        for code, place in enumerate(layout.places[row].tolist()):
            assert ids[place] == len(VOCABULARY) + code
            for layer, weights in enumerate(output.attentions):
                of_label = weights[row, :, place, : len(ids)]
                torch.testing.assert_close(of_label, expected[layer][0, :, place], **CLOSE)


def test_mixed_precision():
    model, words = classifier("bert", isolated=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch(words), labels=torch.arange(len(SENTENCES)) % 3).loss
    exact = model(**batch(words), labels=torch.arange(len(SENTENCES)) % 3).loss
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize("options", [{}, {"isolated": True}], ids=str)
@pytest.mark.parametrize("kind", ["bert", "llama"])
@torch.no_grad()
def test_a_body_in_half_precision(kind, options):
    model, words = classifier(kind, **options)
    exact = model(**batch(words)).logits
    model.body.bfloat16()
    found = model(**batch(words)).logits
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("gpt2", {"position": "prefix"}, "position: prefix, but gpt2 is a decoder"),
        ("bert", {"position": "front"}, "position: 'front' is not one of prefix, suffix"),
        ("t5", {"shared_positions": True}, "shared_positions: t5 counts the distances"),
        ("mpnet", {"isolated": True}, "shared_positions: mpnet counts the distances"),
        ("deberta-v2", {"labels_attend": False}, "labels_attend: deberta-v2 takes no mask"),
        ("bert", {"chunk": 0}, "chunk: 0 labels per pass; expected 1 or more"),
        ("bert", {"labels": ["a"]}, "labels: 1 of them; expected 2 or more"),
        ("bert", {"labels": ["a", "b", "a"]}, "labels: 'a' stands there twice"),
    ],
)
def test_refused_in_one_line(kind, options, message):
    with pytest.raises(ProbelineError) as caught:
        classifier(kind, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@torch.no_grad()
def test_an_attention_without_masks_of_pairs():
    model, words = classifier("bert", labels_attend=False)
    model.body.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ProbelineError, match="flash_attention_2 takes no mask of pairs"):
        model(**batch(words))


@torch.no_grad()
def test_labels_after_an_encoders_text():
    model, words = classifier("bert", position="suffix")
    found = model(**batch(words)).logits
    body = extended(model)
    for row, text in enumerate(SENTENCES):
        ids = words(text)["input_ids"]
        new = [len(VOCABULARY) + code for code in range(len(LABELS))]
        output = body(torch.tensor([[*ids, *new]])).last_hidden_state[0, -len(LABELS) :]
        expected = (output @ model.classifier.weight[0]) + model.classifier.bias
        torch.testing.assert_close(found[row], expected, **CLOSE)
