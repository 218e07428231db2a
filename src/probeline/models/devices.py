"""What "auto" means: device, dtype and batch size on this machine."""

from __future__ import annotations

from pathlib import Path

import torch

from probeline.errors import ProbelineError, one_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda", "mps")
# Tokens per batch, padding included. On a CPU larger batches fall out of the cache (measured);
# an accelerator wants enough rows for its matrix units.
BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "mps" into a device that is there."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if name not in available:
        raise ProbelineError(f"device: {one_of(name, DEVICES)}")
    if not available[name]:
        raise ProbelineError(f"device: {name} is not available on this machine; use auto or cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn "auto" or a dtype's name into a dtype.

    "auto" is bfloat16 where the hardware multiplies it natively, float16 on older CUDA cards, else
    float32.
    """
    if name == "auto":
        if device.type == "cuda":
            name = "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
        elif device.type == "cpu" and _cpu_has_bfloat16():
            name = "bfloat16"
        else:
            name = "float32"
    if name not in DTYPES:
        raise ProbelineError(f"dtype: {one_of(name, ('auto', *DTYPES))}")
    return DTYPES[name]


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
