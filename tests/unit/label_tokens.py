"""Classifiers with label tokens on tiny random bodies, and the same computed for one text."""

from __future__ import annotations

import copy

import torch
from tiny_models import SENTENCES, TINY, VOCABULARY, randomise, tokenizer

from probeline.label_tokens.bodies import new_body
from probeline.label_tokens.build import LabelTokenOptions, build_classifier
from probeline.label_tokens.model import LabelTokenClassifier
from probeline.models.reading import is_causal

LABELS = ["rain", "the second half", "stock-markets!"]
KINDS = list(TINY)
COUNT_PLACES = {"deberta-v2", "gpt_neo", "mpnet", "mt5", "t5", "flan-t5"}
FREE_PLACES = [kind for kind in KINDS if kind not in COUNT_PLACES]


def classifier(
    kind: str, labels=LABELS, multilabel: bool = False, **options
) -> tuple[LabelTokenClassifier, object]:
    """A classifier in evaluation mode whose weights are all large, with its tokenizer."""
    tiny = TINY[kind]
    torch.manual_seed(0)
    body = new_body(tiny.config()).eval()
    randomise(body)
    words = tokenizer(tiny.style)
    model = build_classifier(body, words, labels, multilabel, LabelTokenOptions(**options))
    randomise(model.label_embeddings, seed=1)
    randomise(model.classifier, seed=2)
    return model.eval(), words


def batch(words, texts=SENTENCES, pairs=None, types: bool = False) -> dict[str, torch.Tensor]:
    """Padded inputs of the model."""
    return dict(
        words(
            list(texts),
            None if pairs is None else list(pairs),
            padding=True,
            return_tensors="pt",
            return_token_type_ids=types,
        )
    )


@torch.no_grad()
def extended(model: LabelTokenClassifier) -> torch.nn.Module:
    """The body with the label tokens as the last words of its vocabulary."""
    body, rows = copy.deepcopy(model.body), model.label_embeddings.weight
    count = len(VOCABULARY)
    body.resize_token_embeddings(count + len(rows), mean_resizing=False)
    body.get_input_embeddings().weight[count:] = rows
    return body.eval()


def with_labels(model: LabelTokenClassifier, ids: list[int]) -> list[int]:
    """One text's ids with those of the label tokens, as `extended` has them."""
    new = [len(VOCABULARY) + code for code in range(model.config.num_labels)]
    if is_causal(model.body.config.model_type):
        return [*ids, *new]
    first = int(ids[0] == VOCABULARY["[CLS]"])
    return [*ids[:first], *new, *ids[first:]]


@torch.no_grad()
def logits_by_hand(model: LabelTokenClassifier, ids: list[int], body=None, **inputs) -> list[float]:
    """The logits of one text, from one call of the body with every token's id."""
    body = extended(model) if body is None else body
    whole = with_labels(model, ids)
    output = body(input_ids=torch.tensor([whole]), **inputs).last_hidden_state[0]
    found = []
    for code in range(model.config.num_labels):
        hidden = output[whole.index(len(VOCABULARY) + code)]
        found.append(float(hidden @ model.classifier.weight[0] + model.classifier.bias[0]))
    return found
