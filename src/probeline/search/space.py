"""What a search tries: choices and ranges, by the name of the option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna

from probeline.errors import ProbelineError, one_of

# Options of fine-tuning.
SEARCHED = ("learning_rate", "epochs", "batch_size", "weight_decay", "warmup")

Value = float | int | str | None


def searched(space: Mapping) -> dict[str, Sequence | Mapping]:
    """The entries of a space that are searched, in a fixed order.

    Parameters
    ----------
    space : mapping
        By name of the option a list of choices; a range with `low`, `high` and perhaps `step` or
        `log`; or None, for what is left as it is.

    Raises
    ------
    ProbelineError
        If an option is not one of `SEARCHED`, or nothing is searched.
    """
    for name in space:
        if name not in SEARCHED:
            raise ProbelineError(f"search.space: {one_of(name, SEARCHED)}")
    found = {name: space[name] for name in SEARCHED if space.get(name) is not None}
    if not found:
        raise ProbelineError("search.space: every entry is null; give one a range or choices")
    return found


def draw(trial: optuna.Trial, name: str, values: Sequence | Mapping) -> Value:
    """What a trial tries of one option; what it tries already, if it was asked before."""
    if not isinstance(values, Mapping):
        return trial.suggest_categorical(name, list(values))
    return trial.suggest_float(
        name, values["low"], values["high"], log=bool(values.get("log")), step=values.get("step")
    )
