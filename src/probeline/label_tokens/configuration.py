"""The configuration of a classifier whose labels are tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

PREFIX, SUFFIX = "prefix", "suffix"
SINGLE, MULTI = "single_label_classification", "multi_label_classification"


@strict
class LabelTokenConfig(PreTrainedConfig):
    """Settings of a `LabelTokenClassifier`; labels are `id2label`, the loss is `problem_type`.

    Attributes
    ----------
    body : PreTrainedConfig or dict
        Configuration of the transformer that reads labels and text.
    label_tokens : list of str
        The token of each label, as it is shown; its embedding stands beside the vocabulary.
    position : str
        Where the label tokens stand: "prefix", or "suffix" for decoders.
    first : int
        Tokens that stay before a prefix, such as [CLS].
    shared_positions : bool
        All label tokens have the same position number.
    labels_attend : bool
        Label tokens attend to each other (in decoders, to those before them).
    isolated : bool
        Text does not attend to label tokens; implies shared positions and no attention between
        label tokens, so that the text is read as if there were no other label.
    chunk : int or None
        Label tokens per pass through the body; None means all.
    shortlist : int or None
        Labels that are read for each text, which are given to it; None means all. Where none are
        given, all are read, so many per pass.
    dropout : float
        On the outputs at the label tokens.
    initialization : str or None
        How the embeddings of the label tokens began.
    thresholds : list of float or None
        Multi-label: the probability, per label, above which it holds; None means 0.5.
    initializer_range : float
        Standard deviation of a new head.
    """

    model_type = "label-tokens"
    sub_configs: ClassVar[dict] = {"body": AutoConfig}

    body: Any = None
    label_tokens: list[str] | None = None
    position: str = PREFIX
    first: int = 1
    shared_positions: bool = False
    labels_attend: bool = True
    isolated: bool = False
    chunk: int | None = None
    shortlist: int | None = None
    dropout: float | int = 0.1
    initialization: str | None = None
    thresholds: list[float] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if isinstance(self.body, dict):
            self.body = AutoConfig.for_model(**self.body)
        if self.isolated:
            self.shared_positions, self.labels_attend = True, False
        body, self.body = self.body, None
        super().__post_init__(**kwargs)
        self.body = body
        # The body was kept aside: it would be told None, and a loaded one forget what it was given.
        if self._attn_implementation is not None:
            self._attn_implementation = self._attn_implementation

    @property
    def hidden_size(self) -> int | None:
        """Width of what the body gives out."""
        # OPT's small ones project it back to the width of the embeddings.
        return getattr(self.body, "word_embed_proj_dim", getattr(self.body, "hidden_size", None))

    @property
    def type_vocab_size(self) -> int:
        """Segments of a pair that the body tells apart; 0 where it knows none."""
        return getattr(self.body, "type_vocab_size", 0)

    @property
    def labels_per_pass(self) -> int:
        """Label tokens that stand in one sequence."""
        every = self.num_labels
        return min(self.chunk or every, self.shortlist or every, every)

    @property
    def positions_taken(self) -> int:
        """Position numbers that the label tokens of one sequence use up."""
        return 1 if self.shared_positions else self.labels_per_pass
