"""The learned form of reranking: a small network over probability, similarity and rank.

The abstract of Huang et al. 2024 names an MLP-based form beside the similarity-based one and gives
no details. Here one network with shared weights reads what is known of a candidate label and
corrects its logit. Labels have no weights of their own, so that their order says nothing and few
validation texts suffice. It begins as no correction at all, and weight decay draws it there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import log_softmax

from probeline.lrsl.rerank import log_odds, replaced, shared_mass, taken, top

log = logging.getLogger(__name__)

COMBINER = "mlp"
_LEAST_LOG = -30.0
# Rows at a time, of which each candidate has several numbers.
_ROWS = 2048
_ARRAYS = ("mean", "scale", "hidden", "bias", "output")


@dataclass(frozen=True)
class CombinerOptions:
    """How a combiner is fitted.

    Attributes
    ----------
    candidates : int, optional
        How many labels with the largest logits it reranks; default all.
    units : int
        Of its hidden layer.
    weight_decay : float
        Half of it times the squared weights is added to the mean loss of a text.
    iterations : int
    temperature : float
        Divides the logits.
    taken_off : tuple of float, optional
        Of several labels: the thresholds that the logits come without, see `rerank`.
    """

    candidates: int | None = None
    units: int = 8
    weight_decay: float = 0.03
    iterations: int = 200
    temperature: float = 1.0
    taken_off: tuple[float, ...] | None = None

    def __post_init__(self):
        # JSON, from which a combiner is made again, has lists alone.
        if self.taken_off is not None:
            object.__setattr__(self, "taken_off", tuple(self.taken_off))


@dataclass(frozen=True)
class Combiner:
    """A fitted network: correction = tanh((x - mean) / scale @ hidden + bias) @ output.

    Attributes
    ----------
    mean, scale : ndarray of float32, shape (features,)
    hidden : ndarray of float32, shape (features, units)
    bias, output : ndarray of float32, shape (units,)
    multilabel : bool
    options : CombinerOptions
    """

    mean: np.ndarray
    scale: np.ndarray
    hidden: np.ndarray
    bias: np.ndarray
    output: np.ndarray
    multilabel: bool
    options: CombinerOptions

    def scores(self, logits: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Rerank every row.

        Parameters
        ----------
        logits, similarity : ndarray, shape (n, K)

        Returns
        -------
        ndarray of float32, shape (n, K)
            Log-probabilities that sum to one, the candidates sharing what they had together; of
            several labels the log odds of each, with no threshold taken off.
        """
        result = np.empty(logits.shape, dtype=np.float32)
        for start in range(0, len(logits), _ROWS):
            rows = slice(start, start + _ROWS)
            result[rows] = self._block(logits[rows], similarity[rows])
        return result

    def _block(self, logits: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        columns, valid, x, own, whole = _inputs(logits, similarity, self.options, self.multilabel)
        h = np.tanh((x - self.mean) / self.scale @ self.hidden + self.bias)
        new = own + h @ self.output
        if not self.multilabel:
            new = shared_mass(new, own, valid)
        return replaced(whole, columns, valid, new)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a safetensors file holds of it."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def meta(self) -> dict:
        """What else `of` needs; plain values."""
        return {"multilabel": self.multilabel, "options": asdict(self.options)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], meta: Mapping) -> Combiner:
        """Make one again from `arrays` and `meta`."""
        options = CombinerOptions(**meta["options"])
        return cls(
            **{n: arrays[n] for n in _ARRAYS}, multilabel=meta["multilabel"], options=options
        )


def fit_combiner(
    logits: np.ndarray,
    similarity: np.ndarray,
    y: np.ndarray,
    options: CombinerOptions,
    seed: int,
    multilabel: bool = False,
) -> Combiner:
    """Fit a combiner by L-BFGS on the log loss of the candidates.

    Parameters
    ----------
    logits, similarity : ndarray, shape (n, K)
        Of validation texts.
    y : ndarray, shape (n,) of codes or (n, K) of 0/1
        A text whose label is no candidate teaches nothing, and is left out.
    options : CombinerOptions
    seed : int

    Returns
    -------
    Combiner
        One that corrects nothing, where no text teaches anything.
    """
    columns, valid, x, own, _ = _inputs(logits, similarity, options, multilabel)
    if multilabel:
        true = taken(y, columns) > 0
    else:
        true = (columns == y[:, None]) & valid
        taught = true.any(axis=1)
        valid, x, own, true = valid[taught], x[taught], own[taught], true[taught]
    rng = np.random.default_rng(seed)
    mean, scale = _standard(x[valid])
    hidden = rng.normal(size=(x.shape[2], options.units)) / np.sqrt(x.shape[2])
    weights = [hidden, np.zeros(options.units), np.zeros(options.units)]
    if len(x):
        weights = _minimise(weights, (x - mean) / scale, own, valid, true, options, multilabel)
    values = [value.astype(np.float32) for value in (mean, scale, *weights)]
    return Combiner(*values, multilabel=multilabel, options=options)


def cross_validated(
    logits: np.ndarray,
    similarity: np.ndarray,
    y: np.ndarray,
    options: CombinerOptions,
    seed: int,
    wrong: np.ndarray,
    folds: int = 5,
    multilabel: bool = False,
) -> np.ndarray | None:
    """Scores of every text by a combiner that was fitted without it.

    They compare with the other forms, which have one number to fit where this has dozens.

    Parameters
    ----------
    wrong : ndarray of bool, shape (n,)
        Texts that the classifier gets wrong; each fold has its share of them.

    Returns
    -------
    ndarray of float32, shape (n, K), or None
        None where there are too few texts for folds, which the log says.
    """
    if len(logits) < folds:
        log.info(
            "lrsl.forms: mlp is left out: of %d hard validation texts it cannot make %d folds",
            len(logits),
            folds,
        )
        return None
    result = np.empty(logits.shape, dtype=np.float32)
    parts = _folds(wrong, folds, seed)
    for fold in range(folds):
        held = parts == fold
        fitted = fit_combiner(logits[~held], similarity[~held], y[~held], options, seed, multilabel)
        result[held] = fitted.scores(logits[held], similarity[held])
    return result


def _folds(wrong: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each row: shuffled, then dealt out, the wrong ones first."""
    order = np.random.default_rng(seed).permutation(len(wrong))
    order = order[np.argsort(~wrong[order], kind="stable")]
    parts = np.empty(len(wrong), dtype=np.int64)
    parts[order] = np.arange(len(wrong)) % folds
    return parts


def _inputs(logits, similarity, options: CombinerOptions, multilabel: bool):
    """Candidates (n, m), features of each (n, m, 6), its logit or log p, and all labels' (n, K)."""
    from scipy.stats import rankdata  # half a second, which the other forms need not pay

    z = log_odds(logits.astype(np.float64), options.taken_off) / options.temperature
    whole = z if multilabel else log_softmax(z, axis=1)
    log_p = -np.logaddexp(0, -z) if multilabel else whole
    columns, valid = top(logits, options.candidates)
    if columns is None:
        columns = np.broadcast_to(np.arange(z.shape[1]), z.shape)
    if valid is None:
        valid = np.ones(columns.shape, dtype=bool)
    log_p, own, s = (
        taken(values, columns) for values in (log_p, whole, similarity.astype(np.float64))
    )
    features = [log_p.clip(_LEAST_LOG, 0), s]
    for values in (own, s):
        among = np.where(valid, values, -np.inf)
        highest = among.max(axis=1, keepdims=True)
        features.append((values - highest).clip(_LEAST_LOG, 0))
        features.append(1 / rankdata(-among, method="min", axis=1))
    return columns, valid, np.stack(features, axis=2), own, whole


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) == 0:
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-9, scale, 1.0)


def _minimise(weights, x, own, valid, true, options: CombinerOptions, multilabel: bool) -> list:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    parameters = [torch.tensor(value, requires_grad=True) for value in weights]
    x, own, valid, true = (torch.from_numpy(np.ascontiguousarray(v)) for v in (x, own, valid, true))
    solver = torch.optim.LBFGS(
        parameters, max_iter=options.iterations, line_search_fn="strong_wolfe"
    )

    def step():
        solver.zero_grad()
        hidden, bias, output = parameters
        scores = own + torch.tanh(x @ hidden + bias) @ output
        if multilabel:
            loss = binary_cross_entropy_with_logits(scores[valid], true[valid].double())
        else:
            scores = scores.masked_fill(~valid, -torch.inf)
            loss = -scores.log_softmax(dim=1)[true].mean()
        loss = loss + options.weight_decay / 2 * (hidden.square().sum() + output.square().sum())
        loss.backward()
        return loss

    solver.step(step)
    return [parameter.detach().numpy() for parameter in parameters]
