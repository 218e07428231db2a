"""Peak memory, in processes of their own, does not grow with the number of texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import trained
from tiny_datasets import write_texts
from tiny_models import SENTENCES, build

from probeline.activations.extract import make_plan
from probeline.models.load import load_model

ROOT = Path(__file__).resolve().parents[2]
# The few fill the largest batch there is already.
FEW, MANY = 4_096, 20_000

EXTRACT = """
import json, sys
from pathlib import Path
from benchmarks.peak import own_peak
from probeline.activations.extract import extract
data, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
extract(data, "m", settings["spec"], settings["options"], out / "shards", out / "state", seed=0)
print(own_peak(), file=sys.stderr)
"""

PREDICT = """
import sys
from benchmarks.peak import own_peak
from probeline.cli import app
app(sys.argv[1:], standalone_mode=False)
print(own_peak(), file=sys.stderr)
"""


def peak(code: str, *arguments: str | Path) -> int:
    """Bytes at the peak of a program, whose last line of stderr says so; its output is dropped."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def sentences(count: int) -> list[str]:
    return [SENTENCES[number % len(SENTENCES)] for number in range(count)]


@pytest.mark.skipif(sys.platform != "linux", reason="a process's own peak is read from /proc")
def test_extraction(tmp_path):
    """The activations of more texts would show: they are held nowhere but on disk."""
    spec = {"path": str(build("bert", tmp_path / "model")), "dtype": "float32", "device": "cpu"}
    spec |= {"max_length": 16, "batch_tokens": 2048}
    options = {
        "representations": ["ffn", "hidden"],
        "poolings": ["first", "last", "max", "mean"],
        "storage_dtype": "float32",
        "block_texts": 128,
    }
    peaks = {}
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        data = write_texts(folder, sentences(count))
        settings = json.dumps({"spec": spec, "options": options})
        peaks[count] = peak(EXTRACT, data, folder / "out", settings)
    held = make_plan(load_model(spec), options, MANY - FEW).bytes
    assert peaks[MANY] - peaks[FEW] < held / 8


@pytest.mark.skipif(sys.platform != "linux", reason="a process's own peak is read from /proc")
def test_prediction(tmp_path, tmp_path_factory):
    """Answers are written while texts are read: neither all of the ones nor the others are held."""
    classifier = trained("multiclass", tmp_path_factory).classifier
    peaks = {}
    for count in (FEW, MANY):
        path = tmp_path / f"{count}.txt"
        path.write_text("".join(f"{text}\n" for text in sentences(count)), encoding="utf-8")
        peaks[count] = peak(PREDICT, "predict", "--classifier", classifier, "--input", path)
    # Measured: less than 1 MB; 16 MB where all answers are made before the first is written.
    assert peaks[MANY] - peaks[FEW] < 5_000_000
