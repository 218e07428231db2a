"""A file that gives labels their texts. Standard library and yaml only: read at parse time."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import yaml

from probeline.errors import ProbelineError
from probeline.files import refuse_special

_COLUMNS = ("label", "text")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MAPPINGS = (".json", ".yaml", ".yml")


def read_label_texts(path: Path) -> dict[str, list[str]]:
    """Read the texts of labels.

    Parameters
    ----------
    path : path
        CSV or TSV with the columns `label` and `text`, a row for each text; or a JSON or YAML
        mapping of label to a text or a list of texts.

    Returns
    -------
    dict of str to list of str
        In the order of the labels' names.

    Raises
    ------
    ProbelineError
        If the file is missing, is none of these or no file, or gives something else than texts.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_DELIMITERS, *_MAPPINGS):
        known = ", ".join((*_DELIMITERS, *_MAPPINGS))
        raise ProbelineError(f"{path}: expected a file of label texts that ends in one of {known}")
    refuse_special(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such file of label texts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProbelineError(f"{path}: not a readable UTF-8 file: {error}") from None
    if suffix in _DELIMITERS:
        found = _table(path, content, _DELIMITERS[suffix])
    else:
        found = _mapping(path, content)
    return {label: found[label] for label in sorted(found)}


def _table(path: Path, content: str, delimiter: str) -> dict[str, list[str]]:
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    for column in _COLUMNS:
        if column not in (reader.fieldnames or []):
            present = ", ".join(map(str, reader.fieldnames or [])) or "none"
            raise ProbelineError(f"{path}: has no column '{column}'; its columns are: {present}")
    found: dict[str, list[str]] = {}
    try:
        for row in reader:
            label, text = (row[column] or "" for column in _COLUMNS)
            if not label or not text.strip():
                raise ProbelineError(f"{path}: line {reader.line_num}: expected a label and a text")
            found.setdefault(label, []).append(text)
    except csv.Error as error:
        raise ProbelineError(f"{path}: line {reader.line_num}: not CSV: {error}") from None
    return found


def _mapping(path: Path, content: str) -> dict[str, list[str]]:
    try:
        # JSON is YAML but for tabs, which stand between its tokens only.
        values = yaml.safe_load(content.replace("\t", " "))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ProbelineError(f"{path}: not a readable mapping of labels: {error}") from None
    if not isinstance(values, dict) or not values:
        raise ProbelineError(f"{path}: expected a mapping of labels to texts")
    for label, texts in values.items():
        if not isinstance(label, str):
            raise ProbelineError(f"{path}: the label {label} is not text; put it in quotes")
        every = texts if isinstance(texts, list) else [texts]
        if not every or not all(isinstance(text, str) and text.strip() for text in every):
            raise ProbelineError(f"{path}: '{label}': expected a text or a list of texts")
    return {label: [texts] if isinstance(texts, str) else texts for label, texts in values.items()}
