"""Reports on runs: an HTML page, a model card, a comparison. Reads only run folders and never imports TensorFlow."""

from edgecls.report.card import write_card
from edgecls.report.html import compare, write_report

__all__ = ["compare", "write_card", "write_report"]
