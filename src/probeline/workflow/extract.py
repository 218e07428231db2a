"""The extract job: pinned revision, no network, resume data beside the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from probeline.activations.names import parse_name
from probeline.workflow.models import offline_spec
from probeline.workflow.staging import TMPDIR, state_folder
from probeline.workflow.states import held


def run_extract(
    dataset_folder: Path,
    out_folder: Path,
    pinned: str | None,
    threads: int,
    shards: Iterable[str],
    settings: Mapping,
    staging: str | None = None,
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
        model, spec, options, seed; of a job that shares the work with others also `part`, its
        number and how many there are.
    staging : str, optional
        Where unfinished shards lie, see `probeline.workflow.staging`.
    """
    spec = offline_spec(settings["spec"], pinned, threads)

    from probeline.activations.extract import extract
    from probeline.activations.parts import Part

    shards = list(shards)
    stored = [parse_name(name) for name in shards if name.endswith(".h5")]
    options = {
        **settings["options"],
        "representations": list(dict.fromkeys(representation for representation, _, _ in stored)),
        "poolings": list(dict.fromkeys(pooling for _, pooling, _ in stored)),
        "layers": list(dict.fromkeys(layer for _, _, layer in stored)),
    }
    part = Part(*settings["part"]) if "part" in settings else None
    dataset, *own = out_folder.parts[-2 if part is None else -3 :]
    place = ("extract", dataset, ".".join(own))
    made = out_folder / shards[0]
    with held(*place, folder=state_folder(staging, *place), made=made) as state:
        extract(
            dataset_folder,
            settings["model"],
            spec,
            options,
            out_folder,
            state,
            settings["seed"],
            # What is on a node's own disk nobody would remove at the end of the run.
            keep_state=staging != TMPDIR,
            part=part,
        )
