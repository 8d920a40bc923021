"""Classify photographs with a trained model, and score its answers."""

from edgecls.infer.classifier import Classifier
from edgecls.metrics import evaluate

__all__ = ["Classifier", "evaluate"]
