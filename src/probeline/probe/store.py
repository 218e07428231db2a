"""Probes on disk: HDF5, one file per shard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields

import h5py

from probeline import hdf5
from probeline.errors import ProbelineError
from probeline.probe.matrix import Scaler
from probeline.probe.path import Step
from probeline.probe.train import Probe
from probeline.sealed import reading, sealing

PROBE_FORMAT = 1
_SCALER = ("mean", "scale", "kept")


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
        hdf5.put_attributes(file, meta)
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
            meta = {key: _plain(value) for key, value in hdf5.attributes(file).items()}
            if not meta.get("complete") or meta.get("format") != PROBE_FORMAT:
                raise ProbelineError(f"{path}: not a complete probe of this version; delete it")
            probe = Probe(
                hdf5.dataset(file, "coefficients", "f", 2)[:],
                hdf5.dataset(file, "intercept", "f", 1)[:],
                Scaler(*(hdf5.dataset(file, name, "fb", 1)[:] for name in _SCALER)),
                _read_steps(file),
                int(meta["chosen"]),
                float(meta["validation_score"]),
                float(meta["test_score"]),
            )
            _check_shapes(probe)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such probe; run the probe stage first") from None
    return probe, meta


def _check_shapes(probe: Probe) -> None:
    p, classes = probe.coefficients.shape
    if probe.intercept.shape != (classes,):
        raise ValueError(f"{classes} columns of coefficients, intercept {probe.intercept.shape}")
    for name in _SCALER:
        if getattr(probe.scaler, name).shape != (p,):
            raise ValueError(f"{p} rows of coefficients, '{name}' has another length")
    if probe.scaler.kept.dtype != bool or not 0 <= probe.chosen < len(probe.steps):
        raise ValueError(f"'kept' is not boolean, or step {probe.chosen} is not there")


def _read_steps(file: h5py.File) -> list[Step]:
    columns = {}
    for field in fields(Step):
        kinds = "SO" if field.name == "class_weight" else "fib"
        column = hdf5.dataset(file, f"path/{field.name}", kinds, 1)
        columns[field.name] = hdf5.texts(column) if kinds == "SO" else column[:].tolist()
    columns["class_weight"] = [
        None if value == "none" else value for value in columns["class_weight"]
    ]
    return [
        Step(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]


def _plain(value):
    if isinstance(value, str) and value[:1] in "[{":
        return json.loads(value)
    return value
