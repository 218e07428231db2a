"""Damage files at random, and read them. Run as a program: what is read may kill the process."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from probeline.errors import ProbelineError

SECONDS = 20


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """Cut `whole`, or change one to sixteen of its bytes or bits."""
    if rng.random() < 0.2:
        return whole[: rng.randrange(len(whole))]
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        place = rng.randrange(len(data))
        data[place] = rng.choice([0, 255, rng.randrange(256), data[place] ^ 1 << rng.randrange(8)])
    return bytes(data) if data != whole else damaged(rng, whole)


def refused_or_whole(path: Path, read: Callable, same: Callable, times: int, seed: int) -> int:
    """Damage and read the file so often; returns how often it was refused.

    Each time it must be refused in one line, or what is read must be `same` as before, in seconds.
    """
    whole, truth, rng = path.read_bytes(), read(path), random.Random(seed)
    refusals = 0
    for number in range(times):
        path.write_bytes(damaged(rng, whole))
        signal.alarm(SECONDS)
        try:
            assert same(read(path), truth), f"{path.name}: damage {number} was read as if whole"
        except ProbelineError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refusals += 1
        finally:
            signal.alarm(0)
    path.write_bytes(whole)
    return refusals


def _shard(folder: Path):
    from test_shards import META, values

    from probeline.activations.shards import open_shard, write_shard

    path = folder / "hidden.mean.03.h5"
    write_shard(path, values(40, 5), META)

    def read(path: Path):
        with open_shard(path) as shard:
            return shard.meta, shard.read()

    return path, read, equal


def _predictions(folder: Path):
    from test_predictions import META, some_task

    from probeline.results.predictions import read_predictions, write_predictions

    write_predictions(folder / "stc.h5", *some_task("multiclass"), META)
    return folder / "stc.h5", read_predictions, equal


def _crossfit(folder: Path):
    from labelled_texts import labelled

    from probeline.data.store import read_dataset
    from probeline.lrsl.crossfit import read_crossfit, write_crossfit
    from probeline.probe.task import task_data

    dataset = read_dataset(labelled(folder / "data"))
    task = task_data(dataset, "label")
    fold = (np.arange(24) % 5).astype(np.int8)
    logits = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    path = folder / "crossfit.h5"
    write_crossfit(path, dataset, task, fold, logits, {"source": "stc"})
    return path, lambda path: read_crossfit(path, dataset, task), equal


def _probe(folder: Path):
    from problems import split_problem
    from small_project import PROBE

    from probeline.probe.store import read_probe, write_probe
    from probeline.probe.train import train_probe

    X, task = split_problem()
    probe = train_probe(X, task, PROBE | {"class_weight": [None, "balanced"]})
    write_probe(folder / "probe.h5", probe, {"model": "tiny", "labels": ["ä, [b]", "c"]})
    return folder / "probe.h5", read_probe, equal


def equal(found: object, truth: object) -> bool:
    if isinstance(truth, np.ndarray):
        return found.dtype == truth.dtype and np.array_equal(found, truth)
    if isinstance(truth, tuple | list):
        return len(found) == len(truth) and all(map(equal, found, truth))
    if hasattr(truth, "__dataclass_fields__"):
        return equal(list(vars(found).values()), list(vars(truth).values()))
    return type(found) is type(truth) and found == truth


KINDS = {"shard": _shard, "predictions": _predictions, "crossfit": _crossfit, "probe": _probe}


def main(kind: str, folder: str, times: str, seed: str) -> None:
    h5py.get_config()  # loaded before the clock runs
    print(refused_or_whole(*KINDS[kind](Path(folder)), int(times), int(seed)))


if __name__ == "__main__":
    main(*sys.argv[1:])
