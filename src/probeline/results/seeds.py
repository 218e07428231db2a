"""The mean score over the seeds of a method, and how far seeds and texts together move it.

Texts and seeds are two crossed ways to have drawn the scores, so both are resampled: a resample
draws n of the n texts, the same for every seed and method, and S of the S seeds, with replacement,
and its score is

    1/S sum over the drawn seeds s of score(predictions of s on the drawn texts)

This is the bootstrap of two crossed factors (pigeonhole bootstrap: Owen 2007, Annals of Applied
Statistics 1(2)), for trained networks the Multi-Bootstrap (Sellam et al. 2022, The MultiBERTs).
Seeds of two methods have nothing in common and are drawn apart.
"""

from __future__ import annotations

import numpy as np


def seed_means(scores: np.ndarray, seed: int, place: int = 0) -> np.ndarray:
    """Average the scores of seeds that are drawn anew for every resample of texts.

    Parameters
    ----------
    scores : ndarray of float64, shape (S, r)
        Of each seed on each resample, as `probeline.results.resamples.resampled_scores` gives them.
    seed, place : int
        Methods at different places draw apart.

    Returns
    -------
    ndarray of float64, shape (r,)
        The scores themselves of a method with one seed.

    Notes
    -----
    Drawing S of S seeds shows (S - 1) / S of the variance between seeds, as any bootstrap does: of
    two seeds only half. Intervals of few seeds are therefore on the narrow side.
    """
    seeds, resamples = scores.shape
    if seeds == 1:
        return scores[0]
    # A branch of its own: the seed as it is draws the texts.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place,)))
    drawn = rng.integers(0, seeds, (resamples, seeds))
    return np.take_along_axis(scores, drawn.T, axis=0).mean(axis=0)


def named_mean(seeds: int, series: str | None = None) -> str:
    """The variant of a row that stands for several seeds, of one series of a method's runs."""
    mean = f"mean of {seeds} seeds"
    return mean if series is None else f"{series}: {mean}"


_ON = "on "


def named_reranking(source: str, variant: str) -> str:
    """The variant of a reranking among those of other methods' predictions."""
    return f"{_ON}{source}: {variant}"


def reranked_source(variant: str) -> str:
    """Which method a reranking is of, by `named_reranking`."""
    return variant.removeprefix(_ON).partition(":")[0]
