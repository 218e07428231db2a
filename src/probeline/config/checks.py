"""Mistakes between values that are each right alone: names that must exist, parts that must fit.

Each check takes a `Draft` and skips what rests on a value already reported as wrong, so that one
mistake gives one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probeline.config.dataset_checks import dataset_problems
from probeline.config.draft import Draft
from probeline.config.keys import Problem
from probeline.config.lrsl_checks import lrsl_problems, scores_problems
from probeline.config.model_checks import baseline_problems, model_problems
from probeline.config.schema import Config, names
from probeline.config.sections import Extract, Probe
from probeline.config.words import hint, path_words, shown


def cross_problems(draft: Draft) -> list[Problem]:
    """Return every mistake between values that are each right alone."""
    found: list[Problem] = []
    found += model_problems(draft)
    for name, entry in draft.config.datasets.items():
        found += dataset_problems(entry, ("datasets", name), draft.sure)
    found += _run_problems(draft)
    found += _part_problems(draft)
    found += baseline_problems(draft)
    found += lrsl_problems(draft)
    found += scores_problems(draft)
    found += _probe_problems(draft)
    found += _combination_problems(draft)
    found += _layer_problems(draft)
    return found


def _run_problems(draft: Draft) -> Iterator[Problem]:
    for index, run in enumerate(draft.config.runs or []):
        for key, section in (("model", "models"), ("dataset", "datasets")):
            known = list(getattr(draft.config, section))
            # A whole section that is missing or misspelt makes every name unknown.
            if (section,) in draft.doubtful or not draft.sure("runs", index, key):
                continue
            for name in names(getattr(run, key)):
                if name not in known and draft.sure(section, name):
                    line = f"{shown(name)} is not one of {section} ({', '.join(known)})"
                    yield ("runs", index, key), line + hint(name, known)


def _part_problems(draft: Draft) -> Iterator[Problem]:
    """Entries that say two numbers of one pair."""
    if not draft.sure("runs"):
        return
    found: dict[int, str] = {}
    for dataset, model in draft.config.pairs():
        (first, said), *others = draft.config.said_parts(dataset, model).items() or [(0, None)]
        for place, parts in others:
            if parts != said:
                line = f"{parts}, but runs[{first}] says {said} for {model} on {dataset}"
                found.setdefault(place, line)
    for place, line in found.items():
        yield ("runs", place, "parts"), line


def _probe_problems(draft: Draft) -> Iterator[Problem]:
    for key in ("representations", "poolings"):
        chosen, stored = getattr(draft.config.probe, key), getattr(draft.config.extract, key)
        if chosen == "all" or not (draft.sure("probe", key) and draft.sure("extract", key)):
            continue
        for value in chosen:
            if value not in stored:
                yield (
                    ("probe", key),
                    f"'{value}' is not stored: extract.{key} holds {', '.join(stored)}",
                )


def _combination_problems(draft: Draft) -> Iterator[Problem]:
    sections = [(s, k) for s in ("extract", "probe") for k in ("representations", "poolings")]
    if not all(draft.sure(*path) for path in sections):
        return
    probed = [".".join(pair) for pair in draft.config.probed()]
    for name, members in draft.config.combinations.items():
        for member in members:
            if member not in probed and draft.sure("combinations", name):
                yield (
                    ("combinations", name),
                    f"'{member}' is not probed: probe and extract leave {', '.join(probed)}",
                )


def _layer_problems(draft: Draft) -> Iterator[Problem]:
    config = draft.config
    sections = [(s, k) for s in ("extract", "probe") for k in ("representations", "layers")]
    if not all(draft.sure(*path) for path in sections):
        return
    representations = list(dict.fromkeys(r for r, _ in config.probed()))
    if not representations:  # reported as not stored
        return
    stored, first = config.extract.representations, _first(representations)
    found = [
        *_layers_not_stored(config),
        *_layers_without_use("extract", config.extract, _first(stored)),
    ]
    yield from found or _layers_without_use("probe", config.probe, first)
    if draft.sure("aggregate", "depths"):
        yield from _depths_without_layer(config, first)
    if not any(r.startswith("decoder") for r in stored):
        yield from _beyond_last(draft)


def _first(representations: Iterable[str]) -> dict[str, int]:
    """First layer of each representation."""
    return {r: 1 if r.endswith("ffn") else 0 for r in representations}


def _layers_not_stored(config: Config) -> Iterator[Problem]:
    chosen, stored = config.probe.layers, config.extract.layers
    if "all" in (chosen, stored):
        return
    missing = [str(layer) for layer in chosen if layer not in stored]
    if missing:
        holds = ", ".join(map(str, stored))
        yield (
            ("probe", "layers"),
            f"{', '.join(missing)} not stored: extract.layers holds {holds}",
        )


def _layers_without_use(
    name: str, section: Extract | Probe, first: dict[str, int]
) -> Iterator[Problem]:
    path, layers = (name, "layers"), section.layers
    if layers == "all":
        return
    if 0 in layers and 0 not in first.values():
        yield path, "0 holds embeddings, for hidden only; layers of ffn start at 1"
        return
    for representation, start in first.items():
        if layers[-1] < start:
            yield (
                path,
                f"{shown(layers)} leaves no layer of {representation}, whose layers start at "
                f"{start}; leave it out of {name}.representations",
            )


def _depths_without_layer(config: Config, first: dict[str, int]) -> Iterator[Problem]:
    if config.aggregate.depths == "all":
        return
    least, layers = min(first.values()), config.probed_layers()
    if layers != "all":
        least = next((layer for layer in layers if layer >= least), least)
    for depth in config.aggregate.depths:
        if depth < least:
            yield (
                ("aggregate", "depths"),
                f"depth {depth} holds no probed layer: the first one is {least}",
            )


def _beyond_last(draft: Draft) -> Iterator[Problem]:
    config = draft.config
    wanted: list[tuple[tuple, Iterable[int] | str]] = [
        (("extract", "layers"), config.extract.layers),
        # Of those stored, which are looked at already.
        (("probe", "layers"), config.probe.layers if config.extract.layers == "all" else "all"),
        (("aggregate", "depths"), config.aggregate.depths),
    ]
    running = {model for _, model in config.pairs()}
    for path, numbers in wanted:
        for name in (n for n in config.models if n in running):
            last = config.models[name].layers
            if numbers == "all" or last is None or not draft.sure("models", name, "layers"):
                continue
            beyond = [str(n) for n in numbers if n > last]
            if beyond and draft.sure(*path):
                where = path_words(("models", name))
                yield path, f"{', '.join(beyond)} is beyond the last layer of {where}, {last}"
