"""The folder of a fine-tuned model."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import probeline
from probeline.files import replacing_folder, write_json
from probeline.finetune.curve import CURVE, write_curve
from probeline.finetune.folder import TRAINING, readable
from probeline.finetune.kind import REGULAR, Regular
from probeline.finetune.lora import ADAPTER, merge_adapter
from probeline.finetune.record import Record
from probeline.models.load import LoadedModel, quiet

if TYPE_CHECKING:
    from probeline.finetune.trainer import Job

_REPORTS = "runs"  # where transformers' integrations write, in the state folder


def write_output(
    folder: str | os.PathLike,
    job: Job,
    settings: Mapping,
    record: Record,
    found: Mapping,
    state: Path,
    kind: Regular = REGULAR,
) -> None:
    """Write the folder whole or not at all.

    Parameters
    ----------
    job : Job
        Its model has the weights that are kept.
    settings : mapping
        What decides the weights.
    found : mapping
        Scores and counts.
    state : Path
        State folder; what integrations such as tensorboard left there is taken along.
    kind : Regular
        Which classifier it is.
    """
    model, lora = job.model, job.options.lora
    with replacing_folder(folder) as temporary, quiet():
        model.tokenizer.save_pretrained(temporary)
        if lora is None:
            model.body.save_pretrained(temporary)
        else:
            _write_adapter(temporary / ADAPTER, model)
            if lora.merge:
                merge_adapter(temporary / ADAPTER, temporary / "merged")
                for file in (temporary / "merged").iterdir():
                    file.replace(temporary / file.name)
                (temporary / "merged").rmdir()
        kind.write(temporary)
        write_curve(record.history, temporary / CURVE)
        write_json(
            temporary / TRAINING,
            {
                "probeline": probeline.__version__,
                "method": kind.method,
                "labels": list(job.task.labels),
                "multilabel": job.task.multilabel,
                "settings": dict(settings),
                "options": job.options.plain(),
                "found": dict(found),
                "history": record.history,
            },
        )
        if (state / _REPORTS).is_dir():
            shutil.copytree(state / _REPORTS, temporary / _REPORTS)
        readable(temporary, temporary / TRAINING)


def _write_adapter(folder: Path, model: LoadedModel) -> None:
    adapted = model.body
    base = str(model.source.folder.resolve())
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = base
        config.revision = None
    adapted.save_pretrained(folder)
    # With the labels' names and the padding, which adapter_config.json has no place for; a body
    # that was in 4 bits while it was trained is merged whole.
    described = copy.deepcopy(adapted.get_base_model().config)
    described.__dict__.pop("quantization_config", None)
    described.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form
