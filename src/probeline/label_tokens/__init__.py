"""Labels as tokens; importing this makes transformers' Auto classes and pipelines know it."""

from transformers import AutoConfig, AutoModelForSequenceClassification

from probeline.label_tokens.configuration import LabelTokenConfig
from probeline.label_tokens.model import LabelTokenClassifier

AutoConfig.register(LabelTokenConfig.model_type, LabelTokenConfig, exist_ok=True)
AutoModelForSequenceClassification.register(LabelTokenConfig, LabelTokenClassifier, exist_ok=True)

__all__ = ["LabelTokenClassifier", "LabelTokenConfig"]
