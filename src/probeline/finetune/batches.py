"""Train rows as padded batches in an order that depends on seed and epoch alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from probeline.activations.batching import Tokens, inputs_of, tokenize
from probeline.data.store import Dataset
from probeline.models.load import LoadedModel

log = logging.getLogger(__name__)
# What tokenizers return takes some 200 bytes per token, of which 4 are kept.
_TEXTS_AT_ONCE = 1024
# Texts are sorted by length inside windows of so many batches, so that batches stay mixed.
_WINDOW = 50


def tokenize_dataset(model: LoadedModel, dataset: Dataset) -> Tokens:
    """Tokenize all texts of a dataset, or all pairs, into int32 arrays; say how many are cut.

    Raises
    ------
    ProbelineError
        As `tokenize`.
    """
    ids, types, before = [], [], []
    for start in range(0, dataset.rows, _TEXTS_AT_ONCE):
        rows = slice(start, start + _TEXTS_AT_ONCE)
        second = None if dataset.pairs is None else dataset.pairs[rows]
        part = tokenize(model, dataset.texts[rows], second, row=start)
        ids += [np.array(text, dtype=np.int32) for text in part.ids]
        types += [np.array(text, dtype=np.int32) for text in part.types or ()]
        before.append(part.before)
    tokens = Tokens(ids, types or None, np.concatenate(before))
    truncated = (tokens.before > model.max_length).sum()
    if truncated:
        log.warning(
            "%s: %d of %d texts are longer than %d tokens and truncated",
            dataset.name,
            truncated,
            dataset.rows,
            model.max_length,
        )
    return tokens


def some_of(tokens: Tokens, rows: np.ndarray) -> Tokens:
    """The tokens of some rows, in that order."""
    return Tokens(
        [tokens.ids[row] for row in rows],
        None if tokens.types is None else [tokens.types[row] for row in rows],
        tokens.before[rows],
        {name: values[rows] for name, values in tokens.more.items()},
    )


@dataclass
class TrainRows(torch.utils.data.Dataset):
    """The rows that are trained on.

    Attributes
    ----------
    tokens : Tokens
    labels : torch.Tensor
        int64 (n,), or float32 (n, K) for multi-label.
    pad_id : int
    """

    tokens: Tokens
    labels: torch.Tensor
    pad_id: int

    def __len__(self) -> int:
        return len(self.tokens.ids)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Pad on the right: ids, mask, perhaps segment ids, each int64 (B, T), and labels."""
        return inputs_of(self.tokens, rows, self.pad_id) | {"labels": self.labels[rows]}


class EpochBatches(Sampler[list[int]]):
    """Batches of row numbers, shuffled anew each epoch.

    The order of an epoch is a function of seed and epoch, not of any generator's past: a resumed
    run sees the batches that an uninterrupted one would.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, group: bool, seed: int):
        self.lengths, self.batch_size, self.group, self.seed = lengths, batch_size, group, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        if not self.group:
            for start in range(0, len(order), self.batch_size):
                yield order[start : start + self.batch_size].tolist()
            return
        found = []
        window = self.batch_size * _WINDOW
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            found += [
                part[at : at + self.batch_size].tolist()
                for at in range(0, len(part), self.batch_size)
            ]
        for batch in generator.permutation(len(found)):
            yield found[batch]


class EpochLoader(DataLoader):
    """A loader whose batch sampler is told the epoch, and that leaves the global generator alone.

    transformers calls `set_epoch` on the loader, or on its batch sampler where batches are skipped.
    """

    def __init__(self, rows: TrainRows, batches: EpochBatches):
        super().__init__(
            rows,
            batch_sampler=batches,
            collate_fn=rows.collate,
            generator=torch.Generator().manual_seed(0),
        )

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
