"""The command `probeline`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from probeline import __version__
from probeline.errors import ProbelineError
from probeline.files import told

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Probes on every layer of a transformer, and the sparse classifiers they lead to.",
)


@app.command()
def predict(
    classifier: Annotated[
        Path,
        typer.Option(
            help="Folder written by the workflow: results/classifiers/..., results/finetuned/... "
            "or results/label_tokens/..."
        ),
    ],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify.")] = None,
    input: Annotated[
        str | None,
        typer.Option(help="A .csv, .tsv, .jsonl or .txt file (a text per line), or - for stdin."),
    ] = None,
    text_column: Annotated[
        str, typer.Option(help="Column or key of the text; two separated by a comma for pairs.")
    ] = "text",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    rerank: Annotated[
        Path | None,
        typer.Option(
            help="Reranker folder written by the workflow: results/lrsl/.../reranker/... "
            "Default: the one in the classifier's folder, if there is one."
        ),
    ] = None,
    no_rerank: Annotated[
        bool, typer.Option("--no-rerank", help="Leave the classifier's reranker out.")
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let the model run the code in its folder."),
    ] = False,
) -> None:
    """Classify texts: one line of JSON each, with the label and all scores."""
    if rerank is not None and no_rerank:
        raise ProbelineError("predict: --rerank and --no-rerank exclude each other; give one")
    from probeline.classifier.inputs import read_inputs

    batches = read_inputs(texts, input, text_column.split(","))
    from probeline.classifier import load

    reranker = not no_rerank if rerank is None else rerank
    loaded = load(classifier, device, reranker, trust_remote_code)
    for first, second in batches:
        for answer in loaded.predict(first, second):
            typer.echo(json.dumps(answer, ensure_ascii=False))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    directory: Annotated[Path, typer.Option(help="Where `results/` goes.")] = Path(),
    cores: Annotated[
        str | None, typer.Option(help="CPU cores to use, or all; the default where jobs run here.")
    ] = None,
    workflow_profile: Annotated[
        str | None,
        typer.Option(
            help="Where and how jobs run: the folder of a profile, or the name of one beside the "
            "Snakefile (slurm)."
        ),
    ] = None,
) -> None:
    """Run the workflow: snakemake with these and any further arguments.

    After a run that was killed, its lock is removed and what it left half-done is made again.
    """
    from probeline.workflow.run import execution, run_workflow

    where = execution(cores, workflow_profile, context.args)
    raise typer.Exit(run_workflow(directory, [*where, *context.args]))


@app.command()
def doctor(
    results: Annotated[
        Path, typer.Argument(help="Where `results/` lies, or that folder itself.")
    ] = Path(),
    configfile: Annotated[
        list[Path] | None, typer.Option(help="As in the run; may be given several times.")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, as in the run; several times too.")
    ] = None,
) -> None:
    """Check every result: say what is damaged, stale, incomplete or foreign, and what mends it.

    Ends with status 1 if anything is wrong.
    """
    from probeline.doctor import doctor as examine_folder

    given = ["--configfile", *map(str, configfile)] if configfile else []
    given += ["--config", *config] if config else []
    raise typer.Exit(examine_folder(results, given))


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Where `results/` lies.")] = Path(),
) -> None:
    """Print the table of results and where everything lies."""
    from probeline.results.table import show as show_table

    show_table(folder)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="Configuration file.")] = Path("config.yaml"),
) -> None:
    """Check a configuration whole: every mistake, one line each."""
    from probeline.config import load
    from probeline.workflow.plan import Plan

    plan = Plan(load(config))
    shards = sum(len(plan.shard_names(model)) for _, model in plan.pairs)
    typer.echo(f"{config}: {len(plan.pairs)} (dataset, model) pairs, {shards} shards")
    for model in plan.models:
        size = plan.bytes_per_text(model)
        if size is not None:
            # kB of a text are GB of a million.
            typer.echo(f"{model}: {size / 1000:,.1f} GB on disk per million texts")


@app.command()
def fetch(
    config: Annotated[Path, typer.Argument(help="Configuration file.")] = Path("config.yaml"),
) -> None:
    """Bring the hub models and datasets of a run into the local caches; print their commits."""
    from probeline.config import load
    from probeline.data.loaders import fetch_dataset
    from probeline.models.hub import fetch as fetch_model
    from probeline.models.hub import fetch_embedder

    settings = load(config)
    pairs = settings.pairs()
    running = {model for _, model in pairs} | {origin.model for origin in settings.origins()}
    for name in filter(running.__contains__, settings.models):
        if settings.origin(name) is not None:
            typer.echo(f"{name}: fine-tuned in the run, nothing to fetch")
            continue
        commit = fetch_model(settings.model_spec(name))
        typer.echo(f"{name}: {commit or 'local, nothing to fetch'}")
    if settings.lrsl.sources:
        embedder = settings.lrsl.embedder
        commit = fetch_embedder({"path": embedder, "revision": settings.lrsl.revision})
        typer.echo(f"{embedder}: {commit or 'local, nothing to fetch'}")
    trained_on = [origin.dataset for origin in settings.origins()]
    for name in dict.fromkeys([*(dataset for dataset, _ in pairs), *trained_on]):
        commit = fetch_dataset(settings.dataset_spec(name), settings.data_root)
        typer.echo(f"{name}: {commit or 'local, nothing to fetch'}")


@app.command()
def cache(
    folder: Annotated[
        Path | None, typer.Option(help="The cache. Default: what SNAKEMAKE_OUTPUT_CACHE says.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Remove what was not used for so long: 12h, 30d, 8w.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Remove what was not used for longest, until this is left: 50GB."),
    ] = None,
    used_by: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose links count too, such as a copy of a working directory."),
    ] = None,
    forget: Annotated[
        list[Path] | None, typer.Option(help="A working directory that is gone for good.")
    ] = None,
    unlink: Annotated[
        Path | None,
        typer.Option(help="A working directory whose links to entries that are gone are removed."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say what would be removed.")
    ] = False,
) -> None:
    """List what `snakemake --cache` shares between working directories, or remove some of it.

    What a working directory has a link to is never removed.
    """
    from rich.console import Console

    from probeline.cache import show, uses
    from probeline.cache.location import cache_folder
    from probeline.cache.words import parse_age, parse_size

    if unlink is not None:
        removed = uses.unlink_broken(unlink)
        typer.echo(f"{unlink}: {removed} links removed; the next run makes these files again")
        return
    place = cache_folder(folder)
    age = None if older_than is None else parse_age(older_than, "--older-than")
    size = None if keep is None else parse_size(keep, "--keep")
    if dry_run and age is size is None:
        raise ProbelineError("cache: --dry-run says what --older-than or --keep would remove")
    for gone in forget or []:
        uses.forget(place, gone)
    contents = show.read_contents(place, used_by or [])
    if age is size is None:
        show.show(place, contents, Console())
    else:
        show.prune(place, contents, Console(), age, size, dry_run, used_by or [])


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"probeline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; the user's mistakes are one line each and exit status 1."""
    try:
        app()
    except ProbelineError as error:
        for line in str(error).splitlines():
            typer.echo(f"probeline: {line}", err=True)
        raise SystemExit(1) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except (OSError, MemoryError, RuntimeError) as error:
        reason = told(error)
        if reason is None:
            raise
        typer.echo(f"probeline: {reason}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
