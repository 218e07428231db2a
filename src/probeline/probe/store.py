"""Probes on disk: HDF5, one file per shard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields

import h5py
import numpy as np

from probeline.errors import ProbelineError
from probeline.probe.matrix import Scaler
from probeline.probe.path import Step
from probeline.probe.train import Probe
from probeline.sealed import reading, sealing

PROBE_FORMAT = 1


def write_probe(path: str | os.PathLike, probe: Probe, meta: Mapping) -> None:
    """Write a probe whole or not at all.

    Datasets: coefficients (p, K) and intercept (K,) in scaled space, mean, scale and kept (p,),
    and in group `path` one array per field of `Step`. Attributes: `meta` (plain values; lists as
    JSON text), chosen, validation_score, test_score, converged, gap, format, complete.
    """
    with sealing(path) as file:
        file["coefficients"] = probe.coefficients
        file["intercept"] = probe.intercept
        file["mean"], file["scale"] = probe.scaler.mean, probe.scaler.scale
        file["kept"] = probe.scaler.kept
        rows = [asdict(step) for step in probe.steps]
        for field in fields(Step):
            values = [row[field.name] for row in rows]
            if field.name == "class_weight":
                values = [value or "none" for value in values]
            file[f"path/{field.name}"] = values
        for key, value in meta.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, list | dict) else value
        file.attrs.update(
            format=PROBE_FORMAT,
            chosen=probe.chosen,
            validation_score=probe.validation_score,
            test_score=probe.test_score,
            converged=probe.step.converged,
            gap=probe.step.gap,
            complete=True,
        )


def read_probe(path: str | os.PathLike) -> tuple[Probe, dict]:
    """Read a probe and its attributes.

    Raises
    ------
    ProbelineError
        If the file is missing, damaged, of another format or not a probe.
    """
    try:
        with reading(path, "a readable probe") as file:
            meta = {key: _plain(value) for key, value in file.attrs.items()}
            if not meta.get("complete") or meta.get("format") != PROBE_FORMAT:
                raise ProbelineError(f"{path}: not a complete probe of this version; delete it")
            scaler = Scaler(file["mean"][:], file["scale"][:], file["kept"][:])
            steps = _read_steps(file["path"])
            probe = Probe(
                file["coefficients"][:],
                file["intercept"][:],
                scaler,
                steps,
                int(meta["chosen"]),
                float(meta["validation_score"]),
                float(meta["test_score"]),
            )
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such probe; run the probe stage first") from None
    return probe, meta


def _read_steps(group: h5py.Group) -> list[Step]:
    columns = {field.name: group[field.name][:].tolist() for field in fields(Step)}
    columns["class_weight"] = [
        None if value == b"none" else value.decode() for value in columns["class_weight"]
    ]
    return [
        Step(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str) and value[:1] in "[{":
        return json.loads(value)
    return value
