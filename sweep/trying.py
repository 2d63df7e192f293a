"""One class from start to end: built, run, explained, and held against the oracle."""

from __future__ import annotations

import contextlib
import inspect
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .asking import Ask, asked
from .comparing import apart, in_order
from .configuring import HEADS, PAIRS, tiny
from .declaring import BEGINNINGS, added, declared
from .feeding import Inputs, feeds, spliced
from .finding import Found, config_class, model_class
from .oracle import NotComparedError, Told, truth

TOLERANCE = 1e-5  # of the largest entry; attention in eager form weighs in float32 here and there
SINGLE_TOLERANCE = 1e-3  # where the model runs in float32 alone
LARGEST = 30_000_000  # parameters: what is larger is not tiny
SPREAD = 0.15
LEAST = 1e-3  # spread of a convolution: SAM's own is 1e-10, and its gradient would be rounding


@dataclass(frozen=True)
class Tried:
    """What became of a class. `status` is a key of report.STATUSES."""

    name: str
    model_type: str
    status: str
    why: str = ""
    error: str = ""  # the class of the exception
    then: str = ""  # what was met where tokens were followed
    declared: str = ""  # what a refused class is explained with
    given: str = ""  # the inputs
    senses: bool = False  # it takes pictures or sounds
    single: bool = False  # it runs in float32 alone
    asked: str = ""
    calls: int = 0
    streams: int = 0
    difference: float | None = None
    short: float | None = None  # the difference to the oracle without its first call
    seconds: float = 0.0


class NotBuiltError(Exception):
    """No tiny configuration, or no input, was found that the class runs on."""


@dataclass(frozen=True)
class Built:
    """A model that runs, with its input and what is asked of it."""

    model: nn.Module
    inputs: Inputs
    ask: Ask
    dtype: torch.dtype


def attempt(found: Found) -> Tried:
    """Never raises: what happens is the result."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: dict[str, Any]
        try:
            result = tried(found)
        except NotBuiltError as error:
            result = {"status": "not built", "why": str(error)}
    return Tried(found.name, _type(found), **result, seconds=round(time.perf_counter() - began, 2))


def _type(found: Found) -> str:
    """Several types may share a class; the one that the class itself names is meant."""
    with contextlib.suppress(Exception):
        return config_class(found).model_type or found.model_type
    return found.model_type


def tried(found: Found) -> dict[str, Any]:
    import heedmap
    from heedmap.errors import HeedmapError, NoAttentionError

    built = build(found)
    told = {"given": ", ".join(built.inputs), "asked": str(built.ask), "senses": senses(built.model)}
    told["single"] = built.dtype == torch.float32
    try:
        wiring = heedmap.wiring(built.model, built.inputs)
        explanation = explained(built)
    except NoAttentionError as error:
        return {"status": "no attention", "why": str(error), **told}
    except HeedmapError as error:
        told |= {"error": type(error).__name__, "why": str(error), "then": str(error.__cause__ or "")}
        return {"status": "refused", "declared": as_declared(built, _type(found), error), **told}
    except Exception as error:
        return {"status": "failed", "error": type(error).__name__, "why": str(error)[:500], **told}
    told |= {"calls": len(wiring.calls), "streams": len(explanation.streams)}
    try:
        eager(built)
        true = truth(built.model, built.inputs, built.ask, placed=bool(explanation.wiring.moved))
        if true.calls != len(wiring.calls):
            raise NotComparedError(f"the oracle sees {true.calls} calls, heedmap {len(wiring.calls)}")
        if not any(bool(each.flowed.any()) for each in true.told):
            raise NotComparedError("nothing flowed")
    except NotComparedError as error:
        return {"status": "not compared", "why": str(error), **told}
    except Exception as error:
        return {
            "status": "not compared",
            "error": type(error).__name__,
            "why": f"the oracle failed: {error}"[:300],
            **told,
        }
    difference, told["short"] = (differing(explanation, each) for each in (true.told, true.short))
    same = "moved" if explanation.wiring.moved else "equal"
    return {"status": same if difference <= bound(built) else "differs", "difference": difference, **told}


def bound(built: Built) -> float:
    return TOLERANCE if built.dtype == torch.float64 else SINGLE_TOLERANCE


def differing(explanation: Any, truths: Sequence[Told]) -> float:
    """The largest difference, where tokens are moved in the order of their places."""
    if explanation.wiring.moved:
        return in_order({name: row.flatten() for name, row in explanation.relevance.items()}, truths)
    named = {
        (call.index, end): str(getattr(call, end)) for call in explanation.wiring.calls for end in ("reading", "read")
    }
    return apart({name: explanation[name][0] for name in explanation.streams}, truths, named)


def as_declared(built: Built, model_type: str, error: Any) -> str:
    """With what a refused class is explained, and whether the oracle that begins there too says the same."""
    begin = BEGINNINGS.get(model_type)
    if begin is None:
        return declared(partial(explained, built), error)[0]
    told, explanation = declared(partial(explained, built), error, begin.wiring(built.model))
    if explanation is None or any(map(added, explanation.streams)):
        return told
    eager(built)
    moved = bool(explanation.wiring.moved)
    try:
        true = truth(built.model, built.inputs, built.ask, moved, begin.place(built.model))
        if true.calls != len(explanation.wiring.calls):
            return told
    except Exception:  # the oracle has no map to hold it against
        return told
    return f"{told}, {'' if differing(explanation, true.told) <= bound(built) else '**not** '}equal to the oracle"


def explained(built: Built, **declared: Any) -> Any:
    import heedmap

    torch.manual_seed(0)  # some models draw numbers
    return heedmap.explain(built.model, built.inputs, built.ask, verify="always", **declared)


def senses(model: nn.Module) -> bool:
    """Whether a model takes pictures or sounds."""
    taken = inspect.signature(model.forward).parameters
    return any(name.startswith(("pixel_values", "input_features", "input_values", "image")) for name in taken)


# ---- a model that runs


def build(found: Found) -> Built:
    try:
        made, taken = model_class(found), config_class(found)
    except Exception as error:
        raise NotBuiltError(f"import: {error}") from error
    problem = ""
    for pairs in (PAIRS, HEADS):
        try:
            model = instance(made, taken, _keys(pairs))
        except NotBuiltError:
            raise
        except Exception as error:
            problem = problem or f"{type(error).__name__}: {error}"
            continue
        try:
            return running(model, found.name)
        except NotBuiltError as error:
            problem = problem or str(error)
    raise NotBuiltError(problem)


def _keys(pairs: int) -> dict[str, int]:
    return {} if pairs == PAIRS else {"num_key_value_heads": pairs}


def instance(made: Any, taken: Any, overrides: dict[str, Any]) -> nn.Module:
    config = tiny(taken, overrides)
    torch.manual_seed(11)
    model = made(config).eval()
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        raise NotBuiltError("not tiny: more than 30 million parameters")
    settle(model)
    for part in (config, *vars(config).values()):
        if hasattr(part, "use_cache"):
            part.use_cache = False  # a cache of state spaces is another kind of thing
    return model


def settle(model: nn.Module) -> None:
    """Weights large enough for attention to matter: matrices anew, biases and norms off their neutral values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or "backbone" in name:
                continue
            parameter.requires_grad_()
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if parameter.ndim == 2 or (parameter.ndim > 2 and float(parameter.std()) < LEAST):
                parameter.copy_(SPREAD * noise)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * noise)


def running(model: nn.Module, name: str) -> Built:
    """The first inputs that the model runs on, in float64 if it can."""
    problem = ""
    for inputs in feeds(model, name):
        for dtype in (torch.float64, torch.float32):
            given: Inputs | None = inputs
            for _ in range(3):
                if given is None:
                    break
                given = cast(given, dtype)
                try:
                    output = model.to(dtype)(**given)
                except Exception as error:
                    problem = problem or f"{type(error).__name__}: {error}"
                    given = spliced(given, model.config, str(error))
                    continue
                ask = asked(output)
                if ask is None:
                    problem = problem or "no number of the output has a gradient"
                    break
                return Built(model, given, ask, dtype)
    raise NotBuiltError(problem or "takes none of the inputs that are known here")


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def eager(built: Built) -> None:
    """The model's own attention written out, where it has that form and answers the same."""
    model: Any = built.model
    configs: dict[int, Any] = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    usual = {key: getattr(config, "_attn_implementation", None) for key, config in configs.items()}
    same = False
    with contextlib.suppress(Exception), torch.no_grad():
        before = seeded(built)
        model.set_attn_implementation("eager")
        same = torch.allclose(seeded(built), before, rtol=1e-4)
    if not same:
        for key, config in configs.items():  # the whole sets its parts, which may have had another
            with contextlib.suppress(Exception):
                config._attn_implementation = usual[key]


def seeded(built: Built) -> Tensor:
    torch.manual_seed(0)
    return built.ask(built.model(**built.inputs))
