"""Every family of the papers' matrix as hubs hold it: fetched, then read without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers
from finetuning import run, write_toy
from hub_models import LAYERS, PUBLISHED, TEXTS, Ids, publish
from local_hub import COMMIT, Repo, local_hub
from naive import CLOSE
from tiny_datasets import write_texts

from probeline.activations.batching import tokenize
from probeline.activations.extract import extract
from probeline.activations.shards import open_shard
from probeline.models.causal import load_causal
from probeline.models.hub import fetch
from probeline.models.load import load_model
from probeline.models.reference import read_shape, resolve
from probeline.results.predictions import read_predictions

FETCH = """
import json, sys
from probeline.models.causal import load_causal
from probeline.models.hub import fetch
print(json.dumps({path: fetch({"path": path}) for path in sys.argv[1:]}))
"""
KINDS = sorted(PUBLISHED)


@dataclass(frozen=True)
class Fetched:
    """What the cache was filled from: the models in memory, and how their texts are tokenized."""

    bodies: dict[str, torch.nn.Module]
    ids: dict[str, Ids]
    commits: dict[str, str]
    asked: list[str]


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Fetched:
    """Models fetched from a hub that is gone afterwards; the cache is this process's own."""
    folder = tmp_path_factory.mktemp("hub")
    made = {repo: publish(repo, folder / "published" / repo) for repo in KINDS}
    repos = {repo: Repo.of_folder(folder / "published" / repo) for repo in KINDS}
    with local_hub(repos) as hub:
        done = subprocess.run(
            [sys.executable, "-c", FETCH, *KINDS],
            capture_output=True,
            text=True,
            env=hub.environment(folder / "home"),
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(folder / "home" / "hub"))
        yield Fetched(
            {repo: body for repo, (body, _) in made.items()},
            {repo: ids for repo, (_, ids) in made.items()},
            json.loads(done.stdout),
            hub.asked,
        )


def spec_of(repo: str) -> dict:
    return {"path": repo, "dtype": "float32", "device": "cpu"}


def test_all_were_fetched_at_their_commit(hub):
    assert hub.commits == dict.fromkeys(KINDS, COMMIT)
    assert not {"README.md", "training_args.bin"} & set(hub.asked)


@pytest.mark.parametrize("repo", KINDS)
def test_the_cache_is_all_that_is_needed(hub, repo):
    # HF_HUB_OFFLINE is set in all tests: asking the hub would raise.
    assert fetch({"path": repo}) == COMMIT
    source = resolve(repo)
    assert (source.kind, source.commit) == ("hub", COMMIT)
    assert all(path.is_symlink() for path in source.folder.iterdir())
    names = {path.name for path in source.folder.iterdir()}
    pickled = PUBLISHED[repo].pickled
    assert any(name.endswith(".bin") for name in names) == pickled
    assert any(name.endswith(".safetensors") for name in names) == (not pickled)
    shape = read_shape({"path": repo, "layers": LAYERS})
    assert (shape.layers, shape.hidden_width, shape.ffn_width) == (
        LAYERS,
        16,
        64 if shape.model_type == "gpt2" else 40,
    )


@pytest.mark.parametrize("repo", KINDS)
def test_texts_have_the_ids_of_the_published_tokenizer(hub, repo):
    model = load_model(spec_of(repo))
    assert tokenize(model, TEXTS).ids == [hub.ids[repo](text) for text in TEXTS]


def part(model: torch.nn.Module, repo: str) -> torch.nn.Module:
    """What is read of a model: of encoder-decoders the encoder."""
    return model.encoder if "t5" in repo else model


@torch.no_grad()
def states(body: torch.nn.Module, ids: list[int], final_norm: bool) -> dict[int, np.ndarray]:
    """Mean over the tokens of each hidden state that is a block's own output."""
    found = body(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert len(found) == LAYERS + 1
    kept = found[:-1] if final_norm else found
    return {layer: state[0].mean(dim=0).numpy() for layer, state in enumerate(kept)}


@pytest.mark.parametrize("repo", KINDS)
def test_shards_are_the_published_models_states(hub, repo, tmp_path):
    data = write_texts(tmp_path / "data", TEXTS)
    options = {
        "representations": ["hidden"],
        "poolings": ["mean"],
        "storage_dtype": "float32",
        "block_texts": 8,
    }
    extract(data, "tiny", spec_of(repo), options, tmp_path / "out", tmp_path / "state", 42)
    found = {}
    for layer in range(LAYERS + 1):
        with open_shard(tmp_path / "out" / f"hidden.mean.{layer:02d}.h5") as shard:
            found[layer] = shard.read()
            assert shard.meta["revision"] == COMMIT
    final_norm = PUBLISHED[repo].final_norm
    for row, text in enumerate(TEXTS):
        expected = states(hub.bodies[repo], hub.ids[repo](text), final_norm)
        for layer, values in expected.items():
            np.testing.assert_allclose(found[layer][row], values, **CLOSE)
    # And what transformers makes of the same files.
    folder = resolve(repo).folder
    theirs = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for layer, values in states(part(theirs, repo), hub.ids[repo](TEXTS[0]), final_norm).items():
        np.testing.assert_allclose(found[layer][0], values, **CLOSE)


@pytest.mark.parametrize("repo", KINDS)
def test_a_step_of_fine_tuning(hub, repo, tmp_path):
    # Three classes, more than the heads of published classifiers have; one batch of all texts.
    data = write_toy(tmp_path / "data", classes=3)
    folder = run(data, repo, tmp_path, epochs=1, batch_size=48, learning_rate=1e-4)
    assert json.loads((tmp_path / "scores.json").read_text())["steps"] == 1
    found = read_predictions(tmp_path / "predictions.h5").logits
    assert found.shape == (96, 3) and np.isfinite(found).all()
    before = dict(hub.bodies[repo].named_parameters())
    body = load_model(spec_of(str(folder))).body
    after = dict(part(body, repo).named_parameters())
    assert before.keys() >= after.keys()
    moved = {name: (after[name] - before[name]).abs().max().item() for name in after}
    # AdamW moves a weight by about its learning rate; another checkpoint's would be far away.
    assert 0 < max(moved.values()) < 1e-3, moved


@pytest.mark.parametrize("repo", ["gpt2", "edbeeching/gpt2-medium-imdb"])
@torch.no_grad()
def test_a_language_model_for_in_context_learning(hub, repo):
    model = load_causal(spec_of(repo))
    ids = torch.tensor([hub.ids[repo](TEXTS[0])])
    body = hub.bodies[repo]
    # GPT-2's head is its word embedding.
    expected = body(ids).last_hidden_state @ body.wte.weight.T
    torch.testing.assert_close(model.network(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
