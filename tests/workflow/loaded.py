"""Loading what jobs load, once, for processes whose forks run them."""

from __future__ import annotations

import contextlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_LIBRARIES = (
    "accelerate",
    "altair",
    "datasets",
    "faiss",
    "h5py",
    "iterstrat.ml_stratifiers",
    "optuna",
    "pandas",
    "pyarrow.parquet",
    "safetensors.torch",
    "sentence_transformers",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "snakemake.iocontainers",
    "statsmodels.api",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.trainer",
    "vl_convert",
)


def load_everything() -> None:
    """Import the libraries, and every module of probeline."""
    for library in _LIBRARIES:
        import_module(library)
    (folder,) = find_spec("probeline").submodule_search_locations
    for path in Path(folder).rglob("*.py"):
        name = ".".join(("probeline", *path.relative_to(folder).with_suffix("").parts))
        if not name.endswith(("__main__", "__init__", "cli")):
            with contextlib.suppress(ImportError):
                import_module(name)
