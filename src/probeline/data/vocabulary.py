"""The names of the labels, their order, and the code of each value in the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probeline.errors import ProbelineError, nearest

Names = list[str] | dict | None


def vocabulary(
    task: str,
    values: Sequence,
    names: Names,
    declared: list[str] | None,
    find: Callable[[object], str],
) -> tuple[list[str], dict]:
    """Decide the label names and the code of each distinct raw value.

    Without `names` the order is that of the data's own class names, else sorted: numbers by
    size, texts by code point. A list in `names` that holds every value as it is written sets the
    order only; otherwise whole numbers (and false, true as 0, 1) count into it. A mapping goes
    from value to name, and may send several values to one.

    Parameters
    ----------
    task : str
        For messages.
    values : sequence of str, int or bool
        Distinct, all of one type, none missing.
    names : list, dict or None
        The config's `label_names`.
    declared : list of str, optional
        Names of a ClassLabel feature, whose values are codes.
    find : callable
        Value to the place where it first stands, for messages.

    Returns
    -------
    labels : list of str
    code_of : dict
        {raw value: place in `labels`}
    """
    values = list(values)
    if isinstance(names, dict):
        return _mapped(task, values, names, declared, find)
    if isinstance(names, list):
        names = [str(name) for name in names]
        place = {name: code for code, name in enumerate(names)}
        if len(place) < len(names):
            twice = next(name for code, name in enumerate(names) if place[name] != code)
            raise ProbelineError(f"label_names: '{twice}' stands there twice")
        if all(_written(value) in place for value in values):
            return names, {value: place[_written(value)] for value in values}
        if any(_whole(value) is None for value in values):
            strange = next(value for value in values if value not in place)
            raise _unknown(task, strange, names, "label_names", find)
        return names, _counted(task, values, names, "label_names", find)
    if declared:
        return list(declared), _counted(task, values, list(declared), "the data's classes", find)
    numbers = [_whole(value) for value in values]
    if values and not any(isinstance(value, bool) for value in values) and None not in numbers:
        values = [value for _, value in sorted(zip(numbers, values, strict=True))]
    else:
        values = sorted(values)
    return [_written(value) for value in values], {v: code for code, v in enumerate(values)}


def _mapped(task, values, names, declared, find) -> tuple[list[str], dict]:
    names = {_written(key): str(name) for key, name in names.items()}
    place = {name: code for code, name in enumerate(dict.fromkeys(names.values()))}
    code_of = {}
    for value in values:
        keys = [_written(value)]
        if declared and isinstance(value, int) and 0 <= value < len(declared):
            keys.append(declared[value])
        key = next((key for key in keys if key in names), None)
        if key is None:
            raise ProbelineError(
                f"{find(value)}: label '{keys[-1]}' of '{task}' is not in label_names"
                f"{nearest(keys[-1], names)}; it has: {', '.join(names)}"
            )
        code_of[value] = place[names[key]]
    return list(place), code_of


def _unknown(task, value, names, source, find) -> ProbelineError:
    return ProbelineError(
        f"{find(value)}: label '{value}' of '{task}' is not in {source}{nearest(value, names)}; "
        f"expected one of: {', '.join(names)}"
    )


def _counted(task, values, names, source, find) -> dict:
    """Codes of values that count into a list of names."""
    code_of = {}
    for value in values:
        code = _whole(value)
        if code is None:
            raise _unknown(task, value, names, source, find)
        if not 0 <= code < len(names):
            why = " (-1 marks texts without a label; use another split)" if code == -1 else ""
            raise ProbelineError(
                f"{find(value)}: label {code} of '{task}' is outside {source}, which has names "
                f"for 0 to {len(names) - 1}{why}"
            )
        code_of[value] = code
    return code_of


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _whole(value: object) -> int | None:
    """Return the number that a value is or is written as, false and true being 0 and 1."""
    if isinstance(value, (bool, int)):
        return int(value)
    if value.lower() in ("false", "true"):
        return int(value.lower() == "true")
    digits = value.removeprefix("-")
    # "007" stays a text: as a number it could no longer be told from "7".
    plain = digits.isascii() and digits.isdigit() and str(int(digits)) == digits
    return int(value) if plain else None
