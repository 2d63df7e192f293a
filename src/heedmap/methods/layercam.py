"""LayerCAM on the features of tokens, the baseline (Jiang et al., TIP 2021), as it is used on Transformers.

    m_i  = max(sum over channels of max(g[i, c], 0) F[i, c], 0)

with the features F and their gradient g as in Grad-CAM on tokens (gradcam.py), whose mean over tokens it leaves out.
Features behind a norm have both signs, so the last max is not idle, as it is in a convolutional network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.methods.features import on_features
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration


def layercam(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them."""
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    return on_features("layercam", _map, model, inputs, targets, **given)


def _map(features: Tensor, gradient: Tensor, counts: Tensor) -> Tensor:
    return (gradient.clamp(min=0) * features).sum(-1).clamp(min=0)
