"""Every stage of a run in one process, by the calls that the workflow's jobs make.

    python -m benchmarks.one_process config.yaml 2      results/ goes to the working directory

What the workflow itself costs is the difference between this and `snakemake` on the same file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from probeline.config import NO_MODEL, read
from probeline.workflow.plan import Plan, load_plan


def run(config: Path, threads: int) -> None:
    """Make everything that `rule all` asks for, but the report."""
    # Before the limit: it reaches the libraries that are loaded.
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_limits

    plan = load_plan(read(config), [config])
    with threadpool_limits(threads):
        for dataset in plan.datasets:
            _dataset(plan, dataset)
        for dataset, model in plan.pairs:
            _extract(plan, dataset, model, threads)
        for dataset in plan.datasets:
            _card(plan, dataset)
            _tfidf(plan, dataset)
        for cell in plan.cells():
            _probe(plan, *cell)
            _aggregate(plan, *cell)
            _baselines(plan, *cell)
            _figures(plan, *cell)
        _results(plan)


def _folder(dataset: str) -> Path:
    return Path("results/datasets") / dataset


def _place(stage: str, *cell: str) -> str:
    return f"results/{stage}/" + "/".join(cell)


def _dataset(plan: Plan, dataset: str) -> None:
    from probeline.data.store import build_dataset

    settings = plan.dataset_params(dataset)
    build_dataset(dataset, settings["spec"], _folder(dataset), seed=settings["seed"])


def _extract(plan: Plan, dataset: str, model: str, threads: int) -> None:
    from probeline.workflow.extract import run_extract

    run_extract(
        dataset_folder=_folder(dataset),
        out_folder=Path(_place("activations", dataset, model)),
        pinned=None,
        threads=threads,
        shards=plan.shard_names(model),
        settings=plan.extract_params(model),
    )


def _card(plan: Plan, dataset: str) -> None:
    from probeline.data.card import write_card
    from probeline.files import read_json

    lengths = {
        model: read_json(_place("activations", dataset, model, "tokens.json"))
        for name, model in plan.pairs
        if name == dataset
    }
    card = f"results/cards/{dataset}"
    write_card(_folder(dataset), f"{card}.json", f"{card}.md", lengths)


def _probe(plan: Plan, dataset: str, task: str, model: str) -> None:
    from probeline.probe.stage import probe_shards
    from probeline.results.layers import compare_layers
    from probeline.sparsify import sparsify

    settings = plan.probe_params(dataset, task)
    for representation, pooling in plan.probed(model):
        source = (representation, pooling)
        probes = plan.probes(dataset, task, model, [source])
        shards = plan.stored_shards(dataset, model, source)
        probe_shards(
            shards, probes, _folder(dataset), task, settings["options"], settings["metric"]
        )
        sparsify(probes, _place("neurons", dataset, task, model, f"{'.'.join(source)}.parquet"))
    predictions = _place("predictions", dataset, task, model)
    compare_layers(
        plan.probes(dataset, task, model, plan.probed(model)),
        plan.shards(dataset, model, plan.probed(model)),
        _folder(dataset),
        task,
        model,
        plan.cell_artifacts(dataset, task, model)["layers"],
        {"probe": f"{predictions}/probe.h5", "last-layer": f"{predictions}/last-layer.h5"},
        plan.layers_params(dataset, task)["metric"],
    )


def _aggregate(plan: Plan, dataset: str, task: str, model: str) -> None:
    from probeline.aggregate.stage import aggregate
    from probeline.classifier.stage import build_classifier

    settings = plan.aggregate_params(dataset, task)
    grids = plan.grids(dataset, task, model)
    for slug, sources in plan.slugs(model).items():
        aggregate(
            plan.tables(dataset, task, model, slug),
            plan.shards(dataset, model, sources),
            _folder(dataset),
            task,
            slug,
            grids[slug],
            settings["etas"],
            settings["options"],
            settings["metric"],
        )
    predictions = _place("predictions", dataset, task, model)
    files = plan.cell_artifacts(dataset, task, model)
    build_classifier(
        dataset_folder=_folder(dataset),
        shards=plan.shards(dataset, model, plan.probed(model)),
        task_name=task,
        model_name=model,
        out_folder=files["classifier"],
        predictions={
            "selected": f"{predictions}/stc.h5",
            "smallest": f"{predictions}/stc-smallest.h5",
        },
        scores=files["stc"],
        **plan.classifier_params(dataset, task, model),
    )


def _tfidf(plan: Plan, dataset: str) -> None:
    from probeline.baselines.tfidf import tfidf

    if "tfidf" not in plan.config.baselines:
        return
    for task in plan.config.tasks(dataset):
        settings = plan.tfidf_params(dataset, task)
        tfidf(
            _folder(dataset),
            task,
            _place("predictions", dataset, task, NO_MODEL, "tfidf.h5"),
            _place("scores", dataset, task, NO_MODEL, "tfidf.json"),
            settings["options"],
            settings["metric"],
        )


def _baselines(plan: Plan, dataset: str, task: str, model: str) -> None:
    from probeline.baselines.sentence_embedding import sentence_embedding

    shard = plan.embedding_shard(model)
    if not plan.embeds("sentence-embedding", model):
        return
    settings = plan.embedding_params(dataset, task)
    sentence_embedding(
        f"{_place('activations', dataset, model)}/{shard}",
        _folder(dataset),
        task,
        model,
        f"{_place('predictions', dataset, task, model)}/sentence-embedding.h5",
        plan.cell_artifacts(dataset, task, model)["sentence_embedding"],
        settings["options"],
        settings["metric"],
    )


def _figures(plan: Plan, dataset: str, task: str, model: str) -> None:
    from probeline.results.figures import layer_figure, tradeoff_figure, write_tradeoff
    from probeline.results.summary import metric_of

    inputs = plan.figure_inputs(dataset, task, model)
    named = {"metric": metric_of(inputs["scores"]), "title": f"{dataset} / {task} / {model}"}
    place = _place("figures", dataset, task, model)
    embedding = inputs.get("embedding")
    outputs = [f"{place}/layers.svg", f"{place}/layers.png"]
    layer_figure(inputs["layers"], embedding, outputs=outputs, **named)
    grids = {Path(path).stem: path for path in plan.grids(dataset, task, model).values()}
    outputs = [f"{place}/tradeoff.svg", f"{place}/tradeoff.png"]
    tradeoff_figure(grids, inputs["scores"], inputs["layers"], embedding, outputs=outputs, **named)
    write_tradeoff(grids, _place("tradeoff", dataset, task, f"{model}.csv"))


def _results(plan: Plan) -> None:
    from probeline.results.comparisons import write_comparisons
    from probeline.results.hierarchy import combine_levels
    from probeline.results.summary import write_summary

    for dataset, model in plan.pairs:
        for path in plan.path_predictions(dataset, model):
            levels = plan.level_predictions(dataset, model, Path(path).stem)
            metric = plan.path_params(dataset)["metric"]
            combine_levels(levels, _folder(dataset), model, path, metric)
    seed = plan.config.seed
    write_summary(plan.summary_entries(), "results/summary.csv", "results/summary.parquet", seed)
    files = "results/comparisons.csv", "results/comparisons.parquet"
    write_comparisons(plan.comparison_entries(), *files, seed)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
