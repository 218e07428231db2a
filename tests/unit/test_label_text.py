"""Label names become words, and texts given for them take their place."""

from __future__ import annotations

import pytest

from probeline.data.label_text import label_text, label_texts
from probeline.errors import ProbelineError


@pytest.mark.parametrize(
    "name, text",
    [
        ("card_arrival", "card arrival"),
        ("card-arrival", "card arrival"),
        ("cardArrival", "card arrival"),
        ("CardArrival", "Card Arrival"),
        ("declined_ATM_withdrawal", "declined ATM withdrawal"),
        ("getHTTPResponse", "get HTTP response"),
        ("visaUSA", "visa USA"),
        ("ATM", "ATM"),
        ("iPhone", "iPhone"),
        ("non-sexist", "non sexist"),
        ("__top__up_", "top up"),
        ("1.1 threats of harm", "1.1 threats of harm"),
        ("Sci/Tech", "Sci/Tech"),
        ("a - b", "a - b"),
        ("-1", "-1"),
        ("0", "0"),
        ("_", "_"),
        ("信用卡_到账", "信用卡 到账"),
        ("rain", "rain"),
    ],
)
def test_names_become_words(name, text):
    assert label_text(name) == text


def test_words_stay_words():
    for name in ("card arrival", "get HTTP response", "信用卡 到账"):
        assert label_text(name) == name


def test_given_texts_replace_names():
    given = {"b_c": "a description", "d": ["one", " two ", "one"]}
    assert label_texts(["a_b", "b_c", "d"], given) == [
        ("a b",),
        ("a description",),
        ("one", "two"),
    ]
    assert label_texts(["a_b"]) == [("a b",)]


@pytest.mark.parametrize(
    "labels, given, message",
    [
        (["card_arrival", "x"], {"card_arival": "y"}, "did you mean 'card_arrival'"),
        (["a", "b"], {"a": ""}, "label_texts.a"),
        (["a", "b"], {"a": []}, "label_texts.a"),
        (["a", "b"], {"a": ["fine", 3]}, "label_texts.a"),
        (["a_b", "a-b"], None, "both 'a_b' and 'a-b'"),
        (["a", "b"], {"a": ["x", "b"]}, "both 'a' and 'b'"),
    ],
)
def test_mistakes_are_one_line(labels, given, message):
    with pytest.raises(ProbelineError, match=message) as error:
        label_texts(labels, given)
    assert "\n" not in str(error.value)
