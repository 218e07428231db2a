"""What a run writes: names and numbers of files, of rules' inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probeline.activations.names import (
    LENGTHS,
    bytes_per_text,
    chosen_layers,
    part_folder,
    shard_name,
    shard_names,
)
from probeline.config import NO_MODEL, PATH_TASK, Origin
from probeline.workflow.label_tokens import described
from probeline.workflow.search import Searches
from probeline.workflow.sources import identity_file

# Neurons one probe job should read, all layers together: a job then lasts long enough to be worth
# its start, and a model of any size still gives several jobs.
_NEURONS_PER_JOB = 10_000


@dataclass(frozen=True)
class ProbeGroup:
    """Layers whose probes one job trains.

    Parameters
    ----------
    representation : str
    number : int
        Which of a model's groups it is.
    names : tuple of str
        File names of the probes, `{pooling}` left open.
    """

    representation: str
    number: int
    names: tuple[str, ...]

    @property
    def rule(self) -> str:
        """Name of the rule, which ends in the first and the last layer."""
        ends = dict.fromkeys(name.split(".")[-2] for name in (self.names[0], self.names[-1]))
        return f"probe_{self.representation}_{self.number}_{'-'.join(ends)}"


class Artifacts(Searches):
    """Files of a run."""

    def dataset_artifacts(self, dataset: str) -> dict[str, str]:
        folder = f"results/datasets/{dataset}"
        return {
            "texts": f"{folder}/texts.parquet",
            "labels": f"{folder}/labels.parquet",
            "manifest": f"{folder}/dataset.json",
        }

    @property
    def gpu_probed_cells(self) -> list[tuple[str, str, str]]:
        """Cells whose probes are trained by one job on a GPU each; none without one."""
        if self.config.probe.device != "cuda":
            return []
        return [cell for cell in self.cells() if self.probed(cell[2])]

    def layers(self, model: str, representation: str) -> list[int]:
        """Layers that are probed."""
        return chosen_layers(self.shapes[model], representation, self.config.probed_layers())

    def names(self, model: str, representation: str, pooling: str) -> list[str]:
        """File names of the probed layers, the same for shards and probes."""
        shape = self.shapes[model]
        return [
            shard_name(shape, representation, pooling, layer)
            for layer in self.layers(model, representation)
        ]

    def probe_groups(self) -> dict[ProbeGroup, list[str]]:
        """Groups of layers, each with the models that have it: fewer rules than one per model.

        None where a GPU trains all probes of a model together.
        """
        found: dict[ProbeGroup, list[str]] = {}
        if self.config.probe.device == "cuda":
            return found
        for model in self.models:
            for representation in self.representations(model):
                for group in self._groups(model, representation):
                    found.setdefault(group, []).append(model)
        return found

    def _groups(self, model: str, representation: str) -> Iterator[ProbeGroup]:
        names = self.names(model, representation, "mean")
        opened = tuple(name.replace(".mean.", ".{pooling}.") for name in names)
        size = self.config.probe.layers_per_job
        if size == "auto":
            # By the model alone, so that no other edit moves a probe to another job.
            size = max(1, _NEURONS_PER_JOB // (self._width(model, representation) or 1024))
        for number, start in enumerate(range(0, len(opened), size)):
            yield ProbeGroup(representation, number, opened[start : start + size])

    def _width(self, model: str, representation: str) -> int | None:
        """Columns of a shard, None where they are not known from the beginning of a run to its end.

        With `layers:` a hub model is planned before the fetch rule has brought its config.json; the
        jobs of a cluster, which plan again, must find the same groups.
        """
        origin = self.config.origin(model)
        source = origin.model if origin else model
        if self.config.models[source].layers is not None and self.is_fetched(source):
            return None
        return self.shapes[model].width(representation)

    def shards(self, dataset: str, model: str, sources: list[tuple[str, str]]) -> list[str]:
        """Shards of the probed layers."""
        folder = f"results/activations/{dataset}/{model}"
        return [f"{folder}/{name}" for r, p in sources for name in self.names(model, r, p)]

    def stored_shards(
        self, dataset: str, model: str, source: tuple[str, str] | None = None
    ) -> list[str]:
        """Shards of all layers that are stored, probed or not; of one (representation, pooling) or
        of all."""
        names = self.shard_names(model)
        if source:
            layers = self.config.extract.layers
            names = shard_names(self.shapes[model], [source[0]], [source[1]], layers)
        return [f"results/activations/{dataset}/{model}/{name}" for name in names]

    @property
    def joined_pairs(self) -> list[tuple[str, str]]:
        """Pairs whose extraction several jobs share."""
        return [pair for pair in self.pairs if self.config.parts(*pair) > 1]

    def extract_place(self, dataset: str, model: str) -> str:
        """Where an extract job writes, `{part}` left open where several share the work."""
        parts = self.config.parts(dataset, model)
        own = "" if parts == 1 else f"/{part_folder('{part}', parts)}"
        return f"{dataset}/{model}{own}"

    def extract_names(self, dataset: str, model: str) -> list[str]:
        """Names of the files that an extract job writes."""
        counts = "tokens.json" if self.config.parts(dataset, model) == 1 else LENGTHS
        return [*self.shard_names(model), counts, "timing.json"]

    def bytes_per_text(self, model: str) -> int | None:
        """What a text takes on disk in all shards of a model; None where that is not known yet."""
        names = self.shard_names(model)
        return bytes_per_text(self.shapes[model], names, self.config.extract.storage_dtype)

    def part_files(self, dataset: str, model: str, last: bool = False) -> list[str]:
        """What the jobs that share an extraction write: all of it, or the last file of each."""
        place = f"results/activations/{self.extract_place(dataset, model)}"
        names = self.extract_names(dataset, model)[-1 if last else 0 :]
        return [
            f"{place.format(part=number)}/{name}"
            for number in range(1, self.config.parts(dataset, model) + 1)
            for name in names
        ]

    def probes(self, dataset: str, task: str, model: str, sources: list) -> list[str]:
        folder = f"results/probes/{dataset}/{task}/{model}"
        return [f"{folder}/{name}" for r, p in sources for name in self.names(model, r, p)]

    def probed(self, model: str) -> list[tuple[str, str]]:
        """(representation, pooling) with at least one probed layer in this model."""
        return [(r, p) for r, p in self.config.probed() if self.layers(model, r)]

    def slugs(self, model: str) -> dict[str, list[tuple[str, str]]]:
        """What is aggregated: single (representation, pooling), then combinations."""
        single = {f"{r}.{p}": [(r, p)] for r, p in self.probed(model)}
        return single | self.config.combined()

    def representations(self, model: str) -> list[str]:
        return list(dict.fromkeys(r for r, _ in self.probed(model)))

    def tables(self, dataset: str, task: str, model: str, slug: str) -> list[str]:
        folder = f"results/neurons/{dataset}/{task}/{model}"
        return [f"{folder}/{r}.{p}.parquet" for r, p in self.slugs(model)[slug]]

    def grids(self, dataset: str, task: str, model: str) -> dict[str, str]:
        folder = f"results/aggregates/{dataset}/{task}/{model}"
        return {slug: f"{folder}/{slug}.parquet" for slug in self.slugs(model)}

    def embedding_shard(self, model: str) -> str | None:
        """File name of the mean-pooled last hidden state, None where it is not stored."""
        last = self.shapes[model].layers
        stored = ("hidden", "mean") in self.config.stored() and self.config.stores_layer(last)
        return shard_name(self.shapes[model], "hidden", "mean", last) if stored else None

    def embedding_file(self, dataset: str, model: str) -> str:
        """Shard of the mean-pooled last hidden state, which is stored."""
        return f"results/activations/{dataset}/{model}/{self.embedding_shard(model)}"

    def neighbours_file(self, dataset: str, model: str) -> str | list:
        """Shard by which in-context learning finds the nearest training texts; else nothing."""
        section = self.config.icl
        if section.select != "nearest":
            return []
        return self.embedding_file(dataset, section.neighbours or model)

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """(dataset, task, model) of every result."""
        for dataset, model in self.pairs:
            for task in self.config.tasks(dataset):
                yield dataset, task, model

    def cell_artifacts(self, dataset: str, task: str, model: str) -> dict[str, str]:
        """Files of one cell by role; those of the baseline only where it can be computed."""
        scores = f"results/scores/{dataset}/{task}/{model}"
        files = {
            "layers": f"results/layers/{dataset}/{task}/{model}.parquet",
            "stc": f"{scores}/stc.json",
            "classifier": f"results/classifiers/{dataset}/{task}/{model}",
        }
        if self.embeds("sentence-embedding", model):
            files["sentence_embedding"] = f"{scores}/sentence-embedding.json"
        return files

    def level_predictions(self, dataset: str, model: str, method: str) -> list[str]:
        """One method's predictions of every level of a hierarchy, coarse to fine."""
        levels = self.config.tasks(dataset)
        return [f"results/predictions/{dataset}/{level}/{model}/{method}.h5" for level in levels]

    def path_predictions(self, dataset: str, model: str) -> list[str]:
        """Predictions of whole paths through a hierarchy, a file per method and seed; else none."""
        if len(self.config.tasks(dataset)) == 1:
            return []
        methods = self.methods(dataset, PATH_TASK, model)
        return list(dict.fromkeys(path for method in methods for path in method["paths"]))

    def all_paths(self) -> list[str]:
        """Predictions of whole paths of every hierarchy, each once."""
        found = [path for pair in self.pairs for path in self.path_predictions(*pair)]
        return list(dict.fromkeys(found))

    def figure_inputs(self, dataset: str, task: str, model: str) -> dict[str, str]:
        """Inputs of the figures by name."""
        files = self.cell_artifacts(dataset, task, model)
        inputs = {"layers": files["layers"], "scores": files["stc"]}
        if "sentence_embedding" in files:
            inputs["embedding"] = files["sentence_embedding"]
        return inputs

    def embeds(self, baseline: str, model: str) -> bool:
        """Whether a baseline that reads embeddings of the texts runs for a model."""
        return baseline in self.config.baselines and self.embedding_shard(model) is not None

    def baselines(self, dataset: str, task: str, model: str) -> dict[str, dict[int | None, str]]:
        """Baselines of one cell: by method the names of its files, by seed (None: it has none).

        A method that has several series of runs stands under the name of each; see `described`.
        Of whole paths through a hierarchy those that score every text.
        """
        found: dict[str, dict[int | None, str]] = {}
        for baseline in ("sentence-embedding", "zero-shot"):
            if self.embeds(baseline, model):
                found[baseline] = {None: baseline}
        if self._asked(task, model):
            seeds = self.config.seeds(self.config.icl)
            found["icl"] = {seed: f"icl-{seed}" for seed in seeds}
        seeds = self._trained_seeds(dataset, task, model)
        if seeds:
            found["finetune"] = {seed: f"finetune-{seed}" for seed in seeds}
        return found | self.regular_names(model) | self.label_token_names(model)

    def _asked(self, task: str, model: str) -> bool:
        """Whether in-context learning runs for a model, and on all texts where paths need them."""
        section = self.config.icl
        if "icl" not in self.config.baselines or not self.config.chosen(section.models, model):
            return False
        limits = section.max_texts
        return task != PATH_TASK or limits.validation is limits.test is None

    def _trained_seeds(self, dataset: str, task: str, model: str) -> list[int]:
        """Seeds of the fine-tuned classifiers of a cell, those of all levels for whole paths."""
        levels = self.config.tasks(dataset) if task == PATH_TASK else [task]
        tuned = self.config.origin(model)
        own = [tuned] if tuned else self.compared
        source = tuned.model if tuned else model
        found = [
            {o.seed for o in own if (o.dataset, o.task, o.model) == (dataset, level, source)}
            for level in levels
        ]
        return sorted(set.intersection(*found))

    def methods(self, dataset: str, task: str, model: str) -> list[dict]:
        """Methods of one cell and their predictions; the rest is compared with the first.

        `variant` is the summary's, None where the predictions say it themselves; `paths` holds a
        file for each seed.
        """
        folder = f"results/predictions/{dataset}/{task}/{model}"
        found = [
            ("stc", "selected", [f"{folder}/stc.h5"]),
            ("stc", "smallest", [f"{folder}/stc-smallest.h5"]),
            ("probe", None, [f"{folder}/probe.h5"]),
            ("last-layer", None, [f"{folder}/last-layer.h5"]),
        ]
        for method, files in self.baselines(dataset, task, model).items():
            variant = "l2" if method == "sentence-embedding" else None
            home = self._home(folder, method, model)
            found.append((method, variant, [f"{home}/{name}.h5" for name in files.values()]))
        if "tfidf" in self.config.baselines:
            found.append(
                ("tfidf", None, [f"results/predictions/{dataset}/{task}/{NO_MODEL}/tfidf.h5"])
            )
        return [
            described(method) | {"variant": variant, "paths": paths}
            for method, variant, paths in found
        ]

    def _home(self, folder: str, method: str, model: str) -> str:
        """Where a baseline's files lie: a fine-tuned model's own head stands under its source."""
        origin = self.config.origin(model) if method == "finetune" else None
        return folder if origin is None else f"{folder.rpartition('/')[0]}/{origin.model}"

    def finetuned(self, origin: Origin) -> dict[str, str]:
        """Files of one fine-tuning by role."""
        place = f"{origin.dataset}/{origin.task}/{origin.model}"
        name = f"finetune-{origin.seed}"
        return {
            "identity": identity_file(origin),
            "predictions": f"results/predictions/{place}/{name}.h5",
            "scores": f"results/scores/{place}/{name}.json",
            "figure": f"results/figures/{place}/{name}.svg",
        }
