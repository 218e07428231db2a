"""Where label tokens stand among the tokens of each text, and who attends to whom."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """The sequences of a batch: S = T + K places each, padding last.

    Attributes
    ----------
    order : torch.Tensor
        int64 (B, S): which of the T tokens of the text (below T) or of the K label tokens (from T
        on) stands at each place.
    real : torch.Tensor
        bool (B, S): no padding.
    labels : torch.Tensor
        bool (B, S): a label token.
    places : torch.Tensor
        int64 (B, K): where each label token stands.
    """

    order: torch.Tensor
    real: torch.Tensor
    labels: torch.Tensor
    places: torch.Tensor

    def pick(self, text: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Put values of the text's tokens (B, T, ...) and of the label tokens (B, K, ...) in order.

        Returns
        -------
        torch.Tensor, (B, S, ...)
        """
        return _at(torch.cat([text, labels], dim=1), self.order)

    def at_labels(self, values: torch.Tensor) -> torch.Tensor:
        """Of values (B, S, ...) those at the label tokens: (B, K, ...)."""
        return _at(values, self.places)

    def positions(self, shared: bool) -> torch.Tensor:
        """Position numbers from 0 on, int64 (B, S); `shared` gives all label tokens the same."""
        places = torch.arange(self.order.shape[1], device=self.order.device)
        if not shared:
            return places.expand(self.order.shape)
        count = self.places.shape[1]
        return places - (places - self.places[:, :1]).clamp(0, count - 1)


def _at(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    for _ in range(values.dim() - 2):
        index = index.unsqueeze(-1)
    return values.gather(1, index.expand(*index.shape[:2], *values.shape[2:]))


def arrange(mask: torch.Tensor, count: int, first: int | None) -> Layout:
    """Lay out texts with their label tokens.

    Parameters
    ----------
    mask : torch.Tensor
        bool (B, T): the tokens of each text that are no padding, which may stand on either side.
    count : int
        Label tokens K.
    first : int or None
        Tokens of the text before the label tokens; None puts these after the whole text.
    """
    length = mask.sum(1, keepdim=True)
    start = length if first is None else length.clamp(max=first)
    rank = mask.cumsum(1) - 1
    last = mask.shape[1] + count
    text = torch.where(mask, rank + count * (rank >= start), last)
    places = start + torch.arange(count, device=mask.device)
    order = torch.cat([text, places], dim=1).argsort(dim=1, stable=True)
    real = torch.arange(last, device=mask.device) < length + count
    return Layout(order, real, order >= mask.shape[1], places)


@dataclass(frozen=True)
class Rules:
    """Who may attend to whom.

    Attributes
    ----------
    causal : bool
        Only to what stands before.
    labels_attend : bool
        Label tokens to each other.
    isolated : bool
        Text not to label tokens.
    """

    causal: bool
    labels_attend: bool
    isolated: bool


def allowed(
    layout: Layout, rules: Rules, positions: torch.Tensor, window: int | None = None
) -> torch.Tensor:
    """Which token (second last axis) attends to which (last axis).

    Every place attends to itself, so that no row of scores is empty.

    Parameters
    ----------
    positions : torch.Tensor
        int64 (B, S), by which a window is measured.
    window : int, optional
        Attend to positions no further away: both sides inclusive, or with `causal` the last
        `window` positions, itself included.

    Returns
    -------
    torch.Tensor
        bool (B, 1, S, S)
    """
    places = torch.arange(layout.order.shape[1], device=layout.order.device)
    query, key = places[:, None], places[None, :]
    found = layout.real[:, None, :].expand(-1, len(places), -1)
    if rules.causal:
        found = found & (key <= query)
    if not rules.labels_attend:
        found = found & ~(layout.labels[:, :, None] & layout.labels[:, None, :])
    if rules.isolated:
        found = found & (layout.labels[:, :, None] | ~layout.labels[:, None, :])
    if window is not None:
        apart = positions[:, :, None] - positions[:, None, :]
        found = found & (apart < window if rules.causal else apart.abs() <= window)
    return (found | (query == key)).unsqueeze(1)
