"""The first embeddings of label tokens, by hand."""

import numpy as np
import pytest
import torch
import transformers
from hub_models import publish
from tiny_models import VOCABULARY, tokenizer

from probeline.errors import ProbelineError
from probeline.label_tokens.build import LabelTokenOptions, build_classifier
from probeline.label_tokens.initial import INITIALIZATIONS, initial_rows

TEXTS = ["stock markets", ("rain", "the door please"), "crowd"]
PIECES = [["stock", "markets"], ["rain", "the", "door", "please"], ["crowd"]]


def table() -> np.ndarray:
    """Embeddings with three rows of padding that no word has."""
    rng = np.random.default_rng(0)
    rows = rng.normal(1.0, 2.0, (len(VOCABULARY) + 3, 6)).astype(np.float32)
    rows[len(VOCABULARY) :] = 1e6
    return rows


def rows(method: str, style: str = "bert", seed: int = 0) -> np.ndarray:
    words = tokenizer(style)
    words.cls_token = "[CLS]" if style == "bert" else None
    found = initial_rows(method, torch.from_numpy(table()), words, TEXTS, seed)
    assert found.shape == (3, 6) and found.dtype == torch.float32
    return found.numpy()


def of_words(names: list[str]) -> np.ndarray:
    return table()[[VOCABULARY[name] for name in names]].mean(0)


def test_mean():
    expected = table()[: len(VOCABULARY)].mean(0)
    np.testing.assert_allclose(rows("mean"), [expected] * 3, rtol=1e-5)


def test_label_text():
    expected = [of_words(names) for names in PIECES]
    np.testing.assert_allclose(rows("label_text"), expected, rtol=1e-5)


def test_cls():
    np.testing.assert_array_equal(rows("cls"), [table()[VOCABULARY["[CLS]"]]] * 3)
    np.testing.assert_array_equal(rows("cls", "t5"), [table()[VOCABULARY["[EOS]"]]] * 3)


def test_mix_is_half_text_half_cls():
    expected = [(of_words(names) + table()[VOCABULARY["[CLS]"]]) / 2 for names in PIECES]
    np.testing.assert_allclose(rows("mix"), expected, rtol=1e-5)


def test_random():
    many = tokenizer("bert"), ["x"] * 4000
    drawn = initial_rows("random", torch.from_numpy(table()), *many).numpy()
    assert drawn.std() == pytest.approx(table()[: len(VOCABULARY)].std(), rel=0.03)
    assert abs(drawn.mean()) < 0.05
    np.testing.assert_array_equal(rows("random", seed=1), rows("random", seed=1))
    assert (rows("random", seed=1) != rows("random", seed=2)).all()


def test_words_of_byte_level_bpe_as_after_a_space(tmp_path):
    """Where it has a piece for that; elsewhere no space is put before a label."""
    for repo, piece in (("roberta-base", "Ġmonday"), ("meta-llama/Llama-2-7b-hf", "▁monday")):
        folder = tmp_path / repo
        publish(repo, folder)
        words = transformers.AutoTokenizer.from_pretrained(folder)
        weights = torch.randn(len(words), 4)
        text = words.tokenize(" monday" if repo.startswith("roberta") else "monday")
        assert "".join(text) == piece
        expected = weights[words.convert_tokens_to_ids(text)].mean(0)
        found = initial_rows("label_text", weights, words, ["monday"])
        torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("method", INITIALIZATIONS)
@pytest.mark.parametrize("kind", ["bert", "electra", "opt"])
def test_in_a_classifier(kind, method):
    """Also where embeddings are narrower than the model."""
    from label_tokens import TINY, new_body

    words = tokenizer(TINY[kind].style)
    words.cls_token = "[CLS]"
    made = []
    for _ in range(2):
        torch.manual_seed(len(made))
        body = new_body(TINY[kind].config())
        torch.nn.init.normal_(
            body.get_input_embeddings().weight, generator=torch.Generator().manual_seed(0)
        )
        before = torch.get_rng_state()
        options = LabelTokenOptions(initialization=method)
        made.append(build_classifier(body, words, ["a", "b", "c"], False, options, TEXTS, seed=5))
        assert torch.equal(torch.get_rng_state(), before)
    embeddings = body.get_input_embeddings().weight
    expected = initial_rows(method, embeddings, words, TEXTS, seed=5)
    assert torch.equal(made[0].label_embeddings.weight, expected)
    assert torch.equal(made[0].classifier.weight, made[1].classifier.weight)
    assert made[0].config.initialization == method


def test_refused_in_one_line():
    words, weights = tokenizer("gpt2"), torch.zeros(len(VOCABULARY), 4)
    for method, texts, message in (
        ("average", ["rain"], "initialization: 'average' is not one of random, mean"),
        ("label_text", ["rain", " "], "the tokenizer makes no token of the label's text ' '"),
    ):
        with pytest.raises(ProbelineError) as caught:
            initial_rows(method, weights, words, texts)
        assert message in str(caught.value)
    words.eos_token = None
    with pytest.raises(ProbelineError, match=r"no \[CLS\], start or end token"):
        initial_rows("cls", weights, words, ["rain"])
