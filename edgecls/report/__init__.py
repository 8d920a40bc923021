"""Reports on runs and benchmarks: HTML pages, a model card, a comparison. Never imports TensorFlow."""

from edgecls.report.bench import write_bench
from edgecls.report.card import write_card
from edgecls.report.compare import compare, comparison, write_comparison
from edgecls.report.html import write_report

__all__ = ["compare", "comparison", "write_bench", "write_card", "write_comparison", "write_report"]
