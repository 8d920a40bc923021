"""Running a trained model on photographs, and scoring what it says."""

from edgecls.infer.classifier import Classifier
from edgecls.metrics import evaluate

__all__ = ["Classifier", "evaluate"]
