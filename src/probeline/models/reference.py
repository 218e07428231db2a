"""From what the config says about a model to files on disk and the shape of the model.

Light on purpose (no torch, transformers, NumPy): workflows call it while they are parsed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probeline.errors import ProbelineError
from probeline.files import reachable, refuse_special
from probeline.models.families import FAMILIES, Family, family_of

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies.

    Attributes
    ----------
    kind : str
        "hub", "folder" or "package".
    name : str
        The path as the user wrote it.
    folder : Path or None
        The files; None for a hub model that is not in the local cache.
    commit : str or None
        Commit of the cached hub snapshot.
    """

    kind: str
    name: str
    folder: Path | None
    commit: str | None = None


@dataclass(frozen=True)
class ModelShape:
    """What config.json says. Everything but `layers` is None when only `layers:` was given."""

    layers: int
    model_type: str | None = None
    hidden_width: int | None = None
    ffn_width: int | None = None
    decoder_layers: int | None = None
    max_positions: int | None = None

    def width(self, representation: str) -> int | None:
        """Columns of a shard of `representation`."""
        return self.ffn_width if representation.endswith("ffn") else self.hidden_width


def resolve(path: str, revision: str | None = None) -> ModelSource:
    """Find a model: `package:<import name>/<path>`, a folder, or a hub id in the local cache.

    A path is a folder when it starts with `/`, `./`, `../` or `~` or exists as one; anything else
    is a hub id, which is looked up in the local cache only, never on the network.

    Raises
    ------
    ProbelineError
        If the package or folder does not exist, or the text cannot be a hub id.
    """
    if path.startswith("package:"):
        return ModelSource("package", path, _package_folder(path))
    folder = reachable("", path)
    if path.startswith(("/", "./", "../", "~")) or folder.is_dir():
        if not folder.is_dir():
            raise ProbelineError(f"{path}: no such folder; a model is a folder with config.json")
        return ModelSource("folder", path, folder)
    if not _HUB_ID.fullmatch(path):
        raise ProbelineError(
            f"{path}: neither a folder that exists nor a hub id like 'org/name'; "
            "start the path of a folder with './' or '/'"
        )
    snapshot = _cached_snapshot(path, revision)
    return ModelSource("hub", path, snapshot, snapshot.name if snapshot else None)


def read_shape(spec: Mapping) -> ModelShape:
    """Layer count and widths of the model that `spec` (an entry of `models:`) names.

    They come from config.json in the folder, package or local hub cache; for a hub model that is
    not there, from `spec["layers"]` alone.

    Raises
    ------
    ProbelineError
        If there is no config.json and no `layers`, the two disagree, or the architecture is not
        supported.
    """
    source = resolve(spec["path"], spec.get("revision"))
    layers = spec.get("layers")
    if source.folder is None or (source.kind == "hub" and not _has_config(source.folder)):
        if layers is None:
            raise ProbelineError(
                f"{spec['path']}: not in the local hub cache, so its layer count is unknown; "
                "run `probeline fetch`, or set `layers:` for this model"
            )
        return ModelShape(layers=layers)
    shape = shape_of_folder(source.folder, spec["path"])
    if layers is not None and layers != shape.layers:
        raise ProbelineError(
            f"{spec['path']}: `layers: {layers}` disagrees with its config.json, which says "
            f"{shape.layers}; remove `layers:`"
        )
    return shape


def shape_of_folder(folder: Path, where: str) -> ModelShape:
    """Read the shape from `folder`/config.json; `where` names the model in errors."""
    config = read_config(folder, where)
    family = family_of(config.get("model_type"), where)
    width = _integer(config, family.width, where)
    ffn_width = _integer(config, family.ffn_width, where, required=family.ffn_factor is None)
    decoder_layers = None
    if family.decoder is not None:
        decoder_layers = _integer(config, family.decoder_layers, where)
    return ModelShape(
        layers=_integer(config, family.layers, where),
        model_type=config["model_type"],
        hidden_width=width,
        ffn_width=ffn_width if ffn_width is not None else family.ffn_factor * width,
        decoder_layers=decoder_layers,
        max_positions=_max_positions(config, family, where),
    )


def read_config(folder: Path, where: str) -> dict:
    """Return `folder`/config.json as a dict, or say that `folder` holds no model."""
    path = folder / "config.json"
    refuse_special(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProbelineError(
            f"{where}: no model there: {folder} has no config.json; "
            "expected a folder written by save_pretrained or downloaded from the hub"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ProbelineError(f"{path}: not a complete JSON file: {error}") from None
    if not isinstance(config, dict):
        raise ProbelineError(f"{path}: expected a JSON object")
    return config


def max_positions(config: Mapping) -> int | None:
    """Most tokens per text, from a config.json; None where it has no limit or is of no family."""
    family = FAMILIES.get(config.get("model_type"))
    return _max_positions(config, family, "config.json") if family else None


def hub_cache() -> Path:
    """The hub's local cache folder, by the environment variables that huggingface_hub honours."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def _package_folder(path: str) -> Path:
    name, _, rest = path.removeprefix("package:").partition("/")
    # find_spec of a top-level name finds the package without running it.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ProbelineError(f"{path}: no installed Python package '{name}'; install it with pip")
    folder = Path(next(iter(spec.submodule_search_locations))) / rest
    if not folder.is_dir():
        raise ProbelineError(f"{path}: package '{name}' has no folder '{rest}'")
    return folder


def _cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The snapshot folder of `repo` at `revision` (default: main), or None."""
    root = hub_cache() / f"models--{repo.replace('/', '--')}"
    revision = revision or "main"
    snapshots = root / "snapshots"
    if _COMMIT.fullmatch(revision):
        commit = revision
    else:
        try:
            commit = (root / "refs" / revision).read_text(encoding="ascii").strip()
        except OSError:
            return None
    return snapshots / commit if commit and (snapshots / commit).is_dir() else None


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _integer(
    config: Mapping, keys: tuple[str, ...], where: str, required: bool = True
) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    if not required:
        return None
    raise ProbelineError(f"{where}: its config.json has no positive integer '{keys[0]}'")


def _max_positions(config: Mapping, family: Family, where: str) -> int | None:
    if not family.positions:
        return None
    positions = _integer(config, family.positions, where, required=False)
    if positions is None or not family.padded_positions:
        return positions
    padding = config.get("pad_token_id")
    return positions - (1 if padding is None else padding) - 1
