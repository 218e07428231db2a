"""The rerun table of the library's own changes: a stage with a raised version, and what follows."""

from __future__ import annotations

import re
import shutil

import pytest
import snake
from rerun_table import (
    ALL,
    END,
    FIGURES,
    FROM_AGGREGATE,
    FROM_DATASET,
    FROM_EXTRACT,
    FROM_PROBE,
    TABLES,
    table,
)

VERSIONS = {
    "TEXTS": ALL,
    "DATASET": table(*FROM_DATASET),
    "CARD": table("card"),
    "EXTRACT": table(*FROM_EXTRACT),
    "SHARD_FORMAT": table(*FROM_EXTRACT),
    "PROBE": table(*FROM_PROBE),
    "SPARSIFY": table("sparsify", *FROM_AGGREGATE),
    "AGGREGATE": table(*FROM_AGGREGATE),
    "CLASSIFIER": table(*END),
    "SENTENCE_EMBEDDING": table("sentence_embedding", *TABLES, *FIGURES),
    "TFIDF": table("tfidf", *TABLES),
    "JOIN": table(),  # for extractions that several jobs share
    # Of methods that this project does not run.
    "ZERO_SHOT": table(),
    "ICL": table(),
    "FINETUNE": table(),
    **dict.fromkeys(("GIVEN", "CROSSFIT", "TRIPLETS", "TUNE", "RERANK"), table()),
    **dict.fromkeys(("ABLATIONS", "LRSL_TABLES"), table()),
    "LABEL_TOKENS": table(),
    **dict.fromkeys(("LABEL_ATTENTION", "LABEL_TOKENS_TABLE"), table()),
    "SEARCH": table(),
    "LAYERS": table("layers", *TABLES, *FIGURES),
    "PATH_PREDICTIONS": table(),  # for hierarchies
    "SUMMARY": table("summary"),
    "COMPARISONS": table("comparisons"),
    "FIGURES": table(*FIGURES),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A copy of the library that comes before the installed one."""
    folder = tmp_path_factory.mktemp("library")
    source = snake.ROOT / "src" / "probeline"
    shutil.copytree(source, folder / "probeline", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("stage", VERSIONS)
def test_a_raised_version_runs_its_stage_and_what_follows(finished, library, stage):
    original = (snake.ROOT / "src" / "probeline" / "versions.py").read_text(encoding="utf-8")
    raised = re.sub(rf"(?m)^{stage} = \d+$", f"{stage} = 1001", original)
    assert raised != original
    (library / "probeline" / "versions.py").write_text(raised, encoding="utf-8")
    found = snake.planned(finished, PYTHONPATH=str(library), PYTHONDONTWRITEBYTECODE="1")
    assert snake.stages(found) == dict(sorted(VERSIONS[stage].items()))


def test_every_version_is_in_the_table():
    from probeline import versions

    names = {name for name in vars(versions) if name.isupper()}
    assert names - set(VERSIONS) == {"CLASSIFIER_FORMAT", "RERANKER_FORMAT"}
