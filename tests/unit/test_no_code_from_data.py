"""No file that is given to probeline runs a program: nothing is unpickled, no code is trusted."""

from __future__ import annotations

import ast
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import attacks
import finetuning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks import FORMATS
from bad_inputs import classifier
from tiny_embedders import write_embedder
from tiny_models import build

from probeline.activations.shards import open_shard
from probeline.data.loaders import load_source
from probeline.errors import ProbelineError
from probeline.finetune.checkpoints import Checkpoints
from probeline.lrsl.embedding import load_embedder
from probeline.lrsl.triplets import read_triplets
from probeline.models.load import load_model
from probeline.probe.store import read_probe
from probeline.results.predictions import read_predictions

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]
RULES = [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]

# Modules that unpickle, run text or unpack archives; what of others does.
FORBIDDEN = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "imp",
    "code",
}
FORBIDDEN |= {"tarfile", "zipfile", "jsonpickle", "xmlrpc", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__"}
CALLS |= {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
CALLS |= {"shutil.unpack_archive", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
CALLS |= {"pd.read_pickle", "pandas.read_pickle", "torch.load", "np.load", "numpy.load"}


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yield what a module must not do, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            for name in names:
                if name.partition(".")[0] in FORBIDDEN:
                    yield f"line {node.lineno}: import {name}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.endswith((".to_pickle", ".read_pickle")):
                yield f"line {node.lineno}: {called}"
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg in ("shell", "allow_pickle") and value is not False:
                    yield f"line {node.lineno}: {keyword.arg}={ast.unparse(keyword.value)}"
                if keyword.arg == "trust_remote_code" and value is True:
                    yield f"line {node.lineno}: trust_remote_code=True"
                if keyword.arg == "weights_only" and value is not True:
                    yield f"line {node.lineno}: weights_only={ast.unparse(keyword.value)}"
            if called.endswith(".from_pretrained") and _asks(node):
                yield f"line {node.lineno}: {called} does not say trust_remote_code"


def _asks(call: ast.Call) -> bool:
    """Whether transformers would ask on standard input whether code is trusted."""
    own = ast.unparse(call.func).rpartition(".")[0]
    given = {keyword.arg for keyword in call.keywords}
    if own.endswith("PeftModel"):
        return False
    return "trust_remote_code" not in given and None not in given


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_source(path):
    assert list(forbidden(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(x)",
        "np.load(x)",
        "yaml.load(x, Loader=yaml.SafeLoader)",
        "subprocess.run(x, shell=True)",
        "f(weights_only=False)",
        "f(trust_remote_code=True)",
        "AutoModel.from_pretrained(x)",
        "eval(x)",
    ],
)
def test_the_scan_finds(line):
    assert len(list(forbidden(ast.parse(line)))) == 1


def test_no_rule_runs_a_shell():
    """What the configuration says never becomes part of a command."""
    for path in RULES:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        starts = tuple(f"{word}:" for word in ("shell", "run", "wrapper", "notebook", "cwl"))
        assert [line for line in lines if line.startswith((*starts, "shell("))] == [], path


@pytest.fixture(autouse=True)
def marker(tmp_path, monkeypatch) -> Iterator[Path]:
    """Where a payload would leave its mark; none does."""
    path = tmp_path / "ran"
    monkeypatch.setenv(attacks.MARKER, str(path))
    yield path
    assert not path.exists()


def refused(call, *args) -> str:
    with pytest.raises(ProbelineError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_the_payloads_work(tmp_path, monkeypatch, name):
    import torch

    monkeypatch.setenv(attacks.MARKER, str(tmp_path / "it ran"))
    FORMATS[name](tmp_path / "a")
    if name == "pickle":
        np.load(tmp_path / "a", allow_pickle=True)
    else:
        torch.load(tmp_path / "a", weights_only=False)
    assert (tmp_path / "it ran").is_dir()


READERS = {
    "a.csv": lambda p: load_source(table(p, "csv")),
    "a.json": lambda p: load_source(table(p, "json")),
    "a.parquet": lambda p: load_source(table(p, "parquet")),
    "shard.h5": open_shard,
    "predictions.h5": read_predictions,
    "probe.h5": read_probe,
    "triplets.parquet": read_triplets,
}


def table(path: Path, loader: str) -> dict:
    return {"loader": loader, "path": str(path), "splits": {"validation": 0.2, "test": 0.2}}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("file", READERS)
def test_pickles_by_other_names(tmp_path, name, file):
    FORMATS[name](tmp_path / file)
    assert file in refused(READERS[file], tmp_path / file)


def test_a_pickled_type_of_arrow(tmp_path):
    """What Arrow stored of Python's extension types once, and unpickled on reading."""
    import pickle

    kept = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(attacks.Bomb()),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=kept), ("label", pa.string())])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["a"], ["b"]], schema=schema), path)
    assert load_source(table(path, "parquet"))["train"].rows == 1


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def model(bert, tmp_path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "model"))


def load(folder: Path):
    return load_model({"path": str(folder), "dtype": "float32", "device": "cpu"})


@pytest.mark.parametrize("name", FORMATS)
def test_weights(model, name):
    (model / "model.safetensors").unlink()
    FORMATS[name](model / "pytorch_model.bin")
    assert "cannot be loaded" in refused(load, model)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_called_safetensors(model, name):
    FORMATS[name](model / "model.safetensors")
    assert "not a safetensors file" in refused(load, model)


def test_what_else_lies_in_the_folder(model):
    """safetensors are preferred, and no other file is looked into."""
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "vocab.pkl", "a.joblib"):
        FORMATS["torch zip"](model / name)
    load(model)


def test_code_of_a_model_of_a_known_kind(model):
    attacks.with_code(model, {"AutoConfig": "modeling_mine.C", "AutoModel": "modeling_mine.M"})
    load(model)


def test_code_of_a_tokenizer(model):
    code = {"AutoTokenizer": ["modeling_mine.T", None]}
    attacks.with_code(model, code, "tokenizer_config.json")
    path = model / "tokenizer_config.json"
    described = json.loads(path.read_text()) | {"tokenizer_class": "TMine"}
    path.write_text(json.dumps(described))
    try:
        load(model)  # by its tokenizer.json, where transformers takes that
    except ProbelineError as error:
        assert "tokenizer cannot be read" in str(error)


@pytest.mark.parametrize("answer", ["y\n", "yes\n1\n"])
def test_nobody_is_asked(model, answer, monkeypatch):
    """`probeline predict --input -` reads texts from standard input: none is a yes."""
    import io

    from probeline.classifier.trained import TrainedClassifier

    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    attacks.with_code(
        model,
        dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification"), "modeling_mine.M"),
    )
    config = json.loads((model / "config.json").read_text()) | {"model_type": "mine"}
    (model / "config.json").write_text(json.dumps(config))
    training = {"labels": ["a", "b"], "multilabel": False, "settings": {"max_length": 16}}
    training |= {"found": {"threshold": 0.0}}
    (model / "training.json").write_text(json.dumps(training))
    assert "--trust-remote-code" in refused(TrainedClassifier, model)
    # Code that lies elsewhere is not asked for.
    (model / "modeling_mine.py").unlink()
    assert "cannot be loaded" in refused(TrainedClassifier, model)


def test_a_classifier_does_not_trust_itself(tmp_path, model):
    """Whoever made the folder wrote the manifest too."""

    def trusting(manifest, arrays):
        manifest["model"]["trust_remote_code"] = True
        shutil.copytree(model, tmp_path / "folder" / "model")
        attacks.with_code(tmp_path / "folder" / "model", {"AutoModel": "modeling_mine.M"})

    (tmp_path / "folder").mkdir()
    line = refused(classifier(trusting), tmp_path / "folder")
    assert "--trust-remote-code" in line


EMBEDDERS = {
    "a class elsewhere": ("modules.json", 0, "modeling_mine.M"),
    "a class of the standard library": ("modules.json", 1, "subprocess.Popen"),
}


@pytest.mark.parametrize("what", EMBEDDERS)
def test_modules_of_embedders(tmp_path, what):
    folder = write_embedder(tmp_path / "embedder")
    name, place, kind = EMBEDDERS[what]
    modules = json.loads((folder / name).read_text())
    modules[place]["type"] = kind
    (folder / name).write_text(json.dumps(modules))
    code = f"import os\nos.mkdir(os.environ[{attacks.MARKER!r}])\n"
    (folder / "modeling_mine.py").write_text(code)
    line = refused(load_embedder, {"path": str(folder), "device": "cpu"})
    assert "is code from elsewhere, which is never run" in line


def test_modules_outside_of_the_folder(tmp_path):
    folder = write_embedder(tmp_path / "embedder")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    line = refused(load_embedder, {"path": str(folder), "device": "cpu"})
    assert "outside of the folder" in line


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, bert) -> tuple[Path, Path]:
    """A toy dataset, and the folder of a training that was stopped half-way."""
    folder = tmp_path_factory.mktemp("training")
    data = finetuning.write_toy(folder / "toy")

    class Stopped(Exception):
        pass

    def seal(self, step, record):
        whole(self, step, record)
        raise Stopped

    whole = Checkpoints.seal
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Checkpoints, "seal", seal)
        finetuning.run(data, bert, folder / "run", epochs=2)
    return data, folder / "run"


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_checkpoints_of_a_training(tmp_path, bert, stopped, file):
    """transformers writes them, and reads what lies there when the training goes on."""
    data, whole = stopped
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (checkpoint,) = (folder / "state").glob("checkpoint-*")
    FORMATS["torch zip"](checkpoint / file)
    # Whoever puts the file there can write down what is known of it, which tells damage only.
    record = json.loads((checkpoint / "record.json").read_text())
    content = (checkpoint / file).read_bytes()
    record["files"][file] = {"bytes": len(content), "crc32": f"{zlib.crc32(content):08x}"}
    (checkpoint / "record.json").write_text(json.dumps(record))
    line = refused(lambda: finetuning.run(data, bert, folder, epochs=2))
    assert str(checkpoint) in line and f"delete {folder / 'state'} and run" in line
