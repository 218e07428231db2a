"""What labels as tokens make and read: names of files, parts of rules."""

from __future__ import annotations

from probeline import versions
from probeline.config import (
    ISOLATED,
    JOINT,
    LABEL_TOKENS,
    READS_TEXTS,
    REGULAR,
    SERIES,
    UNORDERED,
    series_of,
)
from probeline.errors import ProbelineError
from probeline.finetune.options import ASIDE
from probeline.models.reading import check_reading
from probeline.workflow.sources import Sources

# Special tokens of a pair of texts.
_FRAME = 3

# What the classifier is told of how its label tokens read, where it is not as usual.
_READINGS = {UNORDERED: {"shared_positions": True, "labels_attend": False}}
_READINGS[ISOLATED] = {"isolated": True}


def series_name(series: str) -> str:
    """File name, seed apart, of a series of runs; see `series_of`."""
    return f"{LABEL_TOKENS}-{series}"


def described(name: str) -> dict[str, str]:
    """Method of a series of runs and, where a method has several, which of them it is."""
    for series in SERIES:
        if name == series_name(series):
            return {"method": LABEL_TOKENS, "series": series}
    return {"method": name}


class LabelTokenRuns(Sources):
    """Models that are trained with labels as tokens."""

    def _check_model(self, model: str) -> None:
        super()._check_model(model)
        if self.config.reads_labels(model) or self._is_searched(model):
            self._check_room(model)
            for reading in self.config.label_tokens.readings:
                self._check_reading(model, reading)

    def _is_searched(self, model: str) -> bool:
        search = self.config.search
        return LABEL_TOKENS in search.classifiers and self.config.chosen(search.models, model)

    def _check_reading(self, model: str, reading: str) -> None:
        kind, position = self.shapes[model].model_type, self.config.label_tokens.position
        if kind is None:  # not there yet; the job will say
            return
        told = {"shared_positions": False, "labels_attend": True} | _READINGS.get(reading, {})
        isolated = told.pop("isolated", False)
        if isolated:
            told = {"shared_positions": True, "labels_attend": False}
        try:
            check_reading(kind, position, **told)
        except ProbelineError as error:
            where = f"readings: {reading}: " if reading != JOINT else ""
            raise ProbelineError(f"label_tokens.{where}{error}") from None

    def _check_room(self, model: str) -> None:
        """Refuse labels per pass that leave a text nothing, however many labels there are."""
        section, most = self.config.label_tokens, self.shapes[model].max_positions
        if most is None or JOINT not in section.readings:
            return
        given = {key: getattr(section, key) for key in ("chunk", "shortlist")}
        asked = {key: count for key, count in given.items() if count is not None}
        if asked and min(asked.values()) >= most - _FRAME:
            key = min(asked, key=asked.get)
            raise ProbelineError(
                f"label_tokens.{key}: {asked[key]} label tokens leave no room for text in the "
                f"model's {most} positions; set it to at most {most - _FRAME - 1}"
            )

    @property
    def label_token_seeds(self) -> list[int]:
        return self.config.seeds(self.config.label_tokens)

    @property
    def label_token_series(self) -> list[str]:
        """Every kind of first embeddings, each way to read."""
        section = self.config.label_tokens
        return [
            series_of(one, reading)
            for reading in section.readings
            for one in section.initializations
        ]

    def label_token_names(self, model: str) -> dict[str, dict[int, str]]:
        """Names of the files of one cell, by series and seed."""
        if not self.config.reads_labels(model):
            return {}
        found = [series_name(series) for series in self.label_token_series]
        return {name: {seed: f"{name}-{seed}" for seed in self.label_token_seeds} for name in found}

    def regular_names(self, model: str) -> dict[str, dict[int, str]]:
        """Names of the files of the classifiers that label tokens are compared with, as above."""
        if not self.config.is_counterpart(model):
            return {}
        return {REGULAR: {seed: f"{REGULAR}-{seed}" for seed in self.label_token_seeds}}

    def label_token_figures(self) -> list[str]:
        return [
            f"results/figures/{dataset}/{task}/{model}/{name}.svg"
            for dataset, model in self.pairs
            for task in self.config.tasks(dataset)
            for files in (self.label_token_names(model) | self.regular_names(model)).values()
            for name in files.values()
        ]

    def label_attention(self) -> list[str]:
        """Pages that show what labels look at."""
        if not self.config.label_tokens.attention:
            return []
        return [
            f"results/attention/{dataset}/{task}/{model}/{name}.html"
            for dataset, model in self.pairs
            for task in self.config.tasks(dataset)
            for files in self.label_token_names(model).values()
            for name in files.values()
        ]

    def label_attention_params(self, model: str) -> dict:
        spec = self.config.model_spec(model)
        return {
            "texts": self.config.label_tokens.attention,
            "device": spec["device"],
            "trust_remote_code": spec["trust_remote_code"],
            "version": versions.LABEL_ATTENTION,
        }

    def first_stage(self, dataset: str, task: str, model: str) -> dict[str, str]:
        """Files that say which labels are read of a text, by name; none where all are."""
        if self.config.label_tokens.shortlist is None:
            return {}
        place = f"{dataset}/{task}/{model}"
        found = {
            "ranking": f"results/predictions/{place}/stc.h5",
            "first_stage": f"results/classifiers/{place}",
        }
        if self.config.lrsl.crossfit:
            found["crossfit"] = f"results/lrsl/{place}/stc/crossfit.h5"
        return found

    def regular_params(self, dataset: str, task: str, model: str) -> dict:
        params = self._training_params(dataset, task, model)
        return params | {"thresholds": self.config.label_tokens.thresholds}

    def _training_params(self, dataset: str, task: str, model: str) -> dict:
        spec = self.config.model_spec(model)
        # Weights are trained in float32, whatever the type that they are run in.
        for key in ("layers", "dtype"):
            spec.pop(key)
        training = self.config.label_token_training()
        for key in ("models", "seeds", *ASIDE):
            training.pop(key)
        return {
            "spec": spec,
            "package": self.sample_of(model),
            "options": training,
            "metric": self.config.metric(dataset, task),
            "finetune_version": versions.FINETUNE,
        }

    def label_token_params(self, dataset: str, task: str, model: str, series: str) -> dict:
        initialization, reading = SERIES[series]
        options = self.config.section("label_tokens")
        # Who is trained, by which seeds and how, is said by the outputs and by `training`.
        for key in (*("attention", "finetune", "initializations", "models", "readings", "seeds"),):
            options.pop(key)
        options |= _READINGS.get(reading, {})
        options["initialization"] = initialization
        if initialization in READS_TEXTS:
            options["label_texts"] = self.label_texts(dataset, task)
        params = self._training_params(dataset, task, model)
        return params | {"label_tokens": options, "version": versions.LABEL_TOKENS}

    def label_token_aside(self) -> dict:
        """Options of the training that leave its result as it is."""
        training = self.config.label_token_training()
        return {key: training[key] for key in ASIDE}
