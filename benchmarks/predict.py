"""Prediction that stops early, against the whole forward pass."""

from __future__ import annotations

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.extraction import minilm, timed_texts
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import interleaved, medians, spread
from probeline.data.store import read_dataset

_DEPTHS = ((2,), (1, 2, 3, 4, 5))
_REPEATS = (3, 5)
# A prediction takes its texts so many at a time, and sorts by length within.
_AT_ONCE = 1024


def at_depth(bench: Bench) -> Outcome:
    """P10: seconds of `predict` over those of the full forward pass, both from texts."""
    from probeline.classifier.predict import load

    (name,) = data.available(bench, ["sst2"])
    prepared = data.prepare(bench, name)
    texts = read_dataset(timed_texts(bench)).texts
    classifiers = {
        depth: load(classifier_at(bench, prepared, depth), device="cpu")
        for depth in bench.size(*_DEPTHS)
    }
    whole = Whole(prepared)
    sides = {"full": lambda: whole.forward(texts), "share": lambda: whole.embed(texts)}
    for depth, classifier in classifiers.items():
        sides[f"depth {depth}"] = lambda classifier=classifier: classifier.predict(texts)
    for side in sides.values():
        side()
    seconds = interleaved(sides, bench.size(*_REPEATS))
    middle = medians(seconds)
    share = middle["share"] / middle["full"]
    parts = []
    for depth in classifiers:
        limit = depth / prepared.layers * 1.15 + share
        parts.append(Part(f"depth {depth}", middle[f"depth {depth}"] / middle["full"], limit))
    worst = max(parts, key=lambda part: part.strain)
    deepest = classifiers[int(worst.name.split()[1])].depth
    notes = [
        f"{worst.name} of {prepared.layers}: limit {worst.limit:.3f}, of which tokenization and "
        f"embedding {share:.3f}",
        f"{len(texts):,} texts, full pass {middle['full']:.2f} s ({spread(seconds['full'])}), "
        f"predict {middle[worst.name]:.2f} s ({spread(seconds[worst.name])}), "
        f"{len(texts) / middle[worst.name]:,.0f} texts/s",
    ]
    # Blocks cost alike; tokenization and embedding come whatever the depth.
    floor = share + (1 - share) * deepest / prepared.layers
    return combined(parts, notes, floor)


def against_extraction(bench: Bench) -> Outcome:
    """P15: seconds of `predict` at full depth over those of extraction, models loaded before."""
    from probeline.classifier.predict import load

    (name,) = data.available(bench, ["sst2"])
    prepared = data.prepare(bench, name)
    work = minilm(bench)
    texts = read_dataset(work.folder).texts
    classifier = load(classifier_at(bench, prepared, prepared.layers), device="cpu")
    sides = {
        "predict": lambda: classifier.predict(texts),
        "load": work.load,
        "extract": work.extract,
        "forward": work.forward,
    }
    for side in sides.values():
        side()
    seconds = interleaved(sides, bench.size(*_REPEATS))
    middle = medians(seconds)
    extraction = middle["extract"] - middle["load"]
    ratio = middle["predict"] / extraction
    note = (
        f"{len(texts):,} texts: predict {middle['predict']:.2f} s ({spread(seconds['predict'])}), "
        f"{len(texts) / middle['predict']:,.0f} texts/s; extract {extraction:.2f} s "
        f"({spread(seconds['extract'])}), {len(texts) / extraction:,.0f} texts/s; the bare forward "
        f"pass {middle['forward']:.2f} s"
    )
    return Outcome(ratio, ratio <= 1.0, note, middle["forward"] / extraction)


class Whole:
    """The model itself, from texts to the last layer, batched as a prediction is."""

    def __init__(self, prepared: data.Prepared):
        from probeline.models.load import load_model

        self._model = load_model(prepared.config.model_spec("minilm"))

    def _batches(self, texts: list[str]):
        from probeline.activations.batching import padded, tokenize

        for start in range(0, len(texts), _AT_ONCE):
            yield from padded(self._model, tokenize(self._model, texts[start : start + _AT_ONCE]))

    def forward(self, texts: list[str]) -> None:
        """Tokenize and compute every block."""
        import torch

        with torch.inference_mode():
            for batch in self._batches(texts):
                self._model.body(**batch.inputs)

    def embed(self, texts: list[str]) -> None:
        """Tokenize and look up the embeddings: what no depth saves."""
        import torch

        with torch.inference_mode():
            for batch in self._batches(texts):
                self._model.body.embeddings(input_ids=batch.inputs["input_ids"])


def classifier_at(bench: Bench, prepared: data.Prepared, depth: int):
    """A classifier folder that needs exactly `depth` blocks, trained by the library's stages."""
    from probeline.aggregate.stage import aggregate
    from probeline.classifier.folder import read_manifest
    from probeline.classifier.stage import build_classifier

    source = ("hidden", "mean")
    table = data.neuron_tables(bench, prepared, [source])[source]
    out, etas = bench.folder(f"depth-{depth}"), [0.6]
    options = prepared.config.section("aggregate") | {"depths": [depth], "penalties": [1.0]}
    grid = out / "grid.parquet"
    shards = prepared.of(*source)
    place = prepared.dataset_folder, "label"
    aggregate([table], shards, *place, "hidden.mean", grid, etas, options, prepared.metric)
    build_classifier(
        grids={"hidden.mean": grid},
        tables={"hidden.mean": [table]},
        shards=shards,
        dataset_folder=prepared.dataset_folder,
        task_name="label",
        model_name="minilm",
        model_spec=prepared.config.model_spec("minilm"),
        out_folder=out / "classifier",
        predictions={name: out / f"{name}.h5" for name in ("selected", "smallest")},
        scores=out / "scores.json",
        etas=etas,
        options=options,
        metric=prepared.metric,
    )
    found = read_manifest(out / "classifier")["depth"]
    if found != depth:
        raise RuntimeError(f"the classifier asked to stop at depth {depth} stops at {found}")
    return out / "classifier"
