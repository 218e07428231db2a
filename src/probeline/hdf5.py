"""HDF5 files that others may have made: what is read of them lies in them and is no more than that.

A seal (`probeline.sealed`) tells damage, not who has written a file. HDF5 lets a dataset be a link
to another file, take its values from one, or claim terabytes that nobody has stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

_LONGEST = 64  # characters of a text among many


class NotPlain(ValueError):
    """A file that is no plain HDF5 of ours: its values are elsewhere, or none at all."""


def put_attributes(file: h5py.File, values: Mapping) -> None:
    """Write attributes that `attributes` can read; lists and mappings as JSON.

    Raises
    ------
    TypeError
        If a value is neither text, a number, a list nor a mapping.
    """
    attrs = file.attrs  # made anew each time it is asked for
    for name, value in values.items():
        if isinstance(value, dict | list):
            value = json.dumps(value)
        if not isinstance(value, str | int | float | np.number | np.bool_):
            raise TypeError(f"attribute '{name}' is to be {type(value).__name__}, not one value")
        attrs[name] = value


def attributes(file: h5py.File) -> dict:
    """All attributes, each one str, int, float or bool.

    Raises
    ------
    NotPlain
        If one is an array, empty, a reference, or of another type.
    UnicodeDecodeError
        If a text is none.
    """
    return {name: _plain(file, name) for name in file.attrs}


def _plain(file: h5py.File, name: str) -> str | int | float | bool:
    # Asked before the value is read: an array of texts may be one long text many times over.
    if file.attrs.get_id(name).shape != ():
        raise NotPlain(f"attribute '{name}' is not one value")
    value = file.attrs[name]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str | int | float):
        raise NotPlain(f"attribute '{name}' is neither text nor a number")
    return value


def dataset(file: h5py.File, name: str, dtypes: str, ndim: int) -> h5py.Dataset:
    """Find a dataset whose values lie in the file itself, as many as it says.

    Parameters
    ----------
    name : str
        With a slash behind the name of a group.
    dtypes : str
        Allowed kinds as of `numpy.dtype.kind`, such as "f" or "iu".
    ndim : int

    Raises
    ------
    NotPlain
        If there is none of this name, it is a link to somewhere else, has its values in other
        files, is of another type or number of dimensions, in chunks, or larger than the file.
    """
    found = _linked(file, name)
    if not isinstance(found, h5py.Dataset):
        raise NotPlain(f"'{name}' is no dataset")
    if found.external or found.is_virtual:
        raise NotPlain(f"the values of '{name}' lie in other files")
    if found.dtype.kind not in dtypes or found.ndim != ndim:
        raise NotPlain(f"'{name}' holds {found.dtype} of shape {found.shape}")
    # Of compressed or missing values there may be any number, more than any memory holds.
    stored = min(found.id.get_storage_size(), Path(file.filename).stat().st_size)
    size = math.prod(found.shape) * found.dtype.itemsize
    if size > stored or found.chunks is not None:
        raise NotPlain(f"'{name}' is to hold {size:,} bytes, {stored:,} are there as they are")
    return found


def _linked(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset:
    found = file
    for part in name.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise NotPlain(f"it has no '{name}'")
        if not isinstance(link, h5py.HardLink):
            raise NotPlain(f"'{name}' is a link to somewhere else")
        found = found[part]
    return found


def texts(found: h5py.Dataset) -> list[str]:
    """Short texts of one dimension, read one by one: all of them may be the same long one.

    Raises
    ------
    NotPlain
        If they are no texts, or one is longer than 64 characters.
    """
    if h5py.check_string_dtype(found.dtype) is None:
        raise NotPlain(f"'{found.name}' holds no texts")
    result = []
    for row in range(len(found)):
        result.append(found[row].decode())
        if len(result[-1]) > _LONGEST:
            raise NotPlain(f"a text of '{found.name}' has {len(result[-1]):,} characters")
    return result
