"""The files of a model on disk: are they whole, and which exactly are they?

Light: no torch, transformers or safetensors, only headers and bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from probeline.errors import ProbelineError

_LARGEST_HEADER = 100_000_000  # the limit of the safetensors format itself

_SAMPLES, _SAMPLE_BYTES = 16, 4096

# Every file that decides what a tokenizer does, of any tokenizer class in transformers.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "bpe.codes",
)
_VOCABULARY_FILES = tuple(
    name
    for name in TOKENIZER_FILES
    if name not in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
)

# What sentence-transformers writes beside the transformer's own files.
MODULES = "modules.json"
EMBEDDER_FILES = (MODULES, "sentence_bert_config.json", "config_sentence_transformers.json")
_ROUTES = "router_config.json"
# Of modules whose settings are not in config.json.
_SETTINGS = (
    "*sentence*_config.json",
    "wordembedding_config.json",
    "*tokenizer_config.json",
    "cnn_config.json",
    "lstm_config.json",
    _ROUTES,
)


def model_files(folder: Path) -> list[Path]:
    """Return every file of `folder` that may decide what the model or its tokenizer computes."""
    names = {"config.json", *TOKENIZER_FILES}
    suffixes = (".safetensors", ".bin", ".index.json", ".py")
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and (path.name in names or path.name.endswith(suffixes))
    )


def code_files(folder: Path) -> list[Path]:
    """Return the Python files of a model's folder, which run where `trust_remote_code` is set."""
    return sorted(path for path in folder.glob("*.py") if path.is_file())


def embedder_modules(folder: Path) -> list[tuple[Path, str]]:
    """Return folder and class of each module of a sentence-transformers model, in order.

    Those that a Router leads to follow it. A plain transformer has none.

    Raises
    ------
    ProbelineError
        If what lists them cannot be read.
    """
    path = folder / MODULES
    if not path.is_file():
        return []
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        found = [(inside(folder, module["path"]), str(module["type"])) for module in listed]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProbelineError(f"{path}: not a list of modules") from None
    return [module for each in found for module in _with_routes(*each)]


def _with_routes(folder: Path, kind: str) -> list[tuple[Path, str]]:
    path, found = folder / _ROUTES, [(folder, kind)]
    if not path.is_file():
        return found
    try:
        types = json.loads(path.read_text(encoding="utf-8"))["types"].items()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ProbelineError(f"{path}: does not say which modules it leads to") from None
    for name, own in types:
        found += _with_routes(inside(folder, name), str(own))
    return found


def inside(folder: Path, name: str) -> Path:
    """The file or folder `name` of `folder`, as a file of the folder calls it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ProbelineError(
            f"{folder}: one of its files leads to '{name}', outside of the folder; such models are "
            "not read"
        )
    return folder / name


def embedder_files(folder: Path) -> list[Path]:
    """Return every file that decides what a sentence-transformers model, or a transformer, embeds.

    Of weights in two formats the one that is read.

    Raises
    ------
    ProbelineError
        As `embedder_modules`.
    """
    own = [folder / MODULES, folder / "config_sentence_transformers.json"]
    parts = dict.fromkeys([folder, *(part for part, _ in embedder_modules(folder))])
    # A module without settings, such as Normalize, has no folder in old copies.
    inside = [file for part in parts if part.is_dir() for file in _module_files(part)]
    # The order is part of the identity that a reranker's folder holds.
    return [file for file in (own[0], *inside, own[1]) if file.is_file()]


def _module_files(folder: Path) -> list[Path]:
    files = [file for file in model_files(folder) if file.name != "training_args.bin"]
    if any(file.suffix == ".safetensors" for file in files):
        files = [file for file in files if file.suffix != ".bin"]
    settings = [file for name in _SETTINGS for file in sorted(folder.glob(name))]
    return list(dict.fromkeys([*files, *settings]))


def weight_files(folder: Path, where: str) -> list[Path]:
    """Return the files that hold the weights, in the order transformers prefers; all of them whole.

    Raises
    ------
    ProbelineError
        If there are none, one that an index names is missing, or a safetensors file is shorter or
        longer than its header says (half-copied).
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            files = [folder / name]
        elif index.is_file():
            files = _indexed_files(index)
        else:
            continue
        for file in files:
            if file.suffix == ".safetensors":
                check_safetensors(file)
        return files
    if (folder / "adapter_model.safetensors").is_file():
        raise ProbelineError(
            f"{where}: holds only an adapter (adapter_model.safetensors); merge it into its base "
            "model and save that"
        )
    raise ProbelineError(
        f"{where}: no weights: {folder} has neither model.safetensors nor pytorch_model.bin"
    )


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's length with its header.

    Format: 8 bytes little-endian header length, a JSON header with `data_offsets`, the data.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _LARGEST_HEADER:
            raise ProbelineError(
                f"{path}: not a safetensors file ({size:,} bytes; a Git LFS pointer or an empty "
                "download?); copy it again"
            )
        raw = handle.read(length)
    try:
        header = json.loads(raw) if len(raw) == length else None
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + int(max(ends, default=0))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        raise ProbelineError(
            f"{path}: half-copied or damaged: its header cannot be read; copy it again"
        ) from None
    if size != expected:
        raise ProbelineError(
            f"{path}: half-copied or damaged: {size:,} bytes, its header says {expected:,}; "
            "copy it again"
        )


def sampled_hash(files: list[Path]) -> str:
    """Return 16 hexadecimal digits over names, sizes and a sample of the bytes of `files`.

    For a parser that cannot read gigabytes: the first and last block of each file, and blocks
    spread evenly between them. Weights that were trained further differ nearly everywhere.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as handle:
            for sample in range(_SAMPLES):
                handle.seek(sample * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                digest.update(handle.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def files_hash(files: list[Path]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over names and contents of `files`, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def tokenizer_files(folder: Path, where: str) -> list[Path]:
    """Return the tokenizer's files in `folder`.

    Raises
    ------
    ProbelineError
        If there is no vocabulary. transformers would go on with an empty one.
    """
    if not any((folder / name).is_file() for name in _VOCABULARY_FILES):
        raise ProbelineError(
            f"{where}: no tokenizer: {folder} has none of tokenizer.json, vocab.txt, vocab.json, "
            "spiece.model, tokenizer.model; set `tokenizer:` to a model that has one"
        )
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [inside(index.parent, name) for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProbelineError(f"{index}: not a complete index of weight files") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ProbelineError(
            f"{index.parent}: {len(missing)} of {len(names)} weight files are missing "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); copy them again"
        )
    return files
