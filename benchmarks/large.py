"""What a large extraction costs: `python -m benchmarks.large` computes disk, hours and parts.

Nothing here is measured. Bytes and blocks are those of the library; seconds are what the slowest of
the things that go on side by side takes: the forward pass on a GPU at a share of its peak,
tokenization, and writing. Each assumption is an option, and stands above the tables it leads to.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

SIZES = (10**6, 10**8)
HOUR = 3600
# Measured on two cores, docs/performance.md: 0.06 s for 1,000 texts of 23 tokens.
_TOKENIZING = 0.06 / 1000 / 23
# The same page: extraction over the bare forward pass.
_OVERHEAD = 1.15
# A probe holds its training matrix four times, in float32.
_PROBE_BYTES = 4 * 4

STORED = {
    "all": (["ffn", "hidden"], ["first", "last", "max", "mean"]),
    "mean": (["ffn", "hidden"], ["mean"]),
    "hidden, mean": (["hidden"], ["mean"]),
}


def _bert(layers: int, width: int) -> dict:
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    return {"model_type": "bert", "vocab_size": 30522, "num_attention_heads": width // 64, **shape}


def _llama(layers: int, width: int, ffn: int) -> dict:
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": ffn}
    heads = {"num_attention_heads": width // 128, "num_key_value_heads": 8}
    return {"model_type": "llama", "vocab_size": 128256, **heads, **shape}


MODELS = {
    "MiniLM, 6 blocks": _bert(6, 384),
    "BERT-base": _bert(12, 768),
    "Llama 3, 8B": _llama(32, 4096, 14336),
    "Llama 3, 70B": _llama(80, 8192, 28672),
}


@dataclass(frozen=True)
class Machine:
    """What is assumed of a job's machine.

    Attributes
    ----------
    peak : float
        Operations per second of a GPU, dense bfloat16.
    share : float
        What a forward pass reaches of it.
    disk : float
        Bytes per second that one job writes and reads.
    sync : float
        Seconds until one file is on the disk.
    """

    peak: float = 989e12
    share: float = 0.4
    disk: float = 1e9
    sync: float = 0.002


@dataclass(frozen=True)
class Size:
    """What a model is, as far as it costs.

    Attributes
    ----------
    matrices : int
        Parameters of all blocks: each is multiplied and added once a token.
    parameters : int
        With embeddings: what is loaded.
    layers, width, ffn : int
    """

    matrices: int
    parameters: int
    layers: int
    width: int
    ffn: int

    def operations(self, tokens: int) -> float:
        """Of the forward pass of a text: products with weights, and attention among its tokens."""
        return tokens * (2 * self.matrices + 4 * tokens * self.layers * self.width)


@cache
def size_of(name: str) -> Size:
    """The size of a model, by building it without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**MODELS[name])
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    blocks = model.layers if hasattr(model, "layers") else model.encoder.layer
    return Size(
        matrices=sum(weight.numel() for weight in blocks.parameters()),
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        ffn=config.intermediate_size,
    )


@dataclass(frozen=True)
class Cost:
    """What one text costs, and what one job costs before its first text.

    Attributes
    ----------
    bytes : int
        On disk.
    shards : int
    block : int
        Texts a block holds.
    seconds : dict of str to float
        Of the things that go on side by side, by what is done; the largest counts.
    start : float
        Seconds until the model is loaded.
    probe : int
        Bytes the widest probe holds.
    """

    bytes: int
    shards: int
    block: int
    seconds: dict[str, float]
    start: float
    probe: int

    @property
    def bound(self) -> str:
        return max(self.seconds, key=self.seconds.get)

    @property
    def text(self) -> float:
        """Seconds."""
        return self.seconds[self.bound]

    def hours(self, texts: int) -> float:
        """GPU hours of all texts, loading apart."""
        return texts * self.text / HOUR

    def parts(self, texts: int) -> int:
        """How many jobs of an hour that is; never more than there are blocks."""
        wanted = math.ceil(texts * self.text / max(HOUR - self.start, HOUR / 2))
        return min(wanted, math.ceil(texts / self.block))

    def wall(self, texts: int, gpus: int) -> float:
        """Hours with so many GPUs, each with one job after another."""
        parts = self.parts(texts)
        return math.ceil(parts / gpus) * (texts / parts * self.text + self.start) / HOUR


def cost(name: str, stored: str, tokens: int, machine: Machine) -> Cost:
    """What extraction of texts of `tokens` tokens costs; of what is stored, see `STORED`."""
    from probeline.activations.extract import BLOCK_BYTES
    from probeline.activations.names import bytes_per_text, shard_names
    from probeline.config.sections import Extract

    size, shape = size_of(name), _shape(name)
    names = shard_names(shape, *STORED[stored])
    count, shards = bytes_per_text(shape, names, "float16"), len(names)
    block = min(Extract().block_texts, max(1, BLOCK_BYTES // count))
    forward = _OVERHEAD * size.operations(tokens) / (machine.peak * machine.share)
    return Cost(
        bytes=count,
        shards=shards,
        block=block,
        seconds={
            "forward pass": forward,
            "tokenizing": _TOKENIZING * tokens,
            # The token counts and the journal are files too.
            "disk": count / machine.disk + (shards + 2) * machine.sync / block,
        },
        start=2 * size.parameters / machine.disk,
        probe=_PROBE_BYTES * max(size.ffn if "ffn" in STORED[stored][0] else 0, size.width),
    )


def _shape(name: str):
    from probeline.files import write_json
    from probeline.models.reference import shape_of_folder

    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "config.json", MODELS[name])
        return shape_of_folder(Path(folder), name)


def per_text(tokens: int, machine: Machine) -> Iterator[list[str]]:
    """Rows of the first table: what a text costs."""
    for name in MODELS:
        for stored in STORED:
            found = cost(name, stored, tokens, machine)
            yield [
                name,
                stored,
                f"{found.shards}",
                amount(found.bytes),
                f"{found.block}",
                f"{1 / found.text:,.0f}",
                found.bound,
            ]


def in_all(tokens: int, machine: Machine, gpus: int) -> Iterator[list[str]]:
    """Rows of the second table: what many texts cost."""
    for name in MODELS:
        for stored in STORED:
            found = cost(name, stored, tokens, machine)
            row = [name, stored]
            for texts in SIZES:
                row += [
                    amount(texts * found.bytes),
                    _hours(found.hours(texts)),
                    f"{found.parts(texts):,}",
                    _hours(found.wall(texts, gpus)),
                    amount(texts * found.probe),
                ]
            yield row


def amount(count: float) -> str:
    """Bytes, as a reader wants them: two digits and a unit."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.2g} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2g} PB"


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 9.95 else f"{hours:,.0f}"


def table(head: list[str], rows: Iterator[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 128,
    peak: Annotated[float, typer.Option(help="TFLOP/s of a GPU, dense bfloat16.")] = 989,
    share: Annotated[float, typer.Option(help="What a forward pass reaches of it.")] = 0.4,
    disk: Annotated[float, typer.Option(help="GB/s that one job writes and reads.")] = 1.0,
    sync: Annotated[float, typer.Option(help="Milliseconds until one file is on disk.")] = 2.0,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs at a time.")] = 8,
) -> None:
    """Print the tables of docs/large.md, computed and not measured."""
    machine = Machine(1e12 * peak, share, 1e9 * disk, sync / 1000)
    typer.echo(
        f"Computed, not measured: texts of {tokens} tokens, float16 on disk, bfloat16 on GPUs of "
        f"{peak:g} TFLOP/s of which {share:.0%} are reached,\n{disk:g} GB/s and {sync:g} ms a file "
        f"to the disk, {gpus} GPUs at a time.\n"
    )
    head = ["model", "stored", "shards", "a text", "texts a block", "texts/s", "bound by"]
    typer.echo(table(head, per_text(tokens, machine)) + "\n")
    head = ["model", "stored"]
    for texts in SIZES:
        power = f"10^{round(math.log10(texts))}"
        head += [f"{power}: disk", "GPU hours", "parts", f"hours on {gpus}", "a probe holds"]
    typer.echo(table(head, in_all(tokens, machine, gpus)))


if __name__ == "__main__":
    typer.run(main)
