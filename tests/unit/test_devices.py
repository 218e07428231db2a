"""Which device "auto" is, and a GPU that this torch was not built for."""

from __future__ import annotations

import pytest
import torch

from probeline.errors import ProbelineError
from probeline.models import devices
from probeline.models.devices import resolve_device, sent

NO_KERNEL = torch.AcceleratorError(
    "CUDA error: no kernel image is available for execution on the device"
)


@pytest.fixture
def gpu(monkeypatch):
    """Makes torch find a GPU, on which every operation ends in an error."""

    def broken(error: Exception) -> None:
        def zeros(*_, **__):
            raise error

        monkeypatch.setattr(devices.torch, "zeros", zeros)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla M40")
    return broken


def test_a_gpu_that_torch_has_no_kernels_for_is_left_aside(gpu, caplog):
    gpu(NO_KERNEL)
    assert resolve_device("auto").type in ("cpu", "mps")
    assert f"torch {torch.__version__} was not built for Tesla M40" in caplog.text


def test_asked_for_it_is_refused(gpu):
    gpu(NO_KERNEL)
    with pytest.raises(ProbelineError, match=r"^device: cuda: torch .* Tesla M40; install one"):
        resolve_device("cuda")


def test_a_gpu_that_is_full_is_not_left_aside(gpu):
    """It would be slow in silence, and in another precision."""
    gpu(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        resolve_device("auto")


def test_the_cpu_is_not_asked_about_a_gpu(gpu):
    gpu(NO_KERNEL)
    assert resolve_device("cpu") == torch.device("cpu")


def test_values_are_sent():
    values = torch.arange(5)
    assert sent(values, torch.device("cpu")) is values
    assert sent(values, torch.device("meta")).device.type == "meta"
