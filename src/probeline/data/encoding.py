"""Which of several encodings a file is in, without reading it whole."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from probeline.errors import ProbelineError

_BLOCK = 1 << 20


def pick_encoding(path: Path, encodings: Sequence[str]) -> str:
    """Return the first of `encodings` that decodes the whole file; read block by block.

    Raises
    ------
    ProbelineError
        With the file, the offending byte and its offset, when none does.
    """
    failure = ""
    for name in map(codec_name, encodings):
        problem = _undecodable(path, name)
        if problem is None:
            return name
        failure = failure or problem
    raise ProbelineError(
        f"{path}: not {' nor '.join(encodings)}: {failure}; name the file's encoding, or several "
        "to try in turn, e.g. encoding: [utf-8, cp1252]"
    )


def codec_name(name: str) -> str:
    """Return Python's name of an encoding; UTF-8 may begin with a byte-order mark."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):  # a name with a NUL, or of half characters
        codec = None
    if codec is None or not codec._is_text_encoding:
        raise ProbelineError(
            f"encoding: '{name}' is not an encoding Python knows; e.g. utf-8, cp1252, latin-1"
        )
    # A byte-order mark is no part of the first column's name.
    return "utf-8-sig" if codec.name == "utf-8" else codec.name


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON escapes and bad arguments smuggle into a str."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _undecodable(path: Path, encoding: str) -> str | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with path.open("rb") as handle:
        while True:
            block = handle.read(_BLOCK)
            # The decoder may still hold the first bytes of a character from the last block.
            held = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = offset - len(held) + error.start
                byte = (held + block)[error.start : error.start + 1].hex()
                return f"byte 0x{byte} at offset {at}"
            except UnicodeError as error:  # such as UTF-16 without its byte-order mark
                return str(error)
            offset += len(block)
            if not block:
                return None
