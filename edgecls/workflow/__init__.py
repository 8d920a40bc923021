"""What the commands do: the stages of a run in their order, each stamped so that done work is not done again."""

from edgecls.workflow.benching import bench
from edgecls.workflow.deploying import export, verify
from edgecls.workflow.scoring import evaluate, predict, report
from edgecls.workflow.training import plan, quantize, train

__all__ = ["bench", "evaluate", "export", "plan", "predict", "quantize", "report", "train", "verify"]
