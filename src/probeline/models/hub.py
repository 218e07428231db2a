"""Download a hub model into the local cache, pinned to one commit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.models.reference import hub_cache, read_config, resolve
from probeline.models.weights import (
    EMBEDDER_FILES,
    TOKENIZER_FILES,
    tokenizer_files,
    weight_files,
)

logger = logging.getLogger(__name__)

# At the top, not in a folder of other models; adapters are none.
_SAFETENSORS = re.compile(r"model[^/]*\.safetensors")


class Unreachable(ProbelineError):
    """The hub does not answer."""


@dataclass(frozen=True)
class Need:
    """Which files of a repository are needed."""

    weights: bool = True
    tokenizer: bool = True
    code: bool = False

    def check(self, folder: Path, where: str) -> None:
        """Refuse a `folder` that lacks one of them, or has it in part; `where` names the model."""
        if self.weights:
            read_config(folder, where)
            weight_files(folder, where)
        if self.tokenizer:
            tokenizer_files(folder, where)

    def met_by(self, folder: Path) -> bool:
        """Whether `folder` has them, whole."""
        try:
            self.check(folder, str(folder))
        except ProbelineError:
            return False
        return True

    def patterns(self, names: list[str]) -> list[str]:
        """Which of the repository's files `names` to download: safetensors where there are any."""
        wanted = ["config.json", *TOKENIZER_FILES, *(["*.py"] if self.code else [])]
        if not self.weights:
            return wanted
        if any(_SAFETENSORS.fullmatch(name) for name in names):
            return [*wanted, "model*.safetensors", "model.safetensors.index.json"]
        return [*wanted, "pytorch_model*.bin", "pytorch_model.bin.index.json"]


@dataclass(frozen=True)
class EmbedderNeed(Need):
    """Of a sentence-transformers repository: what its modules are made from as well."""

    def check(self, folder: Path, where: str) -> None:
        super().check(folder, where)
        for part in _modules(folder / "modules.json"):
            if not (folder / part).is_dir() and not part.endswith("_Normalize"):
                raise ProbelineError(f"{where}: its module {part} is missing; fetch it again")

    def patterns(self, names: list[str]) -> list[str]:
        found = [*super().patterns(names), *EMBEDDER_FILES, "*/config.json"]
        return [*found, "*_Dense/model.safetensors", "*_Dense/pytorch_model.bin"]


def _modules(path: Path) -> list[str]:
    """Folders of the modules; none of a plain transformer."""
    if not path.is_file():
        return []
    return [module["path"] for module in read_json(path) if module.get("path")]


def needs(spec: Mapping) -> Need:
    """What an entry of `models:` needs of its own repository."""
    return Need(
        tokenizer=not spec.get("tokenizer"), code=bool(spec.get("trust_remote_code", False))
    )


def fetch(spec: Mapping) -> str | None:
    """Fill the local hub cache with the config, tokenizer and weights of `spec`'s model.

    Safetensors are taken where the repository has them, else `pytorch_model*.bin`. Where the hub is
    out of reach, what is cached is kept. Nothing happens for a folder or package.

    Parameters
    ----------
    spec : mapping
        An entry of `models:`.

    Returns
    -------
    str or None
        The commit that `revision` (default: main) stands for; None for a folder or package.

    Raises
    ------
    ProbelineError
        If the repository or the revision does not exist or lacks what is needed of it, or neither
        the hub nor a whole copy in the cache is at hand.
    """
    commit = None
    if resolve(spec["path"], spec.get("revision")).kind == "hub":
        commit = _refreshed(spec["path"], spec.get("revision"), needs(spec)).name
    tokenizer = spec.get("tokenizer")
    if tokenizer and resolve(tokenizer).kind == "hub":
        _refreshed(tokenizer, None, Need(weights=False))
    return commit


def tokenizer_commit(spec: Mapping) -> dict[str, str]:
    """Return {"tokenizer": commit in the cache} where `spec` names a hub's tokenizer, else {}."""
    found = resolve(spec["tokenizer"]) if spec.get("tokenizer") else None
    return {"tokenizer": found.commit} if found and found.commit else {}


def fetch_embedder(spec: Mapping) -> str | None:
    """As `fetch`, for a sentence-transformers model; `spec` holds its path and revision."""
    path, revision = spec["path"], spec.get("revision")
    if resolve(path, revision).kind != "hub":
        return None
    return _refreshed(path, revision, EmbedderNeed()).name


def hub_folder(repo: str, revision: str | None, need: Need) -> Path:
    """Return the snapshot folder of a hub model, named by its commit; download what is not cached.

    A cached branch is not refreshed: two jobs of one run must see the same commit.
    """
    cached = resolve(repo, revision).folder
    if cached is not None and need.met_by(cached):
        return cached
    logger.info("%s is not in the local hub cache: fetching it", repo)
    return _snapshot(repo, revision, need)


def _refreshed(repo: str, revision: str | None, need: Need) -> Path:
    """The newest snapshot of `repo` at `revision`; the cached one where the hub is out of reach."""
    cached = resolve(repo, revision).folder
    whole = cached is not None and need.met_by(cached)
    if whole and cached.name == revision:
        return cached
    try:
        return _snapshot(repo, revision, need)
    except Unreachable:
        if not whole:
            raise
        logger.warning("%s: the hub is out of reach; keeping commit %s", repo, cached.name)
        return cached


def _snapshot(repo: str, revision: str | None, need: Need) -> Path:
    """Download what is needed of `repo` and return the snapshot's folder."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = revision or "main"
    try:
        info = HfApi().model_info(repo, revision=wanted)
        names = [sibling.rfilename for sibling in info.siblings or []]
        # Asking for `wanted`, not the commit, also writes refs/<wanted> into the cache.
        folder = snapshot_download(
            repo, revision=wanted, allow_patterns=need.patterns(names), cache_dir=hub_cache()
        )
    except GatedRepoError:
        raise ProbelineError(
            f"{repo}: this hub model is gated; accept its terms on its page and run `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ProbelineError(f"{repo}: the hub has no revision '{wanted}' of it") from None
    except RepositoryNotFoundError:
        raise ProbelineError(
            f"{repo}: no such folder here and no such model on the hub; check the spelling, or "
            "start the path of a folder with './'"
        ) from None
    except Exception as error:
        if not _is_network(error):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unreachable(
            f"{repo}: not in the local hub cache and the hub cannot be reached ({reason}); run "
            "`probeline fetch` where there is a network, or give the path of a folder"
        ) from None
    need.check(Path(folder), repo)
    return Path(folder)


def _is_network(error: Exception) -> bool:
    """Offline mode, HTTP answers and the HTTP client's own errors, which have no common class."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled | HfHubHTTPError | ConnectionError | TimeoutError):
        return True
    return any(
        kind.__module__.startswith(("httpx", "httpcore", "requests", "huggingface_hub.errors"))
        for kind in type(error).__mro__
    )
