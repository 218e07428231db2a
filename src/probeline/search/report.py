"""What a search has found: a table of its trials, what mattered, and the best settings."""

from __future__ import annotations

import os
import warnings

import optuna
import pandas as pd
import yaml
from optuna.trial import TrialState

from probeline.errors import ProbelineError
from probeline.files import replacing, write_text
from probeline.search.study import ERROR, WORKER, counted

# Below that, what matters more cannot be told.
_ENOUGH = 4


def trials_table(study: optuna.study.Study) -> pd.DataFrame:
    """One row per trial.

    Columns: `trial` int64, `state` (complete, pruned, running), `score` (of a pruned trial that of
    its last evaluation; null without one), `best` (the highest score so far of complete trials),
    `evaluations` int64, `worker` int64, one column per setting, `note` (why it ended).
    """
    rows, best = [], None
    for trial in counted(study):
        values = trial.intermediate_values
        score = trial.value if trial.value is not None else values.get(max(values, default=None))
        if trial.state is TrialState.COMPLETE:
            best = score if best is None else max(best, score)
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "score": score,
                "best": best,
                "evaluations": len(values),
                "worker": trial.user_attrs.get(WORKER),
                **trial.params,
                "note": trial.user_attrs.get(ERROR),
            }
        )
    return pd.DataFrame(rows).astype({"score": float, "best": float})


def importances(study: optuna.study.Study) -> pd.DataFrame:
    """Columns `setting` and `importance`, which sum to 1, the greatest first.

    PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255) over the complete trials; no
    row where those are too few or all of one score.
    """
    complete = [trial for trial in counted(study) if trial.state is TrialState.COMPLETE]
    found: dict[str, float] = {}
    if len(complete) >= _ENOUGH and len({trial.value for trial in complete}) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return pd.DataFrame({"setting": list(found), "importance": list(found.values())})


def best_trial(study: optuna.study.Study) -> optuna.trial.FrozenTrial:
    """The complete trial with the highest score, of equal ones the first.

    Raises
    ------
    ProbelineError
        If there is none.
    """
    complete = [trial for trial in counted(study) if trial.state is TrialState.COMPLETE]
    if not complete:
        notes = [trial.user_attrs[ERROR] for trial in counted(study) if ERROR in trial.user_attrs]
        why = f"; the last one ended with: {notes[-1]}" if notes else ""
        raise ProbelineError(
            f"search: no trial of {len(counted(study))} came to its end{why}; try a lower range of "
            "search.space.learning_rate"
        )
    return max(complete, key=lambda trial: (trial.value, -trial.number))


def write_best(
    study: optuna.study.Study, path: str | os.PathLike, section: tuple[str, ...], what: str
) -> None:
    """Write the best settings as a part of a configuration, for `--configfile` beside another.

    Parameters
    ----------
    section : tuple of str
        Keys under which the settings stand, such as ("finetune",).
    what : str
        Stands in a comment.

    Raises
    ------
    ProbelineError
        As `best_trial`.
    """
    best = best_trial(study)
    values = {name: _plain(value) for name, value in best.params.items()}
    for key in reversed(section):
        values = {key: values}
    text = yaml.safe_dump(values, sort_keys=False)
    note = f"# {what}: trial {best.number} of {len(counted(study))}, validation {best.value:.4f}"
    write_text(path, f"{note}\n{text}")


def _plain(value):
    """A whole number without its point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def write_table(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
