"""Figures: score by layer, against the number of neurons kept, against the share of texts
reranked; learning curves; hyperparameter searches.

Altair, which is slow to import, is imported only when something is drawn.
"""

from __future__ import annotations

from probeline.results.figures.layer import layer_figure
from probeline.results.figures.pareto import Point, pareto_front, tradeoff_table, write_tradeoff
from probeline.results.figures.reranked import reranked_figure
from probeline.results.figures.search import search_figure
from probeline.results.figures.tradeoff import tradeoff_figure
from probeline.results.figures.training import training_figure

__all__ = [
    "Point",
    "layer_figure",
    "pareto_front",
    "reranked_figure",
    "search_figure",
    "tradeoff_figure",
    "tradeoff_table",
    "training_figure",
    "write_tradeoff",
]
