"""What the contract is kept on: every variant of every method, and a handful of tiny models."""

from __future__ import annotations

import copy
from typing import Any

import torch
from builders import BY_NAME, Family
from runs import lifted, model_of
from torch import Tensor, nn

import heedmap
from heedmap import Explanation, logit

VARIANTS = [f"{name}:{variant}" for name, method in heedmap.METHODS.items() for variant in method.variants]
MODELS = ["vit", "bert", "t5", "lxmert", "detr", "nn-encoder", "hand-one-head", "hand-many-heads"]
ONE_CROSS_READ_STATE = {"t5", "detr"}  # where the noise link stands without being told
PICTURES_READ = {"odam:memory": {"lxmert", "detr"}, "odam:projection": {"lxmert", "detr"}, "odam:backbone": {"detr"}}
EVERYWHERE = [variant for variant in VARIANTS if variant not in PICTURES_READ and "noise" not in variant]


def admits(variant: str, name: str) -> bool:
    """Whether a variant takes a model. What it does not take it refuses, which is tested."""
    return name in (ONE_CROSS_READ_STATE if "noise" in variant else PICTURES_READ.get(variant, MODELS))


PAIRS = [(variant, name) for variant in VARIANTS for name in MODELS if admits(variant, name)]
REFUSED = [(variant, name) for variant in VARIANTS for name in MODELS if not admits(variant, name)]
HOMES = {variant: "t5" if admits(variant, "t5") else "detr" for variant in VARIANTS}  # a model that each takes
AS_ONE = {"vit": "pixel_values", "hand-one-head": "x"}  # models with one input: how it is called


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


def tensors(e: Explanation) -> dict[str, Tensor]:
    """All the numbers of an explanation."""
    found = {f"flow of {stream}": e[stream] for stream in e.streams}
    found |= {f"start of {stream}": e.starts[stream] for stream in e.streams}
    return found | {"value": e.value}


def identical(a: Explanation, b: Explanation) -> bool:
    """Bit for bit."""
    mine, other = tensors(a), tensors(b)
    return mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)


def off(found: Tensor, true: Tensor) -> float:
    """The largest difference relative to the largest true number."""
    assert found.shape == true.shape, f"{tuple(found.shape)} is not {tuple(true.shape)}"
    assert found.isfinite().all()
    scale = true.abs().max()
    assert scale > 0, "nothing flowed: the comparison would say nothing"
    return ((found.double() - true.double()).abs().max() / scale.double()).item()


def most_off(a: Explanation, b: Explanation) -> float:
    assert a.streams == b.streams
    return max(off(a[stream], b[stream]) for stream in b.streams)
