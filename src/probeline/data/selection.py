"""What of a dataset's configuration decides its texts, their order and splits, labels apart.

Light: asked while a workflow is parsed. Activations depend on this and not on what the labels are
called, so that an edit of labels alone computes none anew.
"""

from __future__ import annotations

from collections.abc import Mapping

_LABELS = ("label", "label_names", "undefined")


def is_drawn(spec: Mapping) -> bool:
    """Whether rows are drawn at random: splits to be made, or `max_texts`."""
    splits = (spec["splits"]["validation"], spec["splits"]["test"])
    return spec["max_texts"] is not None or not all(isinstance(split, str) for split in splits)


def selection(params: Mapping) -> dict:
    """Return the part of a dataset stage's parameters that decides its texts.

    Parameters
    ----------
    params : mapping
        `spec` (an entry of ``datasets:`` without its metric and split seed), `seed`, ...

    Returns
    -------
    dict
        The same without what only says how labels are read. Stratified draws go by the labels:
        their columns stay in then, and which values count as one, but no name or order.
    """
    spec = dict(params["spec"])
    label, names, undefined = (spec.pop(key) for key in _LABELS)
    stratified = spec["max_texts"] is not None or spec["split_method"] == "stratified"
    if is_drawn(spec) and stratified:
        spec |= {"label": label, "undefined": undefined, "merged": merged(names)}
    return {**params, "spec": spec}


def merged(names: list | Mapping | None) -> list | dict:
    """Return the values that `label_names` sends to one name, sorted; by column in a hierarchy."""
    if not isinstance(names, Mapping):
        return []
    if any(isinstance(value, (list, Mapping)) for value in names.values()):
        return {column: merged(value) for column, value in names.items() if merged(value)} or []
    groups: dict[str, list[str]] = {}
    for value, name in names.items():
        groups.setdefault(str(name), []).append(str(value))
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
