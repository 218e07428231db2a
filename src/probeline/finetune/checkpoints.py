"""The state of a training run that is under way.

    settings.json       what is being trained; written last when a state is begun
    checkpoint-{step}/  weights.safetensors (what is trained), optimizer, schedule and random
                        generators as transformers writes them, record.json

record.json is written last, when all else is on the disk, and lists size and CRC-32 of the other
files: a checkpoint without it, or whose files differ from it, was being written when the process
was killed, or has been damaged since, and is skipped. A state about other settings is thrown away.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from probeline.activations.state import settings_hash
from probeline.errors import ProbelineError
from probeline.files import explained, read_json, write_json
from probeline.finetune.record import Record

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
_RECORD = "record.json"
_CHUNK = 1 << 20


class Checkpoints:
    """A state folder, new or taken up again.

    Parameters
    ----------
    folder : Path
    settings : mapping
        JSON-like description of everything that decides the weights.
    """

    def __init__(self, folder: Path, settings: Mapping):
        self.folder = Path(folder)
        if not self._same(settings):
            with explained(self.folder):
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                self.folder.mkdir(parents=True)
            write_json(self.folder / "settings.json", dict(settings))

    def _same(self, settings: Mapping) -> bool:
        try:
            known = read_json(self.folder / "settings.json")
        except ProbelineError:
            return False
        if settings_hash(known) == settings_hash(settings):
            return True
        changed = sorted(key for key in {*known, *settings} if known.get(key) != settings.get(key))
        logger.info("earlier partial training is about other %s", ", ".join(changed))
        return False

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def last(self) -> tuple[int, Record] | None:
        """Step and record of the last complete checkpoint; those that are not are deleted."""
        found = {step: _read(self.path(step)) for step in sorted(self._steps())}
        for step, record in found.items():
            # Its best step is it or one before.
            best = step if record is None else record.best_step
            if best is not None and found.get(best) is None:
                logger.info("%s is not complete; skipped", self.path(step))
                shutil.rmtree(self.path(step), ignore_errors=True)
                found[step] = None
        return next(((step, found[step]) for step in reversed(found) if found[step]), None)

    def seal(self, step: int, record: Record) -> None:
        """Mark a checkpoint complete, then delete all but it and the best."""
        folder = self.path(step)
        with explained(folder):
            files = sorted(path for path in folder.iterdir() if path.is_file())
            for path in files:
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
        write_json(folder / _RECORD, _sealed(record, files))
        for other in self._steps() - {step, record.best_step}:
            shutil.rmtree(self.path(other), ignore_errors=True)

    def reduce(self) -> None:
        """Delete what only a training that goes on needs: all but the weights and the records."""
        for step in self._steps():
            folder = self.path(step)
            record = _read(folder)
            if record is None:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            # Before the others go: with one of them missing it would not be complete.
            write_json(folder / _RECORD, _sealed(record, [folder / WEIGHTS]))
            for path in folder.iterdir():
                if path.name not in (WEIGHTS, _RECORD):
                    path.unlink()

    def remove(self) -> None:
        """Delete the state folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> set[int]:
        names = (path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*"))
        return {int(name) for name in names if name.isdigit()}


def _sealed(record: Record, files: Iterable[Path]) -> dict:
    return {"record": record.plain(), "files": {path.name: _content(path) for path in files}}


def _content(path: Path) -> dict:
    size, crc = 0, 0
    with path.open("rb", buffering=0) as handle:
        while chunk := handle.read(_CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return {"bytes": size, "crc32": f"{crc:08x}"}


def _read(folder: Path) -> Record | None:
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        for name, written in found["files"].items():
            if _content(folder / name) != written:
                return None
        return Record(**found["record"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_trained(model: torch.nn.Module, path: Path) -> None:
    """Write the weights that are trained, by name. Frozen ones are in the model they came from."""
    tensors = {
        name: weight.detach().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    save_file(tensors, path)


def load_trained(model: torch.nn.Module, path: Path) -> None:
    """Put back, bit by bit, what `save_trained` wrote."""
    stored = load_file(path)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if set(stored) != set(trained):
        raise ProbelineError(f"{path}: of another model; delete {path.parent.parent}")
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(stored[name])
