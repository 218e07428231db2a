"""Peak memory of an extraction, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.peak import own_peak
from benchmarks.rows import Outcome

# Texts and texts per block: memory may only be flat once a block is full.
_SIZES = ((512, 128), (4000, 1024))


def peak(bench: Bench) -> Outcome:
    """P3: peak memory of extracting ten times as many texts, over that of the few."""
    few, block = bench.size(*_SIZES)
    peaks = {}
    for count in (few, 10 * few):
        texts = data.some_texts(bench, count)
        if bench.quick:
            texts = [" ".join(text.split()[:12]) for text in texts]
        folder = data.made_dataset(bench, texts, "memory")
        peaks[count] = _measure(bench, folder, block)
        data.emptied(folder.parent)
    small, large = peaks[few], peaks[10 * few]
    note = (
        f"{few:,} texts {small / 1e6:.0f} MB, {10 * few:,} texts {large / 1e6:.0f} MB, blocks of "
        f"{block}; torch and the model are part of both; growth {(large - small) / few / 9:.0f} "
        "bytes a text"
    )
    return Outcome(large / small, large / small <= 1.1, note, 1.0)


def _measure(bench: Bench, folder: Path, block: int) -> int:
    """Bytes at the peak."""
    (name,) = data.available(bench, ["sst2"])
    config = data.config_of(bench, name)
    settings = {
        "spec": config.model_spec("minilm"),
        "options": config.section("extract") | {"block_texts": block},
        "threads": bench.threads,
    }
    out = bench.folder("memory-shards")
    command = [sys.executable, "-m", "benchmarks.memory", folder, out, json.dumps(settings)]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    data.emptied(out)
    if done.returncode:
        raise RuntimeError(f"the child process failed: {done.stderr.strip()[-200:]}")
    return int(done.stdout.split()[-1])


def main(folder: str, out: str, text: str) -> None:
    """Extract, and print the peak."""
    import torch

    from probeline.activations.extract import extract

    settings = json.loads(text)
    torch.set_num_threads(settings["threads"])
    shards, state = Path(out) / "shards", Path(out) / "state"
    extract(Path(folder), "m", settings["spec"], settings["options"], shards, state, seed=0)
    print(own_peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
