"""The machine a table was measured on, and how fast it can move and multiply numbers."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

_PACKAGES = ("probeline", "torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
_MORE = ("scipy", "scikit-learn", "h5py", "snakemake", "joblib")
_BYTES = 256 << 20
_SIDE = 1536


def describe(threads: int) -> dict:
    """Processor, memory, versions and threads: what the figures depend on; JSON-like."""
    import torch
    from threadpoolctl import threadpool_info

    flags = _cpu("flags").split()
    return {
        "cpu": _cpu("model name") or platform.processor() or platform.machine(),
        "cpu_features": [name for name in ("avx512f", "avx512_bf16", "amx_bf16") if name in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(_memory() / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*_PACKAGES, *_MORE)},
        "blas": sorted({_library(entry) for entry in threadpool_info()}),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def headline(machine: dict) -> str:
    """The description on one line."""
    packages = machine["packages"]
    return (
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, GPU {machine['gpu'] or 'none'}, "
        f"torch {packages['torch']}, load {machine['load_average'][0]}"
    )


def write_machine(path: Path, machine: dict) -> None:
    """Write the description beside the table."""
    path.write_text(json.dumps(machine, indent=2) + "\n", encoding="utf-8")


def memory_bandwidth() -> float:
    """Bytes a second that torch's threads read from memory."""
    import torch

    values = torch.ones(_BYTES // 4)
    return _BYTES / _best(lambda: values.sum())


def multiplications() -> float:
    """Floating-point operations a second of a float32 matrix product in NumPy."""
    rng = np.random.default_rng(0)
    left, right = rng.random((2, _SIDE, _SIDE), dtype=np.float32)
    return 2 * _SIDE**3 / _best(lambda: left @ right)


def disk_bandwidth(folder: Path) -> float:
    """Bytes a second written to a file in `folder` and brought to the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path, block = folder / "bandwidth", np.random.default_rng(0).bytes(8 << 20)

    def write() -> None:
        with path.open("wb") as handle:
            for _ in range(_BYTES // len(block)):
                handle.write(block)
            handle.flush()
            os.fsync(handle.fileno())

    try:
        return _BYTES / _best(write)
    finally:
        path.unlink(missing_ok=True)


def _best(work) -> float:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _cpu(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(found, "")


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _library(entry: dict) -> str:
    return f"{entry['internal_api']} {entry.get('version')} ({entry['num_threads']} threads)"
