"""Batches that run at a time have the values they have alone, and stop together at an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, TINY, build

from probeline.activations.batching import Batch, padded, tokenize
from probeline.activations.names import layers_of
from probeline.activations.passes import Passes, workers_of
from probeline.errors import ProbelineError
from probeline.models.load import LoadedModel, load_model

TEXTS = [SENTENCES[number % len(SENTENCES)] for number in range(40)]
BUDGET = 20
LONG = 60  # seconds that no test takes but one that fails


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def load(kind: str, folder) -> LoadedModel:
    return load_model({"path": str(build(kind, folder)), "dtype": "float32", "device": "cpu"})


def batches_of(model: LoadedModel, texts=TEXTS) -> list:
    found = list(padded(model, tokenize(model, texts), BUDGET))
    assert len(found) >= 8
    return found


def run(passes: Passes, *groups: list) -> Iterator[Batch]:
    for number, (group, batches) in enumerate(passes.run(enumerate(groups))):
        assert group == number
        yield from batches


class Keeping:
    """Keeps the maxima of each text by (row, representation, layer)."""

    def __init__(self, found: dict, threads: set):
        self._found, self._threads, self._batch = found, threads, {}

    def take(self, key, values, pooler) -> None:
        self._threads.add(threading.current_thread())
        self._batch[key] = pooler.pool(values, "max").clone()

    def add(self, rows) -> None:
        for key, values in self._batch.items():
            for row, value in zip(rows, values, strict=True):
                self._found[(row, *key)] = value.numpy().copy()
        self._batch = {}


def everything(model: LoadedModel, threads: int) -> tuple[dict, set]:
    """All values of all texts, and the threads that computed them."""
    torch.set_num_threads(threads)
    keys = [(name, layer) for name in ("ffn", "hidden") for layer in layers_of(model.shape, name)]
    found, seen = {}, set()
    with Passes(model, keys, lambda: Keeping(found, seen)) as passes:
        order = [batch.rows.tolist() for batch in run(passes, batches_of(model))]
    assert order == [batch.rows.tolist() for batch in batches_of(model)]
    assert len(found) == len(TEXTS) * len(keys)
    return found, seen


@pytest.mark.parametrize("kind", TINY)
def test_the_bits_are_those_of_one_batch_after_the_other(kind, tmp_path, two_threads):
    model = load(kind, tmp_path)
    alone, by = everything(model, 1)
    assert by == {threading.main_thread()}
    together, by = everything(model, 2)
    assert threading.main_thread() not in by
    assert alone.keys() == together.keys()
    for key, values in alone.items():
        np.testing.assert_array_equal(together[key], values)


class Meeting:
    """The first batch of each collector waits until another one is under way."""

    def __init__(self, barrier: threading.Barrier):
        self._barrier, self._met = barrier, False

    def take(self, key, values, pooler) -> None:
        if not self._met:
            self._met = True
            self._barrier.wait(LONG)

    def add(self, rows) -> None:
        pass


def test_the_next_group_begins_before_one_has_ended(tmp_path, two_threads):
    """The last batch of each of four groups waits for the first one of the next."""
    model = load("bert", tmp_path)
    batches = batches_of(model)
    groups = [batches[2 * number : 2 * number + 2] for number in range(4)]
    begun = {int(group[0].rows[0]): threading.Event() for group in groups}
    after = dict(zip((int(group[1].rows[0]) for group in groups[:-1]), [*begun][1:], strict=True))

    class Waiting(Nothing):
        def add(self, rows) -> None:
            if rows[0] in begun:
                begun[rows[0]].set()
            if rows[0] in after:
                assert begun[after[rows[0]]].wait(LONG)

    with Passes(model, [("ffn", 1)], Waiting) as passes:
        assert len(list(run(passes, *groups))) == 8


class Nothing:
    def take(self, key, values, pooler) -> None:
        pass

    def add(self, rows) -> None:
        pass


def record_bodies(model: LoadedModel, monkeypatch) -> list:
    """What each forward pass from now on is: its body, where its weights are, torch's threads."""
    seen, plain = [], type(model.body).forward

    def forward(body, *args, **kwargs):
        weights = tuple(weight.data_ptr() for weight in body.parameters())
        seen.append((body, weights, torch.get_num_threads()))
        return plain(body, *args, **kwargs)

    monkeypatch.setattr(type(model.body), "forward", forward)
    return seen


def test_two_run_at_a_time_on_copies_that_share_their_weights(tmp_path, two_threads, monkeypatch):
    model = load("bert", tmp_path)
    weights = tuple(weight.data_ptr() for weight in model.body.parameters())
    seen = record_bodies(model, monkeypatch)
    barrier = threading.Barrier(2)
    with Passes(model, [("ffn", 1)], lambda: Meeting(barrier)) as passes:
        list(run(passes, batches_of(model)))
        torch_threads = []
        other = threading.Thread(target=lambda: torch_threads.append(torch.get_num_threads()))
    bodies = {id(body) for body, *_ in seen}
    assert len(bodies) == 2 and id(model.body) not in bodies
    assert {found for _, found, _ in seen} == {weights}
    assert {threads for *_, threads in seen} == {1}
    other.start()
    other.join()
    assert [torch.get_num_threads(), *torch_threads] == [2, 2]


def test_few_batches_are_computed_one_by_one_on_every_thread(tmp_path, two_threads, monkeypatch):
    model = load("bert", tmp_path)
    seen = record_bodies(model, monkeypatch)
    with Passes(model, [("ffn", 1)], Nothing) as passes:
        assert len(list(run(passes, *([batch] for batch in batches_of(model)[:3])))) == 3
    assert [(body is model.body, threads) for body, _, threads in seen] == [(True, 2)] * 3


def test_workers_share_the_threads_evenly(tmp_path):
    model = load("bert", tmp_path)
    counts = {threads: workers_of(model, threads) for threads in (1, 2, 3, 4, 6, 7, 8, 10, 64)}
    assert counts == {1: 1, 2: 2, 3: 3, 4: 4, 6: 3, 7: 1, 8: 4, 10: 2, 64: 4}
    assert workers_of(replace(model, device=torch.device("cuda")), 8) == 1
    assert workers_of(replace(model, code=[]), 8) == 1


def test_an_error_in_making_a_group_comes_after_the_groups_before_it(tmp_path, two_threads):
    model = load("bert", tmp_path)
    batches = batches_of(model)

    def groups():
        yield "first", batches[:4]
        yield "second", batches[4:8]
        raise ProbelineError("no third")

    done = []
    with (
        pytest.raises(ProbelineError, match="no third"),
        Passes(model, [("ffn", 1)], Nothing) as passes,
    ):
        for group, ended in passes.run(groups()):
            done.append((group, len(list(ended))))
    assert done == [("first", 4), ("second", 4)]


def test_a_small_group_runs_when_the_one_before_it_has_ended(tmp_path, two_threads, monkeypatch):
    model = load("bert", tmp_path)
    batches = batches_of(model)
    seen = record_bodies(model, monkeypatch)
    with Passes(model, [("ffn", 1)], Nothing) as passes:
        list(run(passes, batches[:4], batches[4:5], batches[5:8]))
    assert [body is model.body for body, *_ in seen] == [False] * 4 + [True] + [False] * 3


class Failing:
    """Refuses two batches, by their first rows: the earlier one after the later one."""

    def __init__(self, rows: list[int], ended: list[int], later: threading.Event):
        self._rows, self._ended, self._later = rows, ended, later

    def take(self, key, values, pooler) -> None:
        pass

    def add(self, rows) -> None:
        if rows[0] == self._rows[0]:
            assert self._later.wait(LONG)
        self._ended.append(rows[0])
        if rows[0] == self._rows[1]:
            self._later.set()
        if rows[0] in self._rows:
            raise ProbelineError(f"row {rows[0]} is refused")


def test_the_first_batch_with_an_error_names_it_and_none_begins_after_it(tmp_path, two_threads):
    model = load("bert", tmp_path)
    batches = batches_of(model, TEXTS * 5)
    first = [int(batch.rows[0]) for batch in batches]
    ended, done, later = [], [], threading.Event()
    with (
        pytest.raises(ProbelineError, match=f"row {first[2]} is refused"),
        Passes(model, [("ffn", 1)], lambda: Failing(first[2:4], ended, later)) as passes,
    ):
        for batch in run(passes, batches[:20], batches[20:]):
            done.append(int(batch.rows[0]))
    assert done == first[:2]
    assert {*first[:4]} <= {*ended}
    assert len(ended) < len(batches)


@pytest.mark.parametrize("where", ["take", "add"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_that_does_not_fit_the_memory_is_named(tmp_path, two_threads, where, threads):
    """In the pass itself, and where its values are collected."""

    class Full(Keeping):
        pass

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    setattr(Full, where, full)
    model = load("bert", tmp_path)
    torch.set_num_threads(threads)
    said = r"a batch of \d+ texts x \d+ tokens does not fit the cpu memory; set `batch_tokens` of"
    passes = Passes(model, [("ffn", 1)], lambda: Full({}, set()))
    with pytest.raises(ProbelineError, match=said), passes:
        list(run(passes, batches_of(model)))
