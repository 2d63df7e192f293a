"""One run of a family, by the oracle or by the model itself. Some models draw random numbers: each run is seeded."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from builders import BY_NAME, Family
from dense import Record, Rows, record, walk
from torch import Tensor, nn


def lifted(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}


@cache
def model_of(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    return BY_NAME[name].model().to(dtype)


@cache
def eager_model_of(name: str) -> nn.Module:
    """Float32, on explicit softmax and matmul."""
    model = BY_NAME[name].model()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    return model


@cache
def dense_run(name: str, batch: int) -> Record:
    """The oracle's: float64, every call replaced by its dense definition."""
    family = BY_NAME[name]
    model = model_of(name)
    torch.manual_seed(0)
    return record(model, family.inputs(batch), family.ask)


@cache
def eager_run(name: str, batch: int) -> Record:
    """The model's own: float32, its own softmax and matmul."""
    family = BY_NAME[name]
    model = eager_model_of(name)
    more = {"output_attentions": True} if family.returned else {}
    torch.manual_seed(0)
    return record(model, family.inputs(batch) | more, family.ask, torch.float32, eager=True)


def truth(family: Family, run: Record, correction: str = "complete", **options) -> dict[str, Rows]:
    return walk(run, family.steps, family.tokens, family.ends, correction, **options)


def distance(measured: np.ndarray, true: np.ndarray) -> float:
    """The largest difference, relative to the largest true number of the same example."""
    assert measured.shape == true.shape, f"{measured.shape} is not {true.shape}"
    assert np.isfinite(measured).all(), "not finite"
    scale = np.abs(true).max(axis=-1)
    error = np.abs(measured - true).max(axis=-1)
    return float(np.where(scale > 0, error / np.where(scale > 0, scale, 1), error).max())
