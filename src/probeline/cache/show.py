"""The table of a shared cache, and pruning as the command line asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from probeline.cache.entries import Entry, read_entries
from probeline.cache.origin import Origin, origin
from probeline.cache.pruning import choose, leftovers, remove
from probeline.cache.uses import InUse, Use, recorded
from probeline.cache.uses import in_use as look
from probeline.cache.words import age_text, size_text
from probeline.errors import ProbelineError

_HEAD = ("entry", "rule", "dataset", "model", "made", "used", "size", "by", "in use", "of")
_RIGHT = ("made", "used", "size", "in use")


@dataclass(frozen=True)
class Contents:
    """A cache as it is now.

    Attributes
    ----------
    entries : list of Entry
        Those that are probeline's.
    origins : dict of str to Origin
        By key.
    used : dict of str to float
        When each was last used, in seconds since the epoch: made, or seen at the start or the end
        of a run that had it.
    in_use : InUse
    foreign : int
        Entries of other workflows, which are left alone.
    now : float
    """

    entries: list[Entry]
    origins: dict[str, Origin]
    used: dict[str, float]
    in_use: InUse
    foreign: int
    now: float


def read_contents(cache: Path, others: Iterable[Path] = ()) -> Contents:
    """Read a cache, and look into the working directories that use it.

    Parameters
    ----------
    others : iterable of Path
        Folders with links to it that it may not know of.

    Raises
    ------
    ProbelineError
        If a record of the cache, or one of `others`, cannot be read.
    """
    uses, every = recorded(cache), read_entries(cache)
    origins = {entry.key: origin(entry) for entry in every}
    own = [entry for entry in every if origins[entry.key].rule]
    return Contents(
        own,
        origins,
        {entry.key: _last_used(entry, uses) for entry in own},
        look(uses, others),
        len(every) - len(own),
        time.time(),
    )


def _last_used(entry: Entry, uses: list[Use]) -> float:
    return max([entry.made, *(use.seen for use in uses if entry.key in use.entries)])


def show(cache: Path, contents: Contents, console: Console) -> None:
    """Print the entries, least recently used first, and what they need together."""
    by_use = sorted(contents.entries, key=lambda entry: (contents.used[entry.key], entry.key))
    rows = [_HEAD, *(_row(entry, contents) for entry in by_use)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if by_use else []:
        cells = zip(_HEAD, row, widths, strict=True)
        padded = [t.rjust(w) if name in _RIGHT else t.ljust(w) for name, t, w in cells]
        _say(console, "  ".join(padded).rstrip())
    size = sum(entry.size for entry in contents.entries)
    _say(console, f"{cache}: {_count(contents.entries)}, {size_text(size)}")
    if contents.foreign:
        _say(console, f"{contents.foreign} more of other workflows, which are left alone")
    _tell_unseen(contents.in_use, console)


def _row(entry: Entry, contents: Contents) -> tuple[str, ...]:
    of = contents.origins[entry.key]
    folders = len(contents.in_use.links.get(entry.key, []))
    return (
        entry.key[:8],
        of.rule,
        of.dataset,
        of.model,
        age_text(contents.now - entry.made),
        age_text(contents.now - contents.used[entry.key]),
        size_text(entry.size),
        entry.owner,
        str(folders) if folders else "-",
        of.detail,
    )


def prune(
    cache: Path,
    contents: Contents,
    console: Console,
    older_than: float | None,
    keep: int | None,
    dry_run: bool,
    others: Iterable[Path] = (),
) -> None:
    """Remove what nothing uses and was not used for long, or what is above a size; say what.

    Raises
    ------
    ProbelineError
        If entries cannot be removed, a line each.
    """
    in_use = contents.in_use
    choice = choose(contents.entries, contents.used, in_use, contents.now, older_than, keep)
    left = [] if in_use.running else leftovers(cache, contents.now)
    gone, refused = [entry.key for entry in choice.entries], []
    if not dry_run:
        gone, refused = remove(cache, choice.entries, left, lambda: look(recorded(cache), others))
    removed = [entry for entry in choice.entries if entry.key in set(gone)]
    for entry in removed:
        _say(console, _line(entry, contents))
    verb = "would be removed" if dry_run else "removed"
    size = sum(entry.size for entry in removed)
    _say(console, f"{_count(removed)} {verb}, {size_text(size)}")
    if left:
        _say(console, f"{len(left)} leftovers of killed runs {verb}")
    if choice.young:
        _say(console, f"{choice.young} more stay: they were stored within the last hour")
    if choice.short:
        _say(console, f"{size_text(choice.short)} more than asked for stay, since they are in use")
    _tell_unseen(contents.in_use, console)
    if refused:
        raise ProbelineError("; ".join(refused[:3]) + _and_more(refused[3:]))


def _line(entry: Entry, contents: Contents) -> str:
    of = contents.origins[entry.key]
    what = " ".join(filter(None, (of.rule, of.dataset, of.model)))
    used = age_text(contents.now - contents.used[entry.key])
    return f"{entry.key[:8]}  {what}, {size_text(entry.size)}, last used {used} ago"


def _and_more(lines: list[str]) -> str:
    return f"; and {len(lines)} more" if lines else ""


def _tell_unseen(found: InUse, console: Console) -> None:
    for use in found.unseen:
        stays = "a run goes on there, so that all stays" if use.running else "what it had stays"
        _say(
            console,
            f"{use.folder} (of {use.user} on {use.host}) cannot be looked at from here: {stays}; "
            f"if it is gone: probeline cache --forget {use.folder}",
        )


def _count(entries: list) -> str:
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
