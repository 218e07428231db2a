"""A page for people to look at: what the label tokens look at in some texts."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence

import pandas as pd

from probeline.files import write_text

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.9 sans-serif; max-width: 60em; margin: 2em auto; }}
b {{ display: inline-block; min-width: 9em; }} span {{ padding: 2px; }}
i {{ color: #767676; }}</style>
<h1>{title}</h1>
<p>Attention from each label's token to the tokens of the text, in the last layer, mean over heads;
the darkest token of a line has the most. Special tokens, which attention rests on without
meaning, are grey, with their share in per cent. What is missing to 100 goes to other label tokens.
Attention says where information may flow, not what decided.</p>
{body}
</html>
"""


def attention_page(
    table: pd.DataFrame,
    title: str,
    path: str | os.PathLike,
    labels: int = 5,
    notes: Mapping[int, str] | None = None,
    ranked: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Write an HTML page: each text once per label, its tokens the darker the more is looked at.

    Parameters
    ----------
    table : pandas.DataFrame
        As `label_attention` makes it; of several layers the last is shown.
    labels : int
        Labels per text.
    notes : mapping of row to str, optional
        What is said of a text, such as its true label.
    ranked : mapping of row to labels, optional
        Which labels come first; those that look at the text most.
    """
    body = []
    for row, own in table[table["layer"] == table["layer"].max()].groupby("row"):
        note = "" if notes is None else f": {html.escape(notes[row])}"
        body.append(f"<h2>Text {row}{note}</h2>")
        order = _most_looking(own) if ranked is None else ranked[row]
        read = set(own["label"])
        shown = [label for label in order if label in read][:labels]
        body += [_line(label, own[own["label"] == label]) for label in shown]
    write_text(path, _PAGE.format(title=html.escape(title), body="\n".join(body)))


def _most_looking(own: pd.DataFrame) -> list[str]:
    totals = own.groupby("label", sort=False)["weight"].sum()
    return list(totals.sort_values(ascending=False, kind="stable").index)


def _line(label: str, own: pd.DataFrame) -> str:
    most = max(float(own.loc[~own["special"], "weight"].max() or 0.0), 1e-12)
    words = " ".join(
        f"<i>{html.escape(token)} {100 * weight:.0f}</i>"
        if special
        else f'<span style="background:rgba(0,114,178,{weight / most:.2f})">'
        f"{html.escape(token)}</span>"
        for token, special, weight in zip(own["token"], own["special"], own["weight"], strict=True)
    )
    return f"<p><b>{html.escape(label)}</b> {words}</p>"
