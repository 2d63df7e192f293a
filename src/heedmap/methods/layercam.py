"""LayerCAM on the features of tokens, the baseline (Jiang et al., TIP 2021), as it is used on Transformers.

    m_i  = max(sum over channels of max(g[i, c], 0) F[i, c], 0)

with the features F and their gradient g as in Grad-CAM on tokens (gradcam.py), whose mean over tokens it leaves out.
Features behind a norm have both signs, so the last max is not idle, as it is in a convolutional network.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from heedmap.methods.features import on_features


def _map(features: Tensor, gradient: Tensor, counts: Tensor) -> Tensor:
    return (gradient.clamp(min=0) * features).sum(-1).clamp(min=0)


layercam = partial(on_features, "layercam", _map)
