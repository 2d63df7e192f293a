"""What the contract is kept on: every variant of every method, and a handful of tiny models."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from builders import BY_NAME, Family
from runs import lifted, model_of
from torch import Tensor, nn

import heedmap
from heedmap import Explanation, logit
from heedmap.methods import OURS

VARIANTS = [f"{name}:{variant}" for name, method in heedmap.METHODS.items() for variant in method.variants]
MODELS = ["vit", "bert", "t5", "lxmert", "detr", "nn-encoder", "hand-one-head", "hand-many-heads"]
ONE_CROSS_READ_STATE = {"t5", "detr"}  # where the noise link stands without being told
SELF_READING = set(MODELS) - {"t5", "lxmert", "detr"}  # every stream reads itself alone
TAKES = {  # by method, or by variant: those that are not here take every model
    "odam": {"lxmert", "detr"},
    "odam:backbone": {"detr"},
    "flow": SELF_READING,
    "tam": SELF_READING,
    "dix": SELF_READING,
    "bi": SELF_READING,
    "bi:token-wise": SELF_READING - {"hand-one-head"},  # it adds nothing to what its values come from
    "vit-cx": {"vit"},
    "tis": {"vit"},
    "grad-eclip": {"vit", "bert", "nn-encoder"},  # torch's fused call
}


def method_of(variant: str) -> str:
    return variant.partition(":")[0]


def joined(variant: str) -> bool:
    """Whether a method is not heedmap's own: which models it takes is tried, not written down."""
    return method_of(variant) not in OURS


@cache
def admits(variant: str, name: str) -> bool:
    """Whether a variant takes a model. What it does not take it refuses, which is tested."""
    if joined(variant):
        try:
            return bool(explain(shared(name), name, method=variant))
        except heedmap.errors.HeedmapError:
            return False
    if "noise" in variant and method_of(variant) == "heed":
        return name in ONE_CROSS_READ_STATE
    return name in TAKES.get(variant, TAKES.get(method_of(variant), set(MODELS)))


IN_FULL = {"heed", "gae", "odam"}  # all variants on all models, whenever tests run
BY_RELEVANCE = {"lrp", "partial-lrp", "t-attr"}  # a pass of relevance takes ten times as long as heed
FEW = {  # options with which methods that run the model many times do so a few times
    "tam": {"steps": 3},
    "dix": {"steps": 2},
    "bi": {"steps": 3},
    "vit-cx": {"threshold": 0.5},
    "tis": {"masks": 32},
    "ig": {"steps": 3},
}
AS_ONE = {"vit": "pixel_values", "hand-one-head": "x"}  # models with one input: how it is called


def few(variant: str) -> dict[str, Any]:
    """How a variant is named to `explain`, so that it does not run longer than need be."""
    return {"method": variant, **FEW.get(method_of(variant), {})}


def usual(variant: str, name: str) -> bool:
    """Whether a pair is tried whenever tests run; the others are slow: `pytest -m slow tests/contract`."""
    method = method_of(variant)
    if method in IN_FULL or joined(variant):
        return True
    if not first(variant):
        return name == "vit"
    return name in ("vit", "hand-many-heads") or (name == "lxmert" and method not in BY_RELEVANCE)


def first(variant: str) -> bool:
    """Whether it is its method's first variant."""
    method = method_of(variant)
    return variant == f"{method}:{next(iter(heedmap.METHODS[method].variants))}"


def once_each(variants: Mapping[str, str]) -> list[Any]:
    """Every method on one model; of most only the first variant whenever tests run."""
    kept = [first(variant) or method_of(variant) in IN_FULL or joined(variant) for variant in variants]
    return [
        pytest.param(*pair, marks=() if keep else pytest.mark.slow)
        for pair, keep in zip(variants.items(), kept, strict=True)
    ]


def marked(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    return [pytest.param(*pair, marks=() if usual(*pair) else pytest.mark.slow) for pair in pairs]


def family(name: str) -> Family:
    return BY_NAME[name]


def fresh(name: str) -> nn.Module:
    """A model of the test's own, to be changed at will."""
    return copy.deepcopy(model_of(name, torch.float32))


def shared(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model that all tests share: nobody changes it."""
    return model_of(name, dtype)


def inputs_of(name: str, batch: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return lifted(family(name).inputs(batch), dtype)


def target_of(name: str, batch: int, first: int = 0) -> heedmap.targets.Target:
    """One class for each example; `first` is the example that the batch begins with."""
    ask = family(name).ask
    last = None if ask.last is None else list(ask.last[first : first + batch])
    index = list(ask.index[first : first + batch])
    position = ask.position if ask.position is not None else last
    return ask.times * logit(index, query=ask.query, position=position)


def explain(model: nn.Module, name: str, batch: int = 2, **options: Any) -> Explanation:
    inputs = options.pop("inputs", None)
    target = options.pop("target", None)
    inputs = inputs_of(name, batch) if inputs is None else inputs
    return heedmap.explain(model, inputs, target_of(name, batch) if target is None else target, **options)


@cache
def expected(variant: str, name: str) -> Explanation:
    """Of two examples by the model that all tests share."""
    return explain(shared(name), name, **few(variant))


def tensors(e: Explanation) -> dict[str, Tensor]:
    """All the numbers of an explanation."""
    return scores(e) | {f"start of {stream}": e.starts[stream] for stream in e.streams} | {"value": e.value}


def scores(e: Explanation) -> dict[str, Tensor]:
    """What it says of tokens and of pixels; NaN where its method is silent."""
    found = {f"flow of {stream}": e[stream] for stream in e.streams}
    return found if e.pixels is None else found | {"pixels": e.pixels}


def said(tensor: Tensor) -> Tensor:
    """The numbers of a map, with 0 where there is none."""
    assert not tensor.isinf().any()
    return tensor.nan_to_num()


def identical(a: Explanation, b: Explanation) -> bool:
    """Bit for bit; NaN is NaN."""
    mine, other = tensors(a), tensors(b)
    return mine.keys() == other.keys() and all(same(mine[key], other[key]) for key in mine)


def same(a: Tensor, b: Tensor) -> bool:
    return silent_alike(a, b) and torch.equal(said(a), said(b))


def silent_alike(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan())


def off(found: Tensor, true: Tensor) -> float:
    """The largest difference relative to the largest true number; an all-zero map is like another one only."""
    assert found.shape == true.shape, f"{tuple(found.shape)} is not {tuple(true.shape)}"
    assert silent_alike(found, true), "one is silent where the other is not"
    found, true = said(found).double(), said(true).double()
    scale, difference = true.abs().max().item(), (found - true).abs().max().item()
    return difference / scale if scale else math.inf if difference else 0.0


def most_off(a: Explanation, b: Explanation) -> float:
    mine, other = scores(a), scores(b)
    assert mine.keys() == other.keys()
    return max(off(mine[key], other[key]) for key in other)


HOMES = {  # a model that each takes
    variant: next(name for name in ("t5", "detr", "bert", *MODELS) if admits(variant, name)) for variant in VARIANTS
}
TAKEN = [(variant, name) for variant in VARIANTS for name in MODELS if admits(variant, name)]
PAIRS = marked(TAKEN)
REFUSED = [(variant, name) for variant in VARIANTS for name in MODELS if not admits(variant, name)]
REFUSED_ONCE = [
    (variant, name)
    for variant, name in REFUSED
    if first(variant) or method_of(variant) in IN_FULL or variant in TAKES  # variants are refused alike
]
AT_RANDOM = [variant for variant in VARIANTS if method_of(variant) == "random"]  # nobody asks of it what it says
