"""A configuration with mistakes, made whole, so that what is right in it can still be compared.

Without it, one mistyped number would hide every mistake between values until it is mended.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from probeline.config.keys import Problem
from probeline.config.problems import explained, the_schema
from probeline.config.schema import Config

SPLITS = {"validation": 0.1, "test": 0.1}
DATASET = {"loader": "csv", "path": "stand-in", "splits": SPLITS}

# What stands in for a required value that is missing or wrong; any other value is just left out.
STAND_INS: dict[tuple[str, ...], Any] = {
    ("models",): {"stand-in": {"path": "stand-in"}},
    ("models", "*", "path"): "stand-in",
    ("datasets",): {"stand-in": DATASET},
    ("datasets", "*", "path"): "stand-in",
    ("datasets", "*", "loader"): "csv",
    ("datasets", "*", "splits"): SPLITS,
    ("datasets", "*", "splits", "validation"): 0.1,
    ("datasets", "*", "splits", "test"): 0.1,
    ("runs", "*", "model"): "stand-in",
    ("runs", "*", "dataset"): "stand-in",
    ("scores", "*", "dataset"): "stand-in",
    ("scores", "*", "path"): "stand-in",
}

# Each round mends one level: a wrong value, the entry that is empty without it, its section.
ROUNDS = 5


@dataclass
class Draft:
    """A configuration whose wrong values were left out or replaced.

    Attributes
    ----------
    config : Config
        Complete, and valid in every single value.
    doubtful : set of tuple
        Paths of the values that are not the user's.
    """

    config: Config
    doubtful: set[tuple] = field(default_factory=set)

    def sure(self, *path: str | int) -> bool:
        """Return whether all that the value at `path` holds is the user's, or a plain default."""
        return not any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.doubtful)


def drafted(values: dict) -> tuple[list[Problem], Draft | None]:
    """Return the mistakes in single values, and a draft without them.

    The draft is None in the odd case that the values cannot be made whole.
    """
    try:
        return [], Draft(Config.model_validate(values))
    except ValidationError as error:
        schema = the_schema()
        problems, doubtful = explained(error, values, schema)
    wrong = set(doubtful)
    values = copy.deepcopy(values)
    for _ in range(ROUNDS):
        for path in sorted(wrong, key=str):
            _mend(values, path)
        try:
            return problems, Draft(Config.model_validate(values), doubtful)
        except ValidationError as error:
            wrong = explained(error, values, schema)[1]
            doubtful |= wrong
    return problems, None


def _mend(values: dict, path: tuple) -> None:
    """Leave out, or replace, the innermost key of a mapping on the way to `path`."""
    node: Any = values
    holder, depth = values, 0
    for index, part in enumerate(path):
        if isinstance(node, dict):
            holder, depth = node, index
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            break
    stand_in = _stand_in(path[: depth + 1])
    if stand_in is None:
        holder.pop(path[depth], None)
    else:
        holder[path[depth]] = copy.deepcopy(stand_in)


def _stand_in(path: tuple) -> Any:
    for pattern, value in STAND_INS.items():
        if len(pattern) == len(path) and all(
            wanted in ("*", part) for wanted, part in zip(pattern, path, strict=True)
        ):
            return value
    return None
