"""The state of an extraction that is under way: unfinished shards and a journal of blocks.

    settings.json    what is being extracted; written last when a state is begun
    shards/*.h5      the shards to be, with room for every row, marked incomplete
    lengths.i32      tokens of each text before truncation, int32
    journal.jsonl    one line per complete block, written when its rows are on the disk

Killed at any moment, an extraction loses the blocks under way, three at most (on a CPU two may be
computed, and one be written): rows of blocks that the journal does not name are written again. A
state about other settings is thrown away, and so is one with a finished shard that is damaged: such
a shard is also what stands in the target folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from probeline.activations.shards import REMEDY, ShardWriter, open_part, open_shard
from probeline.errors import ProbelineError
from probeline.files import explained, read_json, replacing, write_json
from probeline.sealed import is_unfinished, understood

logger = logging.getLogger(__name__)

# What systems say where a file cannot have a second name, or not there.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def settings_hash(settings: Mapping) -> str:
    """16 hexadecimal digits that change with anything in `settings` (JSON-like)."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class State:
    """An extraction's state folder, new or taken up again.

    Parameters
    ----------
    folder : Path
    settings : mapping
        JSON-like description of everything that decides what is written.
    widths : mapping of str to int
        Columns of each shard, by file name.
    rows : int
    storage_dtype : {"float16", "float32"}
    metas : mapping of str to mapping
        Attributes of each shard, by file name.
    target : Path
        Folder where finished shards go.
    block : int
        Rows of a block.

    Attributes
    ----------
    done : list of dict
        The journal: one entry per complete block, blocks 0, 1, ... in order.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping,
        widths: Mapping[str, int],
        rows: int,
        storage_dtype: str,
        metas: Mapping[str, Mapping],
        target: Path,
        block: int,
    ):
        self.folder = folder
        self.target = target
        self.hash = settings_hash(settings)
        self._opener = open_part if "part" in settings else open_shard
        self.names = list(widths)
        self._journal = folder / "journal.jsonl"
        self._lengths = folder / "lengths.i32"
        self._writers: dict[str, ShardWriter] = {}
        self._finished: list[str] = []
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: tuple[int, Future] | None = None
        if not self._resume(settings, -(-rows // block)):
            self._writers.clear()
            self._finished.clear()
            self._begin(settings, widths, rows, storage_dtype, metas, block)
        self.done = self._read_journal()

    def __enter__(self) -> State:
        return self

    def __exit__(self, kind, first, _) -> None:
        """Wait for the disk, also after an error: what was computed is kept."""
        try:
            self.settle()
        except Exception as error:
            # The first error is the one to mend.
            if kind is None:
                raise
            if error is not first:
                logger.warning("the last block was not written: %s", error)

    def save(
        self, start: int, blocks: Mapping[str, np.ndarray], lengths: np.ndarray, entry: Mapping
    ) -> None:
        """Write the rows of one block, beginning at row `start`, and note it as complete as soon as
        they are on the disk.

        That is done in a thread while the next block is computed; at most one is under way, so
        `blocks` must stay as they are until the next `save` or `settle` has returned.
        """
        self.settle()
        saving = self._thread.submit(self._save, start, blocks, lengths, dict(entry))
        self._pending = entry["block"], saving

    def settle(self, block: int | None = None) -> None:
        """Wait for the block that is on its way to the disk; its error, if any, is raised here and
        whenever this is asked again.

        Parameters
        ----------
        block : int, optional
            Wait only if it is this one or one before.
        """
        if self._pending is not None and (block is None or self._pending[0] <= block):
            self._pending[1].result()
            self._pending = None

    def _save(self, start: int, blocks, lengths: np.ndarray, entry: dict) -> None:
        for name, values in blocks.items():
            self._writers[name].write(start, values)
        with explained(self._lengths), self._lengths.open("r+b") as handle:
            handle.seek(4 * start)
            handle.write(lengths.astype("<i4").tobytes())
        for writer in self._writers.values():
            writer.sync()
        _sync(self._lengths)
        with explained(self._journal), self._journal.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")
        _sync(self._journal)
        self.done.append(entry)

    def lengths(self) -> np.ndarray:
        """Tokens of every text before truncation: int32, shape (rows,)."""
        return np.fromfile(self._lengths, dtype="<i4")

    def bytes_to_write(self) -> int:
        """Bytes that unfinished shards will take on the disk beside those they take already."""
        stats = [self._path(name).stat() for name in self._writers]
        return sum(max(0, s.st_size - 512 * getattr(s, "st_blocks", 0)) for s in stats)

    def bytes_to_copy(self) -> int:
        """Bytes that shards will take in a target folder on another disk beside those of the files
        there that they replace."""
        names = (*self._writers, *self._finished)
        there = [path for name in names if (path := self.target / name).is_file()]
        new = sum(self._path(name).stat().st_size for name in names)
        return new - sum(path.stat().st_size for path in there)

    def finish(self) -> None:
        """Mark every shard complete, then put all of them into the target folder."""
        self.settle()
        for writer in self._writers.values():
            writer.finish()
        paths = [self._path(name) for name in (*self._writers, *self._finished)]
        copied = [path for path in paths if _place(path, self.target / path.name)]
        # Not one by one: what was killed between two of them would have lost those before.
        for path in copied:
            path.unlink()

    def close(self) -> None:
        """Leave the state folder to be taken up again."""
        self._thread.shutdown()

    def remove(self) -> None:
        """Delete the state folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / "shards" / name

    def _resume(self, settings: Mapping, blocks: int) -> bool:
        """Take up what is in the folder if it is about `settings` and whole."""
        try:
            known = read_json(self.folder / "settings.json")
        except ProbelineError:
            return False
        if known != json.loads(json.dumps(settings)):
            changed = sorted(
                key for key in {*known, *settings} if known.get(key) != settings.get(key)
            )
            logger.info("earlier partial extraction is about other %s", ", ".join(changed))
            return False
        try:
            for name in self.names:
                self._take_up(name)
            done = len(self._read_journal())
            if len(self._writers) < len(self.names) and done < blocks:
                raise ProbelineError(
                    f"{self._journal}: names {done} of {blocks} blocks of finished shards"
                )
        except (ProbelineError, OSError) as error:
            logger.warning("earlier partial extraction cannot be continued: %s", error)
            return False
        return True

    def _take_up(self, name: str) -> None:
        path = self._path(name)
        if not path.exists():
            # A run killed while it moved finished shards has left some at their place.
            self._check_finished(self.target / name)
        elif is_unfinished(path):
            with understood(path, "an unfinished shard", REMEDY):
                self._writers[name] = ShardWriter(path)
        else:
            self._check_finished(path)
            self._finished.append(name)

    def _check_finished(self, path: Path) -> None:
        """Read all of a shard: to finish it again would hide what has happened to it since."""
        with self._opener(path, {"extraction": self.hash}) as shard:
            shard.check()

    def _begin(self, settings, widths, rows, storage_dtype, metas, block) -> None:
        with explained(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            (self.folder / "shards").mkdir(parents=True)
            np.zeros(rows, dtype="<i4").tofile(self._lengths)
        for name, width in widths.items():
            meta = {**metas[name], "extraction": self.hash}
            path = self._path(name)
            self._writers[name] = ShardWriter.create(path, rows, width, storage_dtype, meta, block)
        write_json(self.folder / "settings.json", settings)

    def _read_journal(self) -> list[dict]:
        entries: list[dict] = []
        try:
            lines = self._journal.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return entries
        whole = 0
        for line in lines:
            try:
                entry = json.loads(line) if line.endswith("\n") else None
            except (ValueError, RecursionError):
                entry = None
            if not isinstance(entry, dict) or entry.get("block") != len(entries):
                break  # the line that was being written when the process was killed
            entries.append(entry)
            whole += len(line.encode())
        os.truncate(self._journal, whole)
        return entries


def _sync(path: Path) -> None:
    with explained(path), path.open("rb") as handle:
        os.fsync(handle.fileno())


def _place(source: Path, target: Path) -> bool:
    """Give `source` the name `target`, too; move it where a file can have one name only.

    Returns
    -------
    bool
        Whether `target` is a copy on another disk; then `source` is still there.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.unlink(missing_ok=True)
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if source.parent.stat().st_dev != target.parent.stat().st_dev:
                _copy(source, target)
                return True
            _move(source, target)
    return False


def _move(source: Path, target: Path) -> None:
    """Rename `source` to `target`; between mounts of one disk, which has no room twice, copy it."""
    try:
        source.replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    _copy(source, target)
    source.unlink()


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
