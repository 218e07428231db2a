"""The extract job: pinned revision, no network, resume data beside the results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from probeline.activations.names import parse_name
from probeline.files import read_json


def run_extract(
    dataset_folder: Path,
    out_folder: Path,
    pinned: str | None,
    threads: int,
    shards: Iterable[str],
    settings: Mapping,
) -> None:
    """Run the extract stage of one model over one dataset.

    Parameters
    ----------
    pinned : path or None
        JSON with the commit that the fetch rule brought into the cache; None for folders and
        packages.
    threads : int
        CPU threads of the forward pass.
    shards : iterable of str
        Names of the files to write; those that do not end in .h5 are written anyway.
    settings : mapping
        model, spec, options, seed.
    """
    # Before huggingface_hub is imported: it reads this once. The fetch rule was the only download.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from probeline.activations.extract import extract

    torch.set_num_threads(threads)
    spec = dict(settings["spec"])
    if pinned:
        # No commit: a folder or package, of which only the tokenizer was fetched.
        spec["revision"] = read_json(pinned)["commit"] or spec.get("revision")
    stored = [parse_name(name) for name in shards if name.endswith(".h5")]
    options = {
        **settings["options"],
        "representations": list(dict.fromkeys(representation for representation, _, _ in stored)),
        "poolings": list(dict.fromkeys(pooling for _, pooling, _ in stored)),
    }
    # Outside the declared outputs, which Snakemake deletes when a job fails.
    state = Path(".probeline") / "extract" / out_folder.parent.name / out_folder.name
    extract(
        dataset_folder,
        settings["model"],
        spec,
        options,
        out_folder,
        state,
        settings["seed"],
    )
