"""Label tokens beside tokenizers of the three kinds: word pieces, byte-level BPE, SentencePiece."""

import pytest
import torch
import transformers
from hub_models import POSITIONS, TEXTS, publish
from tiny_models import tokenizer

from probeline.errors import ProbelineError
from probeline.label_tokens import LabelTokenConfig
from probeline.label_tokens.build import LabelTokenOptions, build_classifier
from probeline.label_tokens.tokens import first_tokens, fit_tokenizer, text_room, token_names
from probeline.models.reading import is_causal

# Spaces, punctuation, other scripts, no letter at all, and tokens of the tokenizers themselves.
LABELS = [
    "card arrival",
    "what's up?",
    "Größe 😀 中文",
    "-",
    "[SEP]",
    "</s>",
    "the",
    "Ġthe",
    "▁the",
]
REPOS = {
    "bert-base-uncased": 1,
    "roberta-base": 1,
    "gpt2": 0,
    "google/flan-t5-small": 0,
    "meta-llama/Llama-2-7b-hf": 1,
}


def load(repo, folder, labels=LABELS, **options):
    """A classifier on a published body, its tokenizer, and what ids texts must have."""
    _, ids = publish(repo, folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = transformers.T5EncoderModel if "t5" in repo else transformers.AutoModel
    body = encoder.from_pretrained(folder, dtype=torch.float32)
    options = LabelTokenOptions(initialization="random", **options)
    return build_classifier(body, words, labels, False, options).eval(), words, ids


@pytest.mark.parametrize(("repo", "first"), REPOS.items())
@torch.no_grad()
def test_the_text_keeps_its_tokens(repo, first, tmp_path):
    """Label tokens stand between the first token and the text, or behind it, and change no id."""
    model, words, ids = load(repo, tmp_path / "model")
    fit_tokenizer(words, POSITIONS - len(LABELS), token_types=repo.startswith("bert"))
    causal = is_causal(model.body.config.model_type)
    assert causal or model.config.first == first
    fed = []
    model.body.register_forward_pre_hook(lambda _, __, given: fed.append(given), with_kwargs=True)
    # Also a text that spells a label token.
    texts = [*TEXTS, f"the cat {model.config.label_tokens[0]}"]
    inputs = words(texts, padding=True, return_tensors="pt")
    assert model(**inputs).logits.shape == (len(texts), len(LABELS))
    embeds, mask = fed[0]["inputs_embeds"], fed[0]["attention_mask"]
    table = model.body.get_input_embeddings().weight
    for row, text in enumerate(texts):
        rows = [table[code] for code in ids(text)]
        at = len(rows) if causal else first
        rows[at:at] = list(model.label_embeddings.weight)
        assert mask[row].tolist() == [1] * len(rows) + [0] * (embeds.shape[1] - len(rows))
        assert torch.equal(embeds[row, : len(rows)], torch.stack(rows))


@pytest.mark.parametrize("repo", REPOS)
@torch.no_grad()
def test_truncation_eats_the_text(repo, tmp_path):
    model, words, _ = load(repo, tmp_path / "model")
    special = words.num_special_tokens_to_add(pair=True)
    room = text_room(model.config, POSITIONS, special, max_length=10_000)
    assert room == POSITIONS - len(LABELS)
    fit_tokenizer(words, room, token_types=False)
    lengths = []
    model.body.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["attention_mask"].sum(1)), with_kwargs=True
    )
    long = " ".join(TEXTS * 30)
    for texts in ([long], [long, long]):
        inputs = words(*([text] for text in texts), truncation=True, return_tensors="pt")
        assert model(**inputs).logits.isfinite().all()
    assert [int(found) for found in lengths] == [POSITIONS, POSITIONS]


def test_saved_tokenizers_cut_and_pad_alone(tmp_path):
    _, words, _ = load("gpt2", tmp_path / "model")
    assert words.pad_token is None
    words.padding_side = "left"
    fit_tokenizer(words, 12, token_types=False)
    words.save_pretrained(tmp_path / "words")
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "words")
    found = read([TEXTS[5], TEXTS[2]], truncation=True, padding=True)
    assert set(found) == {"input_ids", "attention_mask"}
    assert [len(row) for row in found["input_ids"]] == [12, 12]
    assert found["attention_mask"][1][-1] == 0


@pytest.mark.parametrize("style", ["bert", "t5", "llama", "gpt2"])
def test_first_tokens(style):
    expected = {"bert": 1, "t5": 0, "llama": 1, "gpt2": 0}[style]
    assert first_tokens(tokenizer(style)) == expected


def test_names_are_all_different():
    labels = ["joy", "joy#2", "a b", "[SEP]", "x"]
    names = token_names(labels, {"[label:joy]", "[label:x]", "[SEP]"})
    assert len({*names, "[label:joy]", "[label:x]", "[SEP]"}) == len(names) + 3
    assert names[2:4] == ["[label:a b]", "[label:[SEP]]"]
    assert token_names(labels) == [f"[label:{label}]" for label in labels]


def config(labels: int, **options) -> LabelTokenConfig:
    names = {code: str(code) for code in range(labels)}
    return LabelTokenConfig(body=transformers.BertConfig(), id2label=names, **options)


def test_room_for_text():
    assert text_room(config(28), 512, 3, 512) == 484
    assert text_room(config(28), 512, 3, 128) == 128, "texts as long as without labels"
    assert text_room(config(600), None, 3, 512) == 512
    assert text_room(config(600, shared_positions=True), 512, 3, 512) == 511
    assert text_room(config(600, isolated=True), 512, 3, 512) == 511
    assert text_room(config(600, chunk=100), 512, 3, 512) == 412
    assert text_room(config(600, shortlist=50), 512, 3, 512) == 462
    assert text_room(config(600, shortlist=50, chunk=20), 512, 3, 512) == 492
    assert text_room(config(10, shortlist=50), 512, 3, 512) == 502
    assert text_room(config(508), 512, 3, 512) == 4


@pytest.mark.parametrize("labels", [509, 512, 600])
def test_labels_that_leave_no_room(labels):
    with pytest.raises(ProbelineError) as caught:
        text_room(config(labels), 512, 3, 128)
    assert str(caught.value) == (
        f"label tokens: {labels} of them leave no room for text beside 3 special tokens in the "
        "model's 512 positions; set chunk or shortlist to at most 508, or let them share a position"
    )
    assert text_room(config(labels, chunk=508), 512, 3, 128) == 4


def test_a_tokenizer_that_cannot_pad():
    words = tokenizer("gpt2", pad=False)
    words.eos_token = None
    with pytest.raises(ProbelineError, match="neither a padding token nor an end token"):
        fit_tokenizer(words, 10, token_types=False)
