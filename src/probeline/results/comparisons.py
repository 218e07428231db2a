"""Differences of two methods on the same texts: who is better, by a paired bootstrap.

The texts of the test split are resampled with replacement, both methods are scored on every
resample, and the difference of the two scores is what varies (paired bootstrap: Koehn 2004,
Berg-Kirkpatrick et al. 2012). Texts that are hard for both methods move both scores alike, so this
interval is narrower than the two intervals of single scores suggest. A method with several seeds
counts by its mean score, and its seeds are resampled with the texts (`probeline.results.seeds`), so
that the interval is of training again and not only of these networks.

A method that answers a part of the texts is compared on that part, all seeds on the same texts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.probe.metrics import score
from probeline.probe.task import TaskData
from probeline.results.frames import write_frame
from probeline.results.intervals import bootstrap_p, percentile_interval
from probeline.results.mcnemar import mcnemar_p
from probeline.results.predictions import Predictions, read_predictions
from probeline.results.resamples import resampled_scores
from probeline.results.seeds import named_mean, named_reranking, seed_means
from probeline.results.truth import checked_predictions, labels_of, task_of

COLUMNS = (
    "dataset",
    "task",
    "model",
    "metric",
    "split",
    "texts",
    "method",
    "variant",
    "seeds",
    "against",
    "against_variant",
    "against_seeds",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "verdict",
    "mcnemar_p",
)
SPLIT = "test"
# The level of the verdict, over all comparisons of the table together.
ALPHA = 0.05
# The smallest p-value is 2 / (resamples + 1), and Holm multiplies it by the comparisons.
_LEAST, _PER_COMPARISON = 10_000, 200

log = logging.getLogger(__name__)


def write_comparisons(
    entries: Sequence[Mapping], csv: str | os.PathLike, parquet: str | os.PathLike, seed: int
) -> None:
    """Write the comparisons of all cells as CSV and Parquet; columns `COLUMNS`.

    Parameters
    ----------
    entries, seed
        As in `comparisons`.
    """
    write_frame(comparisons(entries, seed), csv, parquet)


def comparisons(entries: Sequence[Mapping], seed: int) -> pd.DataFrame:
    """Compare the first method of every cell with each other one, on the test texts.

    Parameters
    ----------
    entries : sequence of mapping
        One per (dataset, task, model): those three names, the dataset's `folder`, and `methods`:
        mappings with `method`, `paths` (predictions, a file per seed) and `variant` (None: the one
        in the file); of reranking with `source`, the method that is reranked, which the variant
        then begins with.
    seed : int
        Comparisons on equally many test texts get the same resamples.

    Returns
    -------
    DataFrame
        A row per comparison. `difference` is the score of `method` minus that of `against`, which
        `ci_low` to `ci_high` is the 95 % percentile interval of; `p` is two-sided. `p_holm` is `p`
        adjusted by Holm (1979) over all rows: with probability 95 % no verdict but 'not separated'
        is wrong. `verdict` goes by `p_holm`, not by the interval, which is of one comparison alone:
        'better' or 'worse' below 0.05, else 'not separated'. `texts` were compared on, and
        `seeds` and `against_seeds` averaged over. `mcnemar_p` is of answers that are right or
        wrong, whatever the metric; NaN for several seeds and multi-label tasks.

    Raises
    ------
    ProbelineError
        If predictions are missing, truncated, not of the cell's labels and texts, or share no text.

    Notes
    -----
    Where two methods differ on a handful of texts only, a bootstrap is optimistic: with 4 texts
    that one method alone has right and none the other way, p is about 0.04, a sign test's 0.125.
    """
    pairs = sum(len(entry["methods"]) - 1 for entry in entries)
    resamples = max(_LEAST, _PER_COMPARISON * pairs)
    rows = [row for entry in entries for row in _rows(entry, seed, resamples)]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "verdict": verdict(row["difference"], p)}
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"mcnemar_p": np.float64})


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for the family they form (Holm 1979)."""
    return multipletests(p, method="holm")[1].tolist() if p else []


def verdict(difference: float, p_holm: float) -> str:
    """What a comparison says of its first method."""
    if p_holm >= ALPHA or difference == 0:
        return "not separated"
    return "better" if difference > 0 else "worse"


def _rows(entry: Mapping, seed: int, resamples: int) -> list[dict]:
    dataset = read_dataset(entry["folder"], texts=False)
    metric = read_predictions(entry["methods"][0]["paths"][0]).meta["metric"]
    task = task_of(dataset, entry["task"], metric)
    methods = [_read(method, dataset, task) for method in entry["methods"]]
    base = {key: entry[key] for key in ("dataset", "task", "model")}
    found: dict[int, dict] = {}
    for rows, places in _together(methods):
        found |= _compared(task, rows, methods, places, seed, resamples)
    log.info("%s, %s, %s: %d comparisons", *base.values(), len(found))
    base |= {"metric": task.metric, "split": SPLIT}
    return [base | found[place] for place in sorted(found)]


@dataclass(frozen=True)
class _Method:
    """A method's names and its predictions, a file per seed."""

    name: str
    variant: str
    paths: Sequence[str]
    runs: list[Predictions]

    @property
    def seeds(self) -> int:
        return len(self.runs)

    def rows(self) -> np.ndarray:
        """Numbers of the texts that every seed answers."""
        return reduce(np.intersect1d, [run.rows_of(SPLIT) for run in self.runs])


def _read(method: Mapping, dataset: Dataset, task: TaskData) -> _Method:
    runs = [checked_predictions(path, dataset, task) for path in method["paths"]]
    variant = method["variant"] or runs[0].meta["variant"]
    if len(runs) > 1:
        variant = named_mean(len(runs), method.get("series"))
    if method.get("source"):
        variant = named_reranking(method["source"], variant)
    return _Method(method["method"], variant, method["paths"], runs)


def _together(methods: Sequence[_Method]) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Texts that the first method and others answer, and the others' places among the methods.

    Those of the same texts come together, to be scored on the same resamples.
    """
    first, places = methods[0].rows(), {}
    for place, method in enumerate(methods[1:], start=1):
        rows = np.intersect1d(first, method.rows())
        if len(rows) == 0:
            raise ProbelineError(
                f"{', '.join(method.paths)}: no {SPLIT} text is in all of them and in those of "
                f"'{methods[0].name}', so there is nothing to compare; let '{method.name}' answer "
                "more texts (for icl: icl.max_texts) and run again"
            )
        places.setdefault(rows.tobytes(), (rows, []))[1].append(place)
    yield from places.values()


def _compared(
    task: TaskData,
    rows: np.ndarray,
    methods: Sequence[_Method],
    places: Sequence[int],
    seed: int,
    resamples: int,
) -> dict[int, dict]:
    """The first method against those at `places`, on the texts `rows`; columns by place."""
    labels = labels_of(task, SPLIT, rows)
    of = {place: [run.logits[rows] for run in methods[place].runs] for place in (0, *places)}
    every = [logits for own in of.values() for logits in own]
    scores = np.array([score(task.metric, labels, logits, task.classes) for logits in every])
    drawn = resampled_scores(task.metric, labels, every, task.classes, seed, resamples)
    ends = np.cumsum([len(own) for own in of.values()])[:-1]
    means = dict(zip(of, (part.mean() for part in np.split(scores, ends)), strict=True))
    moved = {
        place: seed_means(part, seed, place)
        for place, part in zip(of, np.split(drawn, ends), strict=True)
    }
    first, found = methods[0], {}
    for place in places:
        other, differences = methods[place], moved[0] - moved[place]
        low, high = percentile_interval(differences)
        paired = first.seeds == other.seeds == 1 and not task.multilabel
        found[place] = {
            "texts": len(rows),
            "method": first.name,
            "variant": first.variant,
            "seeds": first.seeds,
            "against": other.name,
            "against_variant": other.variant,
            "against_seeds": other.seeds,
            "difference": float(means[0] - means[place]),
            "ci_low": low,
            "ci_high": high,
            "p": bootstrap_p(differences),
            "mcnemar_p": mcnemar_p(labels, of[0][0], of[place][0]) if paired else np.nan,
        }
    return found
