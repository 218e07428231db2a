"""The command `python -m benchmarks`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from probeline.errors import ProbelineError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    quick: Annotated[
        bool,
        typer.Option("--quick/--full", help="Small sizes and minutes, or full ones and hours."),
    ] = True,
    only: Annotated[str | None, typer.Option(help="Some rows, such as P1,P4.")] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds sst2/, banking77/ and edos/ as Parquet files; default the "
            "environment variable PROBELINE_DATA_ROOT. Without it, BBC News stands in."
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Write the rows here, and the machine beside it as *.machine.json."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Cores each side may use; default all.")
    ] = None,
) -> None:
    """Measure the table of targets, each as a ratio of two things timed in turn."""
    from benchmarks.bench import Bench, cores, limit_threads

    threads = threads or cores()
    limit_threads(threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Only now: they read the limits when they are imported.
    from rich.console import Console

    from benchmarks import data, machine, rows, suite

    chosen = suite.chosen(only)
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="probeline-bench-") as work:
        bench = Bench(quick, threads, Path(work), data.root_from(data_root))
        quiet()
        import torch

        torch.set_num_threads(threads)
        described = machine.describe(threads)
        console.print(machine.headline(described), markup=False)
        found = []
        for row in rows.run_all(chosen, bench):
            found.append(row)
            console.print(rows.line(row), markup=False)
            # After each row: an interrupted run keeps what it has.
            if json:
                rows.write_json(json, found)
    if json:
        machine.write_machine(json.with_suffix(".machine.json"), described)
    wide = console if console.is_terminal else Console(width=180, highlight=False)
    wide.print()
    wide.print(rows.table(found))


def quiet() -> None:
    """No progress bars between the rows."""
    import logging

    from transformers.utils import logging as transformers_logging

    os.environ["TQDM_DISABLE"] = "1"
    transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def main() -> None:
    """Run the command; the user's mistakes are one line each and exit status 1."""
    try:
        app()
    except ProbelineError as error:
        for line in str(error).splitlines():
            typer.echo(f"benchmarks: {line}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
