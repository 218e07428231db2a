"""Comparing `probeline predict` with the predictions that the workflow stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import snake
from job_client import client

from probeline.results.predictions import Predictions, read_predictions


def stored(folder: Path, dataset: str, task: str, model: str) -> Predictions:
    """Return the stored predictions of the selected classifier."""
    return read_predictions(folder / f"results/predictions/{dataset}/{task}/{model}/stc.h5")


def predicted(
    folder: Path,
    dataset: str,
    task: str,
    model: str,
    split: str = "test",
    server: str | None = None,
) -> tuple[list[dict], np.ndarray]:
    """Classify the texts of a split at the command line, also those of no label at a level.

    Returns
    -------
    answers : list of dict
    logits : ndarray
        What the workflow stored for the same texts.
    """
    kept = stored(folder, dataset, task, model)
    table = pq.read_table(folder / f"results/datasets/{dataset}/texts.parquet")
    columns = [name for name in ("text", "text_pair") if name in table.column_names]
    chosen = table.select(columns).take(kept.rows[kept.split == split]).to_pylist()
    source = folder / f"{dataset}-{task}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    classifier = folder / f"results/classifiers/{dataset}/{task}/{model}"
    python = client(server) if server else [sys.executable]
    line = [*python, "-m", "probeline.cli", "predict", "--classifier", classifier]
    line += ["--input", source, "--text-column", ",".join(columns), "--device", "cpu"]
    done = subprocess.run(
        line,
        cwd="/",
        env=snake.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(chosen)
    return answers, kept.logits[kept.split == split]


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def scores(answers: list[dict], labels: list[str]) -> np.ndarray:
    """Return the answers' scores, a row per text, in the order of `labels`."""
    return np.array([[answer["scores"][label] for label in labels] for answer in answers])
