"""A classifier whose labels are tokens that read the text.

Every label has a token of its own. All label tokens stand before the text, or after it in decoders;
the output at each goes through one shared linear map to one logit. After
https://github.com/nbroad1881/token-sequence-classification.

The model itself puts the label tokens among those of the text. So an ordinary tokenizer feeds it,
no text can spell a label token or be glued to one, truncation cannot cut one off, and the body's
vocabulary stays as it is, where it may be frozen, quantised or tied.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from probeline.label_tokens import bodies
from probeline.label_tokens.configuration import MULTI, PREFIX, LabelTokenConfig
from probeline.label_tokens.layout import Layout, Rules, allowed, arrange
from probeline.models.reading import is_causal

# How far the logit of a label that is not read lies below the lowest that is, and below 0: next to
# nothing after a softmax or a sigmoid, with a log loss that is a number like others.
NOT_READ = 10.0


class LabelTokenClassifier(PreTrainedModel):
    """One logit per label, from the output at the label's token.

    Parameters
    ----------
    config : LabelTokenConfig
    body : PreTrainedModel, optional
        The transformer, without a head; random weights if there is none.

    Raises
    ------
    ProbelineError
        If the body cannot do what the configuration asks; see `bodies.check`.
    """

    config_class = LabelTokenConfig
    base_model_prefix = "body"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LabelTokenConfig, body: PreTrainedModel | None = None):
        super().__init__(config)
        bodies.check(config)
        self.body = bodies.new_body(config.body) if body is None else body
        embedding = self.body.get_input_embeddings()
        self.label_embeddings = torch.nn.Embedding(config.num_labels, embedding.embedding_dim)
        self.dropout = torch.nn.Dropout(config.dropout)
        self.classifier = torch.nn.Linear(config.hidden_size, 1)
        # Gemma multiplies what stands in its table.
        self._scale = getattr(embedding, "scalar_embed_scale", 1.0)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        candidates: torch.Tensor | None = None,
        output_attentions: bool = False,
        **_,
    ) -> SequenceClassifierOutput:
        """Classify tokenized texts, or pairs.

        Parameters
        ----------
        input_ids : torch.Tensor
            int64 (B, T): texts as the tokenizer gives them, without label tokens.
        attention_mask : torch.Tensor, optional
            (B, T), 0 at padding, which may stand on either side.
        token_type_ids : torch.Tensor, optional
            int64 (B, T): segments of a pair; label tokens are of the first.
        labels : torch.Tensor, optional
            int64 (B,), or float (B, K) for multi-label.
        candidates : torch.Tensor, optional
            int64 (B, M): the labels that are read for each text, each once; the logits of others
            are lower by `NOT_READ`. In an order that says nothing of the text, such as that of
            their codes: it is seen. Without them all are read.
        output_attentions : bool
            Give out the attention weights, one (B, heads, S, S) per layer; `layout` says what
            stands where. Only where one pass reads all, and with `attn_implementation="eager"`.

        Returns
        -------
        SequenceClassifierOutput
            logits (B, K); loss if there are labels.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask, text = mask.bool(), self.body.get_input_embeddings()(input_ids)
        logits, attentions = [], None
        parts = self._parts(candidates, input_ids.device)
        for part in parts:
            layout = self.layout(mask, part.shape[-1])
            output = self._read(text, token_type_ids, part, layout, output_attentions)
            # A quantised or half-precision body may have a head in float32.
            hidden = layout.at_labels(output.last_hidden_state).to(self.classifier.weight.dtype)
            logits.append(self.classifier(self.dropout(hidden)).squeeze(-1))
            attentions = output.attentions if output_attentions else None
        logits = torch.cat(logits, dim=1)
        if candidates is not None:
            logits = self._among_all(logits, candidates)
        loss = None if labels is None else self._loss(logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, attentions=attentions if len(parts) == 1 else None
        )

    def _among_all(self, logits: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Put logits (B, M) of candidates in their places among those of all labels."""
        lowest = logits.detach().amin(1, keepdim=True).clamp(max=0)
        every = (lowest - NOT_READ).expand(-1, self.config.num_labels)
        return every.scatter(1, candidates, logits)

    def layout(self, mask: torch.Tensor, count: int | None = None) -> Layout:
        """Where the tokens of texts with this mask, bool (B, T), stand among `count` labels'."""
        first = self.config.first if self.config.position == PREFIX else None
        return arrange(mask, self.config.num_labels if count is None else count, first)

    def _parts(
        self, candidates: torch.Tensor | None, device: torch.device
    ) -> tuple[torch.Tensor, ...]:
        """Codes of the labels of each pass: (C,) for all texts alike, or (B, C)."""
        codes = candidates
        if codes is None:
            codes = torch.arange(self.config.num_labels, device=device)
        return codes.split(self.config.labels_per_pass, dim=-1)

    def _read(
        self,
        text: torch.Tensor,
        types: torch.Tensor | None,
        part: torch.Tensor,
        layout: Layout,
        output_attentions: bool,
    ):
        """Run the body over the texts and some of the label tokens."""
        labels = (self.label_embeddings(part) * self._scale).to(text.dtype)
        embeds = layout.pick(text, labels.expand(len(text), -1, -1))
        inputs, positions = {}, layout.positions(self.config.shared_positions)
        first = bodies.first_position(self.body)
        if first is not None:
            inputs["position_ids"] = positions + first
        if types is not None:
            inputs["token_type_ids"] = layout.pick(types, types.new_zeros(layout.places.shape))
        if is_causal(self.config.body.model_type):
            inputs["use_cache"] = False
        if output_attentions:
            inputs["output_attentions"] = True
        mask = self._mask(layout, positions, embeds.dtype)
        return self.body(inputs_embeds=embeds, attention_mask=mask, return_dict=True, **inputs)

    def _mask(
        self, layout: Layout, positions: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """What the body takes: its own rules with padding left out, or pairs of tokens."""
        config, body = self.config, self.config.body
        if config.labels_attend:
            return layout.real.long()
        rules = Rules(is_causal(body.model_type), config.labels_attend, config.isolated)

        def mask(window: int | None) -> torch.Tensor:
            found = allowed(layout, rules, positions, window)
            if bodies.wants_bool_mask(body):
                return found
            lowest = torch.finfo(dtype).min
            return torch.zeros_like(found, dtype=dtype).masked_fill(~found, lowest)

        windows = bodies.windows(body)
        if isinstance(windows, dict):
            return {kind: mask(window) for kind, window in windows.items()}
        return mask(windows)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == MULTI:
            return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
        return functional.cross_entropy(logits.float(), labels)
