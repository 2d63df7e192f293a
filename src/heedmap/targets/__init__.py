"""What is explained: an expression in logits that becomes one number per example.

    logit("zebra")      logit(340) - logit(386)      (a - b) / a      any callable output -> Tensor[batch]

A target is written before the model has run. `settle` fills in what it leaves open (the predicted class, the
query, the position) from the output met, so that its repr says what was explained; `evaluate` computes it.
"""

from heedmap.targets.answers import evaluate, logits_behind, predicted, settle
from heedmap.targets.expressions import Target, as_target, logit
from heedmap.targets.fields import Context

__all__ = ["Context", "Target", "as_target", "evaluate", "logit", "logits_behind", "predicted", "settle"]
