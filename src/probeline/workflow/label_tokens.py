"""What labels as tokens make and read: names of files, parts of rules."""

from __future__ import annotations

from probeline import versions
from probeline.config import INITIALIZATIONS, LABEL_TOKENS, READS_TEXTS
from probeline.models.weights import sampled_hash
from probeline.workflow.sources import Sources

# How often a training saves its state, and whom it tells of its progress.
ASIDE = ("checkpoint_minutes", "report_to")


def series_name(initialization: str) -> str:
    """File name, seed apart, of what is trained from one kind of first embeddings."""
    return f"{LABEL_TOKENS}-{initialization}"


def described(series: str) -> dict[str, str]:
    """Method of a series of runs and, where a method has several, which of them it is."""
    for initialization in INITIALIZATIONS:
        if series == series_name(initialization):
            return {"method": LABEL_TOKENS, "series": initialization}
    return {"method": series}


class LabelTokenRuns(Sources):
    """Models that are trained with labels as tokens."""

    @property
    def label_token_seeds(self) -> list[int]:
        return self.config.seeds(self.config.label_tokens)

    def label_token_names(self, model: str) -> dict[str, dict[int, str]]:
        """Names of the files of one cell, by series and seed."""
        if not self.config.reads_labels(model):
            return {}
        found = [series_name(one) for one in self.config.label_tokens.initializations]
        return {
            series: {seed: f"{series}-{seed}" for seed in self.label_token_seeds}
            for series in found
        }

    def label_token_figures(self) -> list[str]:
        return [
            f"results/figures/{dataset}/{task}/{model}/{name}.svg"
            for dataset, model in self.pairs
            for task in self.config.tasks(dataset)
            for files in self.label_token_names(model).values()
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
        return {
            "texts": self.config.label_tokens.attention,
            "device": self.config.model_spec(model)["device"],
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

    def label_token_params(self, dataset: str, task: str, model: str, initialization: str) -> dict:
        spec = self.config.model_spec(model)
        # Weights are trained in float32, whatever the type that they are run in.
        for key in ("layers", "dtype"):
            spec.pop(key)
        options = self.config.section("label_tokens")
        # Who is trained, by which seeds and how, is said by the outputs and by `training`.
        for key in ("attention", "finetune", "initializations", "models", "seeds"):
            options.pop(key)
        options["initialization"] = initialization
        if initialization in READS_TEXTS:
            options["label_texts"] = self.label_texts(dataset, task)
        training = self.config.label_token_training()
        for key in ("models", "seeds", *ASIDE):
            training.pop(key)
        return {
            "spec": spec,
            "package": sampled_hash(self.files_of(model, "package")),
            "label_tokens": options,
            "options": training,
            "metric": self.config.metric(dataset, task),
            "version": versions.LABEL_TOKENS,
            "finetune_version": versions.FINETUNE,
        }

    def label_token_aside(self) -> dict:
        """Options of the training that leave its result as it is."""
        training = self.config.label_token_training()
        return {key: training[key] for key in ASIDE}
