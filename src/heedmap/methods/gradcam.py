"""Grad-CAM on the features of tokens, the baseline (Selvaraju et al., ICCV 2017), as it is used on Transformers.

    a_c  = mean over tokens of g[i, c]         F: features (token, channel), g: the gradient of the target by them
    m_i  = max(sum over channels of a_c F[i, c], 0)

F are the tokens as the last attention of the answer's stream reads them, its queries, keys and values being linear maps
of them: in ViT what the last block's first norm gives. Behind that attention only the answer's own token has a
gradient. Each stream that is read has its own: DETR's queries last read the encoder's memory, LXMERT's text its boxes.

Tokens that the answer itself is read at (CLS) count in no mean and get no number, as where a grid is made of ViT's
patches; where it is read at all tokens, all count. What a mask hides never counts and gets 0. Where features are what
the residual carries too, norms coming behind it (BERT, DETR), the gradient is that of both, as autograd gives it.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from heedmap.methods.features import on_features


def _map(features: Tensor, gradient: Tensor, counts: Tensor) -> Tensor:
    mean = (gradient * counts[:, :, None]).sum(1, keepdim=True) / counts.sum(1).clamp(min=1)[:, None, None]
    return (mean * features).sum(-1).clamp(min=0)


gradcam = partial(on_features, "gradcam", _map)
