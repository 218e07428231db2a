"""The extraction stage: one forward pass over a dataset, every layer into its shard."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from probeline import versions
from probeline.activations.ahead import ahead
from probeline.activations.batching import Batch, Tokens, padded, tokenize
from probeline.activations.block import Block
from probeline.activations.hooks import Key
from probeline.activations.join import write_lengths
from probeline.activations.names import check_layers, parse_name, shard_names
from probeline.activations.parts import Part
from probeline.activations.passes import Passes
from probeline.activations.progress import Progress
from probeline.activations.shards import STORAGE
from probeline.activations.state import State, settings_hash
from probeline.activations.texts import blocks_of_texts
from probeline.activations.tokens import token_summary
from probeline.data.store import Texts, read_texts
from probeline.errors import ProbelineError, one_of
from probeline.files import write_json
from probeline.models.load import LoadedModel, load_model
from probeline.models.weights import files_hash

logger = logging.getLogger(__name__)

# The pooled values of a block are held in memory until they are written, those of the next beside
# them: blocks of wide models are smaller than `block_texts` so that twice this much is enough.
BLOCK_BYTES = 256 << 20
_SPARE_BYTES = 1 << 20  # headers, journal, JSON files


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that `folder`, or its nearest existing parent, is on."""
    return shutil.disk_usage(_existing(folder)).free


def _disk(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


@dataclass(frozen=True)
class Plan:
    """What one extraction writes.

    Attributes
    ----------
    widths : dict of str to int
        Columns of each shard, by file name, in the order of `shard_names`.
    poolings : list of str
    keys : list of (representation, layer)
        What the forward pass must show.
    storage_dtype : str
    rows : int
    block : int
        Rows per block.
    first : int
        The dataset's row that is row 0 of the shards; beyond 0 in a part of them only.
    """

    widths: dict[str, int]
    poolings: list[str]
    keys: list[Key]
    storage_dtype: str
    rows: int
    block: int
    first: int = 0

    @property
    def itemsize(self) -> int:
        return np.dtype(self.storage_dtype).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all shards together."""
        return self.rows * sum(self.widths.values()) * self.itemsize

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(first row, row after the last) of each block, in rows of the dataset."""
        stop = self.first + self.rows
        return [
            (start, min(start + self.block, stop)) for start in range(self.first, stop, self.block)
        ]


def extract(
    dataset_folder: Path,
    model_name: str,
    model_spec: Mapping,
    options: Mapping,
    out_folder: Path,
    state_folder: Path,
    seed: int,
    free: Callable[[Path], int] = free_bytes,
    keep_state: bool = False,
    part: Part | None = None,
) -> None:
    """Write every shard of one model over one dataset, `tokens.json` and `timing.json`.

    One forward pass over the texts yields all these layers, representations and poolings. Memory
    does not grow with the number of texts. Work goes on in `state_folder`; interrupted, the same
    call goes on at the last complete block and yields the same bits.

    A part of an extraction writes some of the blocks, into shards of its own: the same bits as
    those rows have in an extraction without parts. `join_parts` makes them one.

    Parameters
    ----------
    dataset_folder : Path
        A dataset written by the dataset stage.
    model_name, model_spec : str, mapping
        Name and content of an entry of `models:`.
    options : mapping
        `representations`, `poolings`, `storage_dtype`, `block_texts`, and `layers` ("all", the
        default, or numbers): the section `extract:`. Blocks above the last layer are not computed.
    out_folder, state_folder : Path
    seed : int
        Seeds torch; nothing random is left in a frozen body, code from a hub may differ.
    free : callable
        Free bytes of the disk a folder is on.
    keep_state : bool
        Leave `state_folder`, for a caller whose results may yet be deleted: the same call then
        brings them back. Shards in both folders take no more room than in one.
    part : Part, optional
        Which share of the blocks to write. Instead of `tokens.json` there is `lengths.npy`.

    Raises
    ------
    ProbelineError
        If the model or a setting is wrong, the disk too small (before the first batch), an
        activation NaN or infinite, or too large for float16; with row and layer.
    """
    began = time.perf_counter()
    dataset = read_texts(dataset_folder)
    torch.manual_seed(seed)
    decoder = any(name.startswith("decoder-") for name in options["representations"])
    model = load_model(model_spec, decoder=decoder)
    plan = make_plan(model, options, dataset.rows, part)
    settings = _settings(model, model_name, dataset, plan, seed)
    if part is not None:
        settings |= _part_settings(settings, part, plan, dataset.rows)
    metas = {name: _attributes(settings, name) for name in plan.widths}
    state = State(
        Path(state_folder),
        settings,
        plan.widths,
        plan.rows,
        plan.storage_dtype,
        metas,
        Path(out_folder),
        plan.block,
    )
    _check_disk(plan, state, model_name, free)
    resumed = len(state.done)
    if resumed:
        logger.info("%s: going on after block %d of %d", model_name, resumed, len(plan.blocks))
    _run_blocks(model, dataset, plan, state)
    lengths = state.lengths()
    out_folder = Path(out_folder)
    state.finish()
    if part is None:
        summary = token_summary(lengths, dataset.offsets, model.max_length)
        write_json(out_folder / "tokens.json", summary)
    else:
        write_lengths(out_folder, lengths)
    write_json(
        out_folder / "timing.json",
        _timing(model, plan, state, resumed, time.perf_counter() - began),
    )
    state.close() if keep_state else state.remove()


def make_plan(model: LoadedModel, options: Mapping, rows: int, part: Part | None = None) -> Plan:
    """Decide shards and blocks for `rows` texts, or one part of them, under the section `extract:`.

    Blocks are the same with parts and without, so batches are too.
    """
    if options["storage_dtype"] not in STORAGE:
        raise ProbelineError(f"storage_dtype {one_of(options['storage_dtype'], STORAGE)}")
    representations, layers = options["representations"], options.get("layers", "all")
    check_layers(model.shape, representations, layers, "extract.layers")
    names = shard_names(model.shape, representations, options["poolings"], layers)
    if not names:
        raise ProbelineError("extract: needs at least one representation, pooling and layer")
    parsed = [parse_name(name) for name in names]
    widths = {
        name: model.shape.width(representation)
        for name, (representation, _, _) in zip(names, parsed, strict=True)
    }
    text_bytes = sum(widths.values()) * np.dtype(options["storage_dtype"]).itemsize
    block = min(int(options["block_texts"]), max(1, BLOCK_BYTES // text_bytes))
    first, stop = (part or Part(1, 1)).rows(rows, block)
    return Plan(
        widths=widths,
        poolings=list(dict.fromkeys(pooling for _, pooling, _ in parsed)),
        keys=list(dict.fromkeys((representation, layer) for representation, _, layer in parsed)),
        storage_dtype=options["storage_dtype"],
        rows=stop - first,
        block=block,
        first=first,
    )


def _run_blocks(model: LoadedModel, dataset: Texts, plan: Plan, state: State) -> None:
    """Compute and write the blocks that the state does not have yet."""
    ranges = plan.blocks
    first = len(state.done)
    if first == len(ranges):
        return
    block = Block(model.path, plan, model.dtype)
    progress = Progress(model.path, plan.rows, done=ranges[first][0] - plan.first)
    with state, progress, Passes(model, plan.keys, block.collector) as passes:
        began = time.perf_counter()
        stream = ahead(_tokenized(model, dataset, ranges[first:]))
        groups = _begun(model, state, block, enumerate(stream, start=first))
        for group, batches in passes.run(groups):
            count = 0
            for batch in batches:
                progress.step(len(batch.rows))
                count += 1
            parts = block.parts(group.place)
            seconds, began = time.perf_counter() - began, time.perf_counter()
            entry = {
                "block": group.number,
                "texts": group.stop - group.start,
                "tokens": int(group.tokens.lengths.sum()),
                "batches": count,
                "seconds": round(seconds, 4),
            }
            state.save(group.start - plan.first, parts, group.tokens.before, entry)


@dataclass(frozen=True)
class _Begun:
    """A block under way: its texts, and where its values are among those of two blocks."""

    number: int
    start: int
    stop: int
    tokens: Tokens
    place: slice


def _begun(
    model: LoadedModel,
    state: State,
    block: Block,
    stream: Iterable[tuple[int, tuple[int, int, Tokens]]],
) -> Iterator[tuple[_Begun, Iterator[Batch]]]:
    for number, (start, stop, tokens) in stream:
        # The values of the block before the last one lie where this block's will.
        state.settle(number - 2)
        place = block.begin(start, stop)
        yield _Begun(number, start, stop, tokens, place), padded(model, tokens, first=place.start)


def _tokenized(
    model: LoadedModel, dataset: Texts, ranges: list[tuple[int, int]]
) -> Iterator[tuple[int, int, Tokens]]:
    for start, stop, texts, pairs in blocks_of_texts(dataset.folder, dataset.pair, ranges):
        yield start, stop, tokenize(model, texts, pairs, row=start)


def _check_disk(plan: Plan, state: State, model_name: str, free: Callable[[Path], int]) -> None:
    """Refuse to begin where a disk has no room for what is yet to be written to it."""
    logger.info(
        "%s: %d texts into %d shards, %s; %s free",
        model_name,
        plan.rows,
        len(plan.widths),
        _size(plan.bytes),
        _size(free(state.folder)),
    )
    _check_room(state.folder, state.bytes_to_write(), plan, free)
    if _disk(state.folder) != _disk(state.target):
        _check_room(state.target, state.bytes_to_copy(), plan, free)


def _check_room(folder: Path, count: int, plan: Plan, free: Callable[[Path], int]) -> None:
    needed, available = count + _SPARE_BYTES, free(folder)
    if needed > available:
        raise ProbelineError(
            f"{folder}: its {len(plan.widths)} shards need {_size(needed)} more, the disk "
            f"has {_size(available)} free; free some, store fewer layers, poolings or "
            "representations, or use storage_dtype: float16"
        )


def _settings(model: LoadedModel, model_name: str, dataset: Texts, plan: Plan, seed: int) -> dict:
    """Everything that decides the bits of the shards; JSON-like."""
    return {
        "stage_version": versions.EXTRACT,
        "shard_format": versions.SHARD_FORMAT,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "model_name": model_name,
        "model": model.path,
        "revision": model.revision,
        "model_config": files_hash([model.source.folder / "config.json"]),
        "tokenizer_hash": model.tokenizer_hash,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "offsets": {name: list(ends) for name, ends in dataset.offsets.items()},
        "max_length": model.max_length,
        "dtype": model.dtype_name,
        "device": model.device.type,
        "batch_tokens": model.batch_tokens,
        "block_texts": plan.block,
        "storage_dtype": plan.storage_dtype,
        "shards": list(plan.widths),
        # Of a frozen body nothing else can be random.
        **({**model.own_code, "seed": seed} if model.own_code else {}),
    }


def _part_settings(settings: Mapping, part: Part, plan: Plan, rows: int) -> dict:
    """What tells a part from the others, and by what they know each other."""
    if not plan.rows:
        logger.warning(
            "part %d of %d has no texts: %d texts are %d blocks; fewer parts will do",
            part.number,
            part.parts,
            rows,
            -(-rows // plan.block),
        )
    return {
        "part": part.number,
        "parts": part.parts,
        "start": plan.first,
        "stop": plan.first + plan.rows,
        "total_rows": rows,
        "whole": settings_hash(settings),
    }


def _attributes(settings: Mapping, name: str) -> dict:
    """Attributes of the shard `name`."""
    representation, pooling, layer = parse_name(name)
    left_out = ("shards", "model_config", "shard_format", "block_texts", "batch_tokens")
    return {
        **{key: value for key, value in settings.items() if key not in left_out},
        "representation": representation,
        "pooling": pooling,
        "layer": layer,
    }


def _timing(model: LoadedModel, plan: Plan, state: State, resumed: int, seconds: float) -> dict:
    new = state.done[resumed:]
    spent = sum(entry["seconds"] for entry in new)
    texts = sum(entry["texts"] for entry in new)
    return {
        "seconds": round(seconds, 3),
        "extraction_seconds": round(sum(entry["seconds"] for entry in state.done), 3),
        "texts": plan.rows,
        "tokens": sum(entry["tokens"] for entry in state.done),
        "texts_per_second": round(texts / spent, 2) if spent else None,
        "blocks": len(state.done),
        "resumed_blocks": resumed,
        "batches": sum(entry["batches"] for entry in new),
        "bytes": plan.bytes,
        "device": model.device.type,
        "dtype": model.dtype_name,
        "threads": torch.get_num_threads(),
    }


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
