"""The extraction stage against fresh passes, and what it does when something is wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from naive import CLOSE, one_at_a_time
from safetensors.torch import load_file, save_file
from tiny_datasets import write_texts
from tiny_models import LAYERS, PAIRS, SENTENCES, build
from torch.nn.modules.module import register_module_forward_pre_hook

from probeline.activations.extract import Plan, extract, make_plan
from probeline.activations.names import parse_name, shard_names
from probeline.activations.shards import open_shard
from probeline.errors import ProbelineError
from probeline.models.load import load_model
from probeline.models.reference import read_shape

TEXTS = [*SENTENCES, *(f"{text} and rain" for text in SENTENCES), *SENTENCES[:3]]
OPTIONS = {
    "representations": ["ffn", "hidden"],
    "poolings": ["first", "last", "max", "mean"],
    "storage_dtype": "float32",
    "block_texts": 8,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("data"), TEXTS)


def spec_of(folder: Path, **more) -> dict:
    return {
        "path": str(folder),
        "dtype": "float32",
        "device": "cpu",
        "max_length": 16,
        "batch_tokens": 48,
        **more,
    }


def run(data: Path, spec: dict, out: Path, **options) -> Path:
    """Extract into `out`; the state folder lies beside it."""
    free = {"free": options.pop("free")} if "free" in options else {}
    state = out.with_name(out.name + ".state")
    extract(data, "tiny", spec, {**OPTIONS, **options}, out, state, 42, **free)
    return out


def values_of(out: Path) -> dict[str, np.ndarray]:
    result = {}
    for path in sorted(out.glob("*.h5")):
        with open_shard(path) as shard:
            result[path.name] = shard.read()
    return result


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "modernbert", "flan-t5"])
def test_shards_equal_fresh_passes(kind, data, tmp_path):
    folder = build(kind, tmp_path / "model")
    decoder = kind == "flan-t5"
    representations = ["ffn", "hidden", *(["decoder-ffn", "decoder-hidden"] if decoder else [])]
    out = run(data, spec_of(folder), tmp_path / "out", representations=representations)
    model = load_model(spec_of(folder), decoder=decoder)
    truth = one_at_a_time(kind, model, TEXTS, decoder=decoder)
    found = values_of(out)
    assert len(found) == len(truth)
    for name, values in found.items():
        representation, pooling, layer = parse_name(name)
        expected = truth[representation, layer, pooling]
        np.testing.assert_allclose(values, expected, **CLOSE, err_msg=name)


def test_pairs(bert, tmp_path):
    data = write_texts(tmp_path / "pairs", SENTENCES, PAIRS)
    found = values_of(run(data, spec_of(bert), tmp_path / "out", poolings=["mean"]))
    truth = one_at_a_time("bert", load_model(spec_of(bert)), SENTENCES, PAIRS)
    np.testing.assert_allclose(found["hidden.mean.03.h5"], truth["hidden", 3, "mean"], **CLOSE)


def test_what_is_written(bert, data, tmp_path):
    out = run(data, spec_of(bert), tmp_path / "out", storage_dtype="float16")
    names = shard_names(read_shape(spec_of(bert)), OPTIONS["representations"], OPTIONS["poolings"])
    assert len(names) == 4 * (LAYERS + LAYERS + 1)
    assert {item.name for item in out.iterdir()} == {*names, "tokens.json", "timing.json"}
    assert not (tmp_path / "out.state").exists()
    model = load_model(spec_of(bert))
    manifest = json.loads((data / "dataset.json").read_text())
    with open_shard(out / "ffn.max.02.h5") as shard:
        assert (
            shard.meta.items()
            >= {
                "model_name": "tiny",
                "model": str(bert),
                "revision": model.revision,
                "tokenizer_hash": model.tokenizer_hash,
                "dataset": "tiny",
                "dataset_fingerprint": manifest["fingerprint"],
                "offsets": manifest["offsets"],
                "max_length": 16,
                "dtype": "float32",
                "device": "cpu",
                "representation": "ffn",
                "pooling": "max",
                "layer": 2,
                "storage_dtype": "float16",
                "rows": len(TEXTS),
                "width": 40,
                "complete": True,
            }.items()
        )
    timing = json.loads((out / "timing.json").read_text())
    assert (timing["blocks"], timing["resumed_blocks"], timing["texts"]) == (3, 0, len(TEXTS))
    assert timing["texts_per_second"] > 0


def test_auto_settings_are_stored_resolved(bert, data, tmp_path):
    spec = {"path": str(bert), "dtype": "auto", "device": "auto", "max_length": None}
    out = run(data, spec, tmp_path / "out", representations=["hidden"], poolings=["mean"])
    with open_shard(out / "hidden.mean.00.h5") as shard:
        assert shard.meta["dtype"] in ("float32", "bfloat16", "float16")
        assert shard.meta["device"] in ("cpu", "cuda", "mps")
        assert shard.meta["max_length"] == 64


def test_token_lengths(bert, data, tmp_path):
    out = run(data, spec_of(bert, max_length=9), tmp_path / "out")
    tokens = json.loads((out / "tokens.json").read_text())
    model = load_model(spec_of(bert))
    lengths = np.array([len(ids) for ids in model.tokenizer(TEXTS)["input_ids"]])
    offsets = json.loads((data / "dataset.json").read_text())["offsets"]
    assert tokens["max_length"] == 9
    for split, (start, stop) in {**offsets, "all": (0, len(TEXTS))}.items():
        summary = tokens["all"] if split == "all" else tokens["splits"][split]
        part = lengths[start:stop]
        assert summary["texts"] == stop - start
        assert summary["max"] == part.max()
        assert summary["quantiles"]["0.5"] == np.median(part)
        assert summary["truncated"] == pytest.approx((part > 9).mean(), abs=1e-6)


def test_one_forward_pass(bert, data, tmp_path):
    """Every text goes through the model, and through each block, exactly once."""
    calls, rows = Counter(), Counter()

    def count(module, args):
        calls[type(module).__name__] += 1
        if args and isinstance(args[0], torch.Tensor):
            rows[type(module).__name__] += args[0].shape[0]

    handle = register_module_forward_pre_hook(count)
    try:
        out = run(data, spec_of(bert), tmp_path / "out")
    finally:
        handle.remove()
    batches = json.loads((out / "timing.json").read_text())["batches"]
    assert calls["BertModel"] == batches > 3
    assert calls["BertLayer"] == LAYERS * batches
    assert rows["BertLayer"] == LAYERS * len(TEXTS)


def test_some_layers_are_the_same_bits_and_no_block_above_them_is_computed(bert, data, tmp_path):
    every = values_of(run(data, spec_of(bert), tmp_path / "every"))
    blocks: Counter = Counter()

    def count(module, args):
        blocks[type(module).__name__] += 1

    handle = register_module_forward_pre_hook(count)
    try:
        out = run(data, spec_of(bert), tmp_path / "some", layers=[0, 1])
    finally:
        handle.remove()
    some = values_of(out)
    wanted = [name for name in every if parse_name(name)[2] < 2]
    assert sorted(some) == sorted(wanted) and len(every) > len(wanted) == 3 * 4
    for name, values in some.items():
        np.testing.assert_array_equal(values, every[name])
    assert LAYERS > 1
    assert blocks["BertLayer"] == blocks["BertModel"] > 3


def test_same_bits_again_and_close_with_other_blocks_and_batches(bert, data, tmp_path):
    first = values_of(run(data, spec_of(bert), tmp_path / "a"))
    again = values_of(run(data, spec_of(bert), tmp_path / "b"))
    other = values_of(run(data, spec_of(bert, batch_tokens=500), tmp_path / "c", block_texts=5))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        np.testing.assert_allclose(values, other[name], **CLOSE)


def test_float16_is_float32_rounded(bert, data, tmp_path):
    exact = values_of(run(data, spec_of(bert), tmp_path / "a"))
    half = values_of(run(data, spec_of(bert), tmp_path / "b", storage_dtype="float16"))
    for name, values in exact.items():
        np.testing.assert_array_equal(values.astype(np.float16).astype(np.float32), half[name])


def test_blocks_of_wide_models_are_smaller(bert):
    model = load_model(spec_of(bert))
    plan = make_plan(model, {**OPTIONS, "block_texts": 10**9}, rows=10)
    assert plan.block * sum(plan.widths.values()) * 4 <= 512 << 20
    assert make_plan(model, OPTIONS, rows=20).blocks == [(0, 8), (8, 16), (16, 20)]
    assert isinstance(plan, Plan)


# --- what goes wrong ---------------------------------------------------------------------------


def scaled(bert: Path, folder: Path, weight: str, factor: float) -> Path:
    """A copy of the model with one weight multiplied."""
    build("bert", folder)
    weights = load_file(bert / "model.safetensors")
    weights[weight] = weights[weight] * factor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_overflow_of_float16_is_named(bert, data, tmp_path):
    huge = scaled(bert, tmp_path / "m", "encoder.layer.1.intermediate.dense.weight", 1e6)
    with pytest.raises(ProbelineError) as caught:
        run(data, spec_of(huge), tmp_path / "out", storage_dtype="float16")
    line = str(caught.value)
    assert "too large for float16" in line
    assert "storage_dtype: float32" in line
    name, _, rest = line.partition(": row ")
    found = values_of(run(data, spec_of(huge), tmp_path / "wide"))
    row = int(rest.split()[0])
    assert np.abs(found[name][row]).max() > 65504
    seen = float(rest.split("float16 (")[1].split()[0])
    assert np.abs(np.abs(found[name]).max(axis=1) / seen - 1).min() < 1e-4
    assert not (tmp_path / "out").exists()


def test_nan_stops_with_row_and_layer(bert, data, tmp_path):
    """The embedding of one word is NaN: the first row that has it is named."""
    folder = build("bert", tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    model = load_model(spec_of(folder))
    word = model.tokenizer.convert_tokens_to_ids("rain")
    weights["embeddings.word_embeddings.weight"][word] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ProbelineError) as caught:
        run(data, spec_of(folder), tmp_path / "out", representations=["hidden"])
    line = str(caught.value)
    row = int(line.split("row ")[1].split(",")[0])
    assert "rain" in TEXTS[row].split()
    assert "'hidden' layer 0" in line
    # Nothing overflows in float32: other advice than for float16.
    assert "weights may be damaged" in line and "overflows" not in line


def test_disk_too_small_is_refused_before_the_first_batch(bert, data, tmp_path):
    calls = []
    handle = register_module_forward_pre_hook(lambda module, args: calls.append(1))
    try:
        with pytest.raises(ProbelineError) as caught:
            run(data, spec_of(bert), tmp_path / "out", free=lambda folder: 500_000)
    finally:
        handle.remove()
    assert "28 shards need" in str(caught.value)
    assert "has 500.0 kB free" in str(caught.value)
    assert calls == []
    run(data, spec_of(bert), tmp_path / "out", free=lambda folder: 2_000_000)


def test_the_disk_of_the_results_is_looked_at_too(bert, data, tmp_path):
    """Work goes on on one disk, finished shards lie on another, which is full."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second disk; /dev/shm is none here")
    with TemporaryDirectory(dir=other) as folder, pytest.raises(ProbelineError) as caught:
        free = {str(tmp_path): 10**9, str(other): 400_000}
        extract(
            data,
            "tiny",
            spec_of(bert),
            OPTIONS,
            Path(folder) / "out",
            tmp_path / "state",
            42,
            free=lambda place: next(n for start, n in free.items() if str(place).startswith(start)),
        )
    assert "has 400.0 kB free" in str(caught.value)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"storage_dtype": "float8"}, "'float8' is not one of float16, float32"),
        ({"poolings": ["avg"]}, "pooling 'avg' is not one of first, last, max, mean"),
        ({"representations": ["fnn"]}, "did you mean 'ffn'"),
        ({"representations": ["decoder-ffn"]}, "no encoder-decoder"),
        ({"poolings": []}, "at least one representation, pooling and layer"),
        ({"layers": []}, "at least one representation, pooling and layer"),
        ({"layers": [1, 9]}, "extract.layers: 9 is out of range; the model has layers 0 to 3"),
        ({"layers": "last"}, "extract.layers: 'last' is out of range; the model has layers 0 to 3"),
    ],
)
def test_bad_options(bert, data, tmp_path, options, words):
    with pytest.raises(ProbelineError, match=words):
        run(data, spec_of(bert), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
