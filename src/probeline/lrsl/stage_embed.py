"""The embedding stage of a run: tune, and say what the weights are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from probeline.files import write_json
from probeline.lrsl.tune import tune
from probeline.models.weights import embedder_files, files_hash


def embed(
    dataset_folder: str | os.PathLike,
    task_name: str,
    triplets: str | os.PathLike,
    embedder: Mapping,
    out_folder: str | os.PathLike,
    identity: str | os.PathLike,
    state_folder: str | os.PathLike,
    settings: Mapping,
    seed: int,
    keep_state: bool = False,
) -> None:
    """Tune an embedding on triplets.

    Parameters
    ----------
    identity : path
        JSON that changes with the weights: that a tuning took longer is no reason to rerank again.
    settings : mapping
        `options` (the section `lrsl.tune`), `label_texts`, `template`.
    keep_state : bool
        See `probeline.lrsl.tune.tune`.

    Raises
    ------
    ProbelineError
        See `probeline.lrsl.tune.tune`.
    """
    tune(
        triplets,
        dataset_folder,
        task_name,
        embedder,
        out_folder,
        state_folder,
        settings["options"],
        seed,
        settings["label_texts"],
        settings["template"],
        keep_state,
    )
    write_json(identity, {"embedder": files_hash(embedder_files(Path(out_folder)))})
