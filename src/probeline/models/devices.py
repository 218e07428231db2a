"""What "auto" means: device, dtype and batch size on this machine."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from probeline.errors import ProbelineError, one_of

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda", "mps")
# Tokens per batch, padding included. On a CPU larger batches fall out of the cache (measured);
# an accelerator wants enough rows for its matrix units.
BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "mps" into a device that is there and that torch can use.

    Raises
    ------
    ProbelineError
        If there is no such device, or this torch was not built for it; "auto" warns of the latter
        and takes another.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name not in DEVICES:
        raise ProbelineError(f"device: {one_of(name, DEVICES)}")
    wanted = [kind for kind in ("cuda", "mps", "cpu") if available[kind] and name in (kind, "auto")]
    if not wanted:
        raise ProbelineError(f"device: {name} is not available on this machine; use auto or cpu")
    if wanted[0] == "cuda" and not _has_kernels():
        built = f"torch {torch.__version__} was not built for {torch.cuda.get_device_name()}"
        if name == "cuda":
            raise ProbelineError(f"device: cuda: {built}; install one that was, or use auto or cpu")
        logger.warning("%s: it is left aside", built)
        del wanted[0]
    return torch.device(wanted[0])


def _has_kernels() -> bool:
    """Whether this torch can compute on the GPU: one that is too old or too new is counted, too."""
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except RuntimeError as error:
        if "no kernel image" in str(error):
            return False
        raise
    return True


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device; a GPU has them before whatever is computed there next, and is not waited
    for."""
    if device.type == "cuda":
        # The memory is used again only when the copy is done.
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


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
