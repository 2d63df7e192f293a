"""LRP, the baseline: layer-wise relevance propagation (Bach et al., PLOS ONE 2015), by the rules for Transformers.

Relevance begins as 1 at the target's logit and is handed backward, operation by operation, by the rules that `rules`
writes out; LayerNorm, activations, softmax, scales and masks change nothing. What arrives at a token where it enters
attention, summed over channels, is its number; where a convolution of the picture made the tokens, it is handed on to
the pixels by the box rule (`e.pixels`). It is signed. The model runs as it stands: its operations are recorded, none is
replaced.

    ours     the rules of Chefer, Gur and Wolf (CVPR 2021): the total stays 1, except where nothing speaks for a number
             (a linear map of zeros), whose relevance ends there; of pixels, less what positions and CLS take
    orig     the rules of the LRP that they compare with: the total is not kept, and may grow without bound

Their rules were written down for ViT, BERT, DETR and LXMERT, each as a model of its own. What their text leaves open is
settled thus, for any model:

* a target other than a logit begins as its gradient by what it reads of the output: a - b as 1 and -1, 20 a as 20
* totals are of one example, not of the batch; the official code is right for a batch of one only
* a mean or sum over tokens is a sum of many: each token's total is rescaled as that of an addend
* of two factors that are both computed from the inputs, as in a gate, each takes half; a scale for several takes none
* positions added between calls take nothing; their share counts only on the way to the pixels. In DETR's first decoder
  layer values are one constant, and what they are handed ends there; the official code gives it to queries and keys
* an activation that a model writes out of parts (GPT-2's gelu) is met as these parts, so channels may exchange theirs

Divided by numbers near 0, it is ill-conditioned: of a model in half precision the map is another one.

Licence: LRP is patented in part; whoever uses it commercially should ask whether a licence is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.errors import UnsupportedError
from heedmap.methods.asking import questions
from heedmap.methods.relevance import taped
from heedmap.records import Explanation, Wiring
from heedmap.streams import Declaration


def lrp(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    rules: str = "ours",
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them and one pass of relevance for each."""
    explanations = []
    with taped(model, inputs, rules, wiring, verify, edits) as (recording, wired, relevance):
        _refuse_declared(wired)
        for asked in questions(model, inputs, targets, recording, wired, True, verify):
            came = relevance.arrived(asked)
            if not came.tokens:
                raise UnsupportedError(
                    f"No relevance came to {', '.join(wired.tokens)} as a whole before attention. lrp expected tokens "
                    "that are laid out once and then read; use t-attr, heed or gae here."
                )
            starts = {stream: torch.zeros_like(each) for stream, each in came.tokens.items()}
            e = asked.answered(f"lrp:{rules}", "", came.tokens, starts, wired, ["relevance of the target"])
            explanations.append(replace(e, pixels=came.pixels))
    return explanations


def _refuse_declared(wiring: Wiring) -> None:
    declared = [stream for stream in wiring.entered if stream not in wiring.layouts]
    if declared:
        raise UnsupportedError(
            f"lrp follows relevance to where tokens were laid out, which is not known of the declared stream "
            f"{declared[0]!r}. Leave out wiring=, or use t-attr, partial-lrp, heed or gae here."
        )
