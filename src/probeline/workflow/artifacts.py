"""What a run writes: names and numbers of files, of rules' inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probeline.activations.names import layers_of, shard_name, shard_names
from probeline.config import PATH_TASK
from probeline.workflow.sources import Sources

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


class Artifacts(Sources):
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
        wanted = self.config.probe.layers
        every = layers_of(self.shapes[model], representation)
        return [layer for layer in every if wanted == "all" or layer in wanted]

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
        if self.config.models[model].layers is not None and self.is_fetched(model):
            return None
        return self.shapes[model].width(representation)

    def shards(self, dataset: str, model: str, sources: list[tuple[str, str]]) -> list[str]:
        """Shards of the probed layers."""
        folder = f"results/activations/{dataset}/{model}"
        return [f"{folder}/{name}" for r, p in sources for name in self.names(model, r, p)]

    def stored_shards(
        self, dataset: str, model: str, source: tuple[str, str] | None = None
    ) -> list[str]:
        """Shards of all layers, probed or not; of one (representation, pooling) or of all."""
        names = self.shard_names(model)
        if source:
            names = shard_names(self.shapes[model], [source[0]], [source[1]])
        return [f"results/activations/{dataset}/{model}/{name}" for name in names]

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
        if ("hidden", "mean") not in self.config.stored():
            return None
        return shard_name(self.shapes[model], "hidden", "mean", self.shapes[model].layers)

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
        if self.embedding_shard(model):
            files["sentence_embedding"] = f"{scores}/sentence-embedding.json"
        return files

    def level_predictions(self, dataset: str, model: str, method: str) -> list[str]:
        """One method's predictions of every level of a hierarchy, coarse to fine."""
        levels = self.config.tasks(dataset)
        return [f"results/predictions/{dataset}/{level}/{model}/{method}.h5" for level in levels]

    def path_predictions(self, dataset: str, model: str) -> list[str]:
        """Predictions of whole paths through a hierarchy, a file per method; else none."""
        if len(self.config.tasks(dataset)) == 1:
            return []
        return [method["path"] for method in self.methods(dataset, PATH_TASK, model)]

    def figure_inputs(self, dataset: str, task: str, model: str) -> dict[str, str]:
        """Inputs of the figures by name."""
        files = self.cell_artifacts(dataset, task, model)
        inputs = {"layers": files["layers"], "scores": files["stc"]}
        if "sentence_embedding" in files:
            inputs["embedding"] = files["sentence_embedding"]
        return inputs

    def methods(self, dataset: str, task: str, model: str) -> list[dict]:
        """Methods of one cell and their predictions; the rest is compared with the first.

        `variant` is the summary's, None where the predictions say it themselves.
        """
        found = [
            ("stc", "selected", "stc"),
            ("stc", "smallest", "stc-smallest"),
            ("probe", None, "probe"),
            ("last-layer", None, "last-layer"),
        ]
        if self.embedding_shard(model):
            found.append(("sentence-embedding", "l2", "sentence-embedding"))
        folder = f"results/predictions/{dataset}/{task}/{model}"
        return [
            {"method": method, "variant": variant, "path": f"{folder}/{name}.h5"}
            for method, variant, name in found
        ]
