"""The configuration of the papers' full matrix: frozen and fine-tuned models on three datasets."""

from __future__ import annotations

from pathlib import Path

# Number of blocks; none of these models needs to be at hand for a plan.
FROZEN = {
    "distilbert-base-uncased": 6,
    "roberta-base": 12,
    "gpt2": 12,
    "gpt2-medium": 24,
    "gpt2-large": 36,
    "gpt2-xl": 48,
    "google/flan-t5-small": 8,
    "google/flan-t5-base": 12,
    "google/flan-t5-large": 24,
    "google/flan-t5-xl": 24,
}
FINE_TUNED = {
    "imdb": {
        "lvwerra/distilbert-imdb": 6,
        "wrmurray/roberta-base-finetuned-imdb": 12,
        "mnoukhov/gpt2-imdb-sentiment-classifier": 12,
        "edbeeching/gpt2-medium-imdb": 24,
        "edbeeching/gpt2-large-imdb": 36,
        "edbeeching/gpt2-xl-imdb": 48,
    },
    "edos": {
        "lct-rug-2022/edos-2023-baseline-distilbert-base-uncased-label_sexist": 6,
        "lct-rug-2022/edos-2023-baseline-roberta-base-label_sexist": 12,
    },
    "sst2": {
        "distilbert-base-uncased-finetuned-sst-2-english": 6,
        "textattack/roberta-base-SST-2": 12,
        "PavanNeerudu/gpt2-finetuned-sst2": 12,
        "michelecafagna26/gpt2-medium-finetuned-sst2-sentiment": 24,
    },
}
_ROWS = "text,label\na text,sexist\nanother text,not sexist\n"


def matrix(folder: Path) -> dict:
    """The configuration: 10 models on every dataset, 12 on the one they were fine-tuned on.

    EDOS is on no hub, so that files stand in `folder` for it; a plan does not read them.
    """
    splits = {split: f"{split}.csv" for split in ("train", "validation", "test")}
    for name in splits.values():
        (folder / name).write_text(_ROWS, encoding="utf-8")
    drawn = {"split_method": "datasets", "split_seed": 42}
    datasets = {
        "imdb": {
            "loader": "hub",
            "path": "stanfordnlp/imdb",
            "splits": {"train": "train", "validation": 0.2, "test": "test"},
            **drawn,
        },
        "sst2": {
            "loader": "hub",
            "path": "nyu-mll/glue",
            "config": "sst2",
            "text": "sentence",
            "splits": {"train": "train", "validation": 0.03, "test": "validation"},
            **drawn,
        },
        "edos": {"loader": "csv", "path": str(folder), "splits": splits, "metric": "macro-f1"},
    }
    models = dict(FROZEN)
    for tuned in FINE_TUNED.values():
        models |= tuned
    runs = [{"model": [slug(path) for path in FROZEN], "dataset": list(datasets)}]
    runs += [
        {"model": [slug(path) for path in tuned], "dataset": dataset}
        for dataset, tuned in FINE_TUNED.items()
    ]
    return {
        "models": {slug(path): {"path": path, "layers": n} for path, n in models.items()},
        "datasets": datasets,
        "runs": runs,
        "extract": {"poolings": ["first", "last", "max", "mean"]},
    }


def slug(path: str) -> str:
    """A name for a hub id: its last part."""
    return path.rpartition("/")[2][:64]
