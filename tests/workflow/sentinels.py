"""Secrets of a user's environment, and whether a run wrote or printed one."""

from __future__ import annotations

from pathlib import Path

SECRETS = {
    "HF_TOKEN": "hf_SENTINELtokenOfTheHub",
    "HUGGING_FACE_HUB_TOKEN": "hf_SENTINELolderNameOfIt",
    "WANDB_API_KEY": "SENTINELkeyOfWandb",
    "AWS_SECRET_ACCESS_KEY": "SENTINELkeyOfAws",
    "HTTPS_PROXY": "http://user:SENTINELpassword@127.0.0.1:9",
}
_FOUND = [value.encode() for value in SECRETS.values()] + [b"SENTINELpassword"]


def written(folder: Path) -> list[tuple[Path, bytes]]:
    """(file, secret) of every secret in a file in `folder`."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            found += [(path, secret) for secret in _secrets(path.read_bytes())]
        except (IsADirectoryError, FileNotFoundError):
            # Other tests may read the folder at the same time, by a Snakemake with its own locks.
            continue
    return found


def printed(text: str) -> list[bytes]:
    """Every secret in what a run printed."""
    return _secrets(text.encode())


def _secrets(content: bytes) -> list[bytes]:
    return [secret for secret in _FOUND if secret in content]
