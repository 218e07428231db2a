"""Load a causal language model with its head: what scores how likely words are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from probeline.errors import ProbelineError
from probeline.models.devices import BATCH_TOKENS, resolve_device, resolve_dtype
from probeline.models.load import (
    load_tokenizer,
    local_source,
    nothing_missing,
    pad_id,
    quiet,
    reason,
)
from probeline.models.weights import weight_files

# Kinds of blocks whose state is keys and values of every token; a recurrent state cannot be cut.
_ATTENTION = ("full_attention", "sliding_attention")
_CACHE_BYTES = 1 << 31


@dataclass(frozen=True)
class CausalModel:
    """A frozen language model on its device, in evaluation mode.

    Attributes
    ----------
    path : str
        The model as the user wrote it.
    network : torch.nn.Module
        Called with ids, mask and cache, it returns `logits` and `past_key_values`.
    tokenizer : transformers.PreTrainedTokenizerBase
    device : torch.device
    dtype : torch.dtype
    positions : int or None
        Most tokens of a text; None where nothing limits them.
    batch_tokens : int
        Tokens per batch, padding included.
    pad_id : int
    leading : tuple of int
        Ids that every text begins with, such as a start token.
    arguments : frozenset of str
        Names of the arguments that `network` takes.
    cached_tokens : int
        Tokens whose keys and values, and a copy of them, the memory has room for.
    """

    path: str
    network: torch.nn.Module
    tokenizer: object
    device: torch.device
    dtype: torch.dtype
    positions: int | None
    batch_tokens: int
    pad_id: int
    leading: tuple[int, ...]
    arguments: frozenset[str]
    cached_tokens: int

    @property
    def vocabulary(self) -> int:
        """Rows of the input embedding."""
        return self.network.get_input_embeddings().weight.shape[0]


def load_causal(spec: Mapping) -> CausalModel:
    """Load the language model that `spec` (an entry of `models:`) names.

    Parameters
    ----------
    spec : mapping
        Keys `path`, `revision`, `tokenizer`, `dtype`, `device`, `batch_tokens`,
        `trust_remote_code`; all but `path` optional. `max_length` is not read: it is how much of a
        text an extraction takes, not how long a prompt may be.

    Raises
    ------
    ProbelineError
        If there is no model, its files are half-copied, it has no language-model head, or it is not
        a decoder that attends to earlier tokens only.
    """
    source = local_source(spec)
    device = resolve_device(spec.get("device") or "auto")
    dtype = resolve_dtype(spec.get("dtype") or "auto", device)
    tokenizer, _ = load_tokenizer(spec, source)
    network = _load(spec, source.folder, dtype).to(device)
    _check_causal(network, device, spec["path"])
    asked = spec.get("batch_tokens")
    return CausalModel(
        path=spec["path"],
        network=network,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        positions=getattr(network.config.get_text_config(), "max_position_embeddings", None),
        batch_tokens=BATCH_TOKENS[device.type] if asked in (None, "auto") else int(asked),
        pad_id=pad_id(tokenizer),
        leading=_leading(tokenizer),
        arguments=frozenset(inspect.signature(network.forward).parameters),
        cached_tokens=_cached_tokens(network, device),
    )


def _load(spec: Mapping, folder, dtype: torch.dtype) -> torch.nn.Module:
    import transformers

    path, trusted = spec["path"], bool(spec.get("trust_remote_code"))
    pickled = weight_files(folder, path)[0].suffix == ".bin"
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trusted
            )
            _refuse_kind(config, path)
            network, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=not pickled,
                weights_only=True,
                local_files_only=True,
                trust_remote_code=trusted,
                output_loading_info=True,
            )
    except ProbelineError:
        raise
    except Exception as error:  # damaged weights, shapes that do not fit, no such class
        raise ProbelineError(
            f"{path}: cannot be loaded as a causal language model: {reason(error)}"
        ) from error
    nothing_missing(info, path, "the language model")
    return network.eval().requires_grad_(False)


def _refuse_kind(config, path: str) -> None:
    if config.is_encoder_decoder:
        raise ProbelineError(
            f"{path}: an encoder-decoder; in-context learning needs a causal language model such "
            "as GPT-2, Llama or Qwen"
        )
    kinds = getattr(config.get_text_config(), "layer_types", None) or _ATTENTION
    others = sorted(set(kinds) - set(_ATTENTION))
    if others:
        raise ProbelineError(
            f"{path}: has blocks of kind '{others[0]}', whose state cannot be shared between "
            "texts; take a model of attention blocks alone, such as GPT-2, Llama or Qwen2"
        )


def _leading(tokenizer) -> tuple[int, ...]:
    """What the tokenizer puts before a text; what it puts after one must not end a prompt."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    return ()


@torch.inference_mode()
def _check_causal(network: torch.nn.Module, device: torch.device, path: str) -> None:
    """Refuse a model whose first token sees the second: its scores would mean nothing."""
    ids = torch.tensor([[0, 1], [0, 2]], device=device)
    ids %= network.get_input_embeddings().weight.shape[0]
    logits = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0].float()
    if not torch.allclose(logits[0], logits[1], rtol=1e-2, atol=1e-2):
        raise ProbelineError(
            f"{path}: its tokens see those that follow, so it is no causal language model; "
            "in-context learning needs one such as GPT-2, Llama or Qwen"
        )


@torch.inference_mode()
def _cached_tokens(network: torch.nn.Module, device: torch.device) -> int:
    """Tokens whose keys and values fit into a quarter of a GPU's free memory, or into 2 GB."""
    from transformers import DynamicCache

    ids = torch.zeros((1, 1), dtype=torch.int64, device=device)
    mask, cache = torch.ones_like(ids), DynamicCache()
    network(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
    each = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    memory = torch.cuda.mem_get_info()[0] // 4 if device.type == "cuda" else _CACHE_BYTES
    return memory // each
