"""Making the next item in a thread."""

from __future__ import annotations

import threading

import pytest

from probeline.activations.ahead import ahead


def test_items_come_in_order_and_at_most_one_waits():
    made = []

    def items():
        for number in range(20):
            made.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    for number, item in enumerate(ahead(items())):
        assert item == number
        assert len(made) <= number + 2
    assert made == [(number, False) for number in range(20)]


def test_nothing_and_none_are_items_like_others():
    assert list(ahead([])) == []
    assert list(ahead([None, 0, None])) == [None, 0, None]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(items()):
            found.append(item)
    assert found == [1, 2]


def test_who_stops_early_does_not_wait_for_the_rest():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    stream = ahead(items())
    assert next(stream) == 0
    stream.close()
    assert len(made) <= 2
