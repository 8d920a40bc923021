"""Reports on runs and benchmarks: HTML pages, a model card, a comparison. Never imports TensorFlow."""

from edgecls.report.bench import write_bench
from edgecls.report.card import write_card
from edgecls.report.html import compare, write_report

__all__ = ["compare", "write_bench", "write_card", "write_report"]
