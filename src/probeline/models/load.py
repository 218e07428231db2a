"""Load the body of a model, frozen, with its tokenizer; nothing of it may be random or missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from probeline.errors import ProbelineError
from probeline.models.devices import BATCH_TOKENS, resolve_device, resolve_dtype
from probeline.models.families import Family, family_of
from probeline.models.heap import keep_freed_memory
from probeline.models.hub import Need, fetch, hub_folder, needs
from probeline.models.reference import ModelShape, ModelSource, resolve, shape_of_folder
from probeline.models.weights import code_files, files_hash, tokenizer_files, weight_files

__all__ = ["LoadedModel", "fetch", "load_model", "resolve_device", "resolve_dtype"]

logger = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model body on its device, in evaluation mode, and everything needed to feed it.

    Attributes
    ----------
    path : str
        The model as the user wrote it.
    body : torch.nn.Module
        The model without any head.
    tokenizer : transformers.PreTrainedTokenizerBase
    family : Family
    shape : ModelShape
    device : torch.device
    dtype : torch.dtype
        The resolved one, never "auto".
    max_length : int
        Tokens per text, special tokens included.
    batch_tokens : int
        Tokens per batch, padding included.
    pad_id : int
        Id put into padded places; they are masked, so its embedding does not matter.
    tokenizer_hash : str
        16 hexadecimal digits over the tokenizer's files.
    source : ModelSource
    weights : list of Path
    beside : int
        Tokens that the body itself puts beside those of every text.
    code : list of Path or None
        Python files that come with the model and its tokenizer; None where they are not trusted.
    """

    path: str
    body: torch.nn.Module
    tokenizer: object
    family: Family
    shape: ModelShape
    device: torch.device
    dtype: torch.dtype
    max_length: int
    batch_tokens: int
    pad_id: int
    tokenizer_hash: str
    source: ModelSource
    weights: list[Path]
    beside: int = 0
    code: list[Path] | None = None

    @cached_property
    def weights_hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the weight files; read when first asked for."""
        return files_hash(self.weights)

    @property
    def revision(self) -> str:
        """The hub's commit, or `sha256:` and the weights' hash of a folder or package."""
        return self.source.commit or f"sha256:{self.weights_hash}"

    @property
    def own_code(self) -> dict[str, bool | str]:
        """What tells runs of the model's own code from others; of a model that may run none,
        nothing."""
        if self.code is None:
            return {}
        return {"trust_remote_code": True, "code": files_hash(self.code)}

    @property
    def dtype_name(self) -> str:
        """The dtype as the config writes it."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def vocabulary(self) -> int:
        """Rows of the input embedding."""
        return self.body.get_input_embeddings().weight.shape[0]


def load_model(
    spec: Mapping, decoder: bool = False, loader: Callable[..., torch.nn.Module] | None = None
) -> LoadedModel:
    """Load the model that `spec` (an entry of `models:`) names.

    Of a checkpoint with a head (classification, language model) the body is used. Hub models come
    from the local cache and are downloaded when they are not in it.

    Parameters
    ----------
    spec : mapping
        Keys `path`, `revision`, `tokenizer`, `max_length`, `dtype`, `device`, `batch_tokens`,
        `trust_remote_code`; all but `path` optional.
    decoder : bool
        Load the decoder of an encoder-decoder too.
    loader : callable, optional
        Called with (spec, source, family, weights, dtype, decoder) in place of what loads the
        frozen body; the model it returns becomes `body`.

    Raises
    ------
    ProbelineError
        If there is no model, its architecture has no hooks, its files are half-copied, weights of
        the body are missing, or a setting does not fit the model.
    """
    path = spec["path"]
    source = local_source(spec)
    shape = shape_of_folder(source.folder, path)
    family = family_of(shape.model_type, path)
    device = resolve_device(spec.get("device") or "auto")
    if device.type == "cpu":
        keep_freed_memory()
    dtype = resolve_dtype(spec.get("dtype") or "auto", device)
    weights = weight_files(source.folder, path)
    tokenizer, tokenizer_hash = load_tokenizer(spec, source)
    max_length = _max_length(spec, shape, tokenizer)
    body = (loader or load_body)(spec, source, family, weights, dtype, decoder)
    return LoadedModel(
        path=path,
        body=body.to(device),
        tokenizer=tokenizer,
        family=family,
        shape=shape,
        device=device,
        dtype=dtype,
        max_length=max_length,
        batch_tokens=_batch_tokens(spec, device, max_length),
        pad_id=pad_id(tokenizer),
        tokenizer_hash=tokenizer_hash,
        source=source,
        weights=weights,
        code=_code(spec, source),
    )


def local_source(spec: Mapping) -> ModelSource:
    """Find the model that `spec` names on this machine; a hub model is downloaded if need be."""
    source = resolve(spec["path"], spec.get("revision"))
    if source.kind != "hub":
        return source
    folder = hub_folder(source.name, spec.get("revision"), needs(spec))
    return ModelSource("hub", source.name, folder, folder.name)


def load_tokenizer(spec: Mapping, source: ModelSource) -> tuple[object, str]:
    """Return the tokenizer that `spec` names and the hash of its files."""
    from transformers import AutoTokenizer

    name, folder = _tokenizer_folder(spec, source)
    digest = files_hash(tokenizer_files(folder, name))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=bool(spec.get("trust_remote_code")),
            )
    except Exception as error:  # tokenizer files fail in as many ways as there are tokenizers
        raise ProbelineError(f"{name}: its tokenizer cannot be read: {reason(error)}") from error
    return tokenizer, digest


def _tokenizer_folder(spec: Mapping, source: ModelSource) -> tuple[str, Path]:
    """Name and folder of the tokenizer that `spec` names."""
    name = spec.get("tokenizer")
    if not name:
        return spec["path"], source.folder
    # A hub's tokenizer has a commit once it is fetched; the configuration names none.
    revision = spec.get("tokenizer_revision")
    other = resolve(name, revision)
    if other.kind == "hub":
        return name, hub_folder(name, revision, Need(weights=False))
    return name, other.folder


def _code(spec: Mapping, source: ModelSource) -> list[Path] | None:
    if not spec.get("trust_remote_code"):
        return None
    folders = dict.fromkeys([source.folder, _tokenizer_folder(spec, source)[1]])
    return [path for folder in folders for path in code_files(folder)]


def load_body(
    spec: Mapping,
    source: ModelSource,
    family: Family,
    weights: list[Path],
    dtype: torch.dtype,
    decoder: bool,
) -> torch.nn.Module:
    """Load a body without any head, frozen, as `load_model` says."""
    import transformers

    path, trusted = spec["path"], bool(spec.get("trust_remote_code"))
    pickled = weights[0].suffix == ".bin"
    if pickled:
        logger.info("%s: weights are in .bin files; reading them with weights_only=True", path)
    if family.decoder is not None and not decoder:
        auto = getattr(transformers, family.encoder_class)
    else:
        auto = transformers.AutoModel
    extra = {"add_pooling_layer": False} if family.pooler else {}
    if auto is transformers.AutoModel:
        extra["trust_remote_code"] = trusted
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=trusted
            )
            no_extras(config)
            body, info = auto.from_pretrained(
                source.folder,
                config=config,
                dtype=dtype,
                use_safetensors=not pickled,
                weights_only=True,
                local_files_only=True,
                output_loading_info=True,
                **extra,
            )
    except (
        Exception
    ) as error:  # damaged weights, shapes that do not fit, a config for another class
        raise ProbelineError(f"{path}: the model cannot be loaded: {reason(error)}") from error
    nothing_missing(info, path)
    _hooks_fit(body, family, path, decoder)
    return body.eval().requires_grad_(False)


def no_extras(config) -> None:
    """Switch off what would keep tokens x width tensors alive or call a block's parts twice."""
    for name, value in (
        ("use_cache", False),
        ("output_hidden_states", False),
        ("output_attentions", False),
        ("chunk_size_feed_forward", 0),
    ):
        if hasattr(config, name):
            setattr(config, name, value)


def nothing_missing(info: Mapping, path: str, what: str = "the model's body") -> None:
    """transformers fills missing weights with random numbers and goes on: refuse that."""
    missing = sorted(info["missing_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ProbelineError(
            f"{path}: {len(missing)} weights of {what} are missing from its files "
            f"({shown}); expected a checkpoint that has all of them"
        )


def _hooks_fit(body: torch.nn.Module, family: Family, path: str, decoder: bool) -> None:
    for stack in (family.encoder, family.decoder if decoder else None):
        if stack is None:
            continue
        try:
            body.get_submodule(stack.blocks)[0].get_submodule(stack.ffn_out)
        except AttributeError:
            raise ProbelineError(
                f"{path}: the model has no {stack.blocks}[0].{stack.ffn_out}, so its code differs "
                "from the architecture it names; no hooks for it"
            ) from None


def _max_length(spec: Mapping, shape: ModelShape, tokenizer) -> int:
    most, asked = shape.max_positions, spec.get("max_length")
    if asked is None:
        asked = min(DEFAULT_MAX_LENGTH, most or DEFAULT_MAX_LENGTH, tokenizer.model_max_length)
    if most is not None and asked > most:
        raise ProbelineError(
            f"{spec['path']}: max_length {asked} is above the model's {most} positions; "
            f"set max_length to at most {most}"
        )
    special = tokenizer.num_special_tokens_to_add(pair=True)
    if asked <= special:
        raise ProbelineError(
            f"{spec['path']}: max_length {asked} leaves no room for text beside {special} special "
            f"tokens; set max_length to {special + 1} or more"
        )
    return int(asked)


def _batch_tokens(spec: Mapping, device: torch.device, max_length: int) -> int:
    asked = spec.get("batch_tokens")
    tokens = BATCH_TOKENS[device.type] if asked in (None, "auto") else int(asked)
    return max(tokens, max_length)


def pad_id(tokenizer) -> int:
    """Id to put into padded places, which are masked."""
    for value in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if value is not None:
            return int(value)
    return 0


def reason(error: Exception) -> str:
    """The kind of an error and its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no further word'}"


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports from transformers: what matters is raised here."""
    from transformers.utils import logging as library

    level = library.get_verbosity()
    bars = library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
