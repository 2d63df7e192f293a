"""A model by its name: of the zoo, in a local folder, or on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from heedmap.errors import HeedmapError, InputError, ModelError
from heedmap.families.answerer import Answerer
from heedmap.families.model import Model
from heedmap.families.processors import Processors, for_both
from heedmap.families.tasks import DECODERS, TASKS, task_of
from heedmap.installs import quiet, transformers
from heedmap.sources import meant, place

FETCHING = ("safetensors", "huggingface_hub", "httpx")  # whose errors tell of files, not of mistakes here
PATIENCE = 5.0  # seconds until the hub counts as out of reach
Thing = TypeVar("Thing")


def load(
    source: str | Path, task: str | None = None, device: Any = None, dtype: str | torch.dtype | None = None
) -> Model:
    """A model with what it takes to feed it: `zoo:vit`, a folder that `save_pretrained` wrote, or a name on the hub.

    A name may end in `@revision`. `device=None` is the accelerator where there is one; `dtype=None` is float32.
    """
    where, options = place(str(source))
    hf = transformers()
    with quiet(hf):
        try:
            if options is None:
                return _loaded(hf, where, {"local_files_only": True}, str(source), task, device, dtype)
            return _from_hub(hf, where, options, str(source), task, device, dtype)
        except _Missing as error:
            raise ModelError(str(error)) from error.__cause__


def _from_hub(hf: Any, name: str, options: dict[str, Any], source: str, *rest: Any) -> Model:
    """From the local cache where all of it is there, so that no network is needed; else from the hub."""
    try:
        return _loaded(hf, name, options | {"local_files_only": True}, source, *rest)
    except _Missing:
        _check_reachable(name, options.get("revision"), source)
    return _loaded(hf, name, options, source, *rest)


def _check_reachable(name: str, revision: str | None, source: str) -> None:
    """One question to the hub that takes seconds at most, so that what is wrong can be said at once."""
    from huggingface_hub import HfApi, errors

    try:
        HfApi().model_info(name, revision=revision, timeout=PATIENCE)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{source!r} is there, but its makers ask who you are. Accept their terms on its page, then run "
            "`hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{name!r} has no revision {revision!r}. Look at its page on the hub, or leave it out."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"There is no model {source!r}: no such folder here, and no such name on the hub (or it is private: run "
            f"`hf auth login`). {meant(source)}Check the spelling; names of the hub look like "
            "google/vit-base-patch16-224."
        ) from error
    except Exception as error:  # whatever the network says
        raise ModelError(
            f"{source!r} is not on this machine, and the hub cannot be reached ({type(error).__name__}). "
            f"{meant(source)}Go online once to fetch it, name a local folder, or take a model of the zoo, such as "
            "zoo:vit."
        ) from error


class _Missing(ModelError):
    """Files of a model are not there."""


def _loaded(
    hf: Any, place: str, options: dict[str, Any], source: str, task: str | None, device: Any, dtype: Any
) -> Model:
    options = options | {"trust_remote_code": False}
    config = _got(lambda: hf.AutoConfig.from_pretrained(place, **options), source)
    task = task_of(config, task, source)
    module = _module(hf, config, place, options, source, task, _dtype(dtype))
    processors = _processors(hf, config, place, options, source, task)
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(
            f"No device is called {str(device)!r}. heedmap expected one such as cpu, cuda or mps."
        ) from error
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The model cannot be moved to {str(device)!r}: {_first_line(error)}") from error
    return Model(module.eval(), task, source, processors)


def _module(hf: Any, config: Any, place: str, options: dict[str, Any], source: str, task: str, dtype: Any) -> nn.Module:
    """Of the class that its config names, or of the one for the task asked for; refused where weights are missing."""
    named = (getattr(config, "architectures", None) or [""])[0]
    made_for = hf.__dict__.get(TASKS[task].auto) or getattr(hf, TASKS[task].auto)
    try:
        fits = task_of(config, None, source) == task
    except ModelError:
        fits = False
    kind = getattr(hf, named, None) if fits else made_for
    if kind is None:
        raise ModelError(
            f"{source!r} is a {named}, a class that transformers {hf.__version__} does not have. Upgrade "
            "transformers, or load it yourself and call heedmap.explain(module, inputs, ...)."
        )
    try:
        module, info = _got(
            lambda: kind.from_pretrained(place, config=config, dtype=dtype, output_loading_info=True, **options), source
        )
    except _Missing as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ModelError(
            f"{source!r} is a {named or config.model_type}, and transformers has no model of that kind for {task}. "
            "Leave task= out, or name a model trained for it."
        ) from error
    if absent := sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]):
        raise ModelError(
            f"{source!r} has no trained weights for {', '.join(absent[:3])}{' ...' * (len(absent) > 3)}: they would be "
            f"random, and so would the answer. heedmap expected a model trained for {task}; name one, or another task=."
        )
    return Answerer(module) if task == "image-text-to-text" else module


def _processors(hf: Any, config: Any, place: str, options: dict[str, Any], source: str, task: str) -> Processors:
    takes = TASKS[task].takes
    if task == "image-text-generation":
        both: Any = _got(lambda: for_both(hf, config, place, options), source)
        return Processors(image=both.image_processor, text=both.tokenizer, both=both)
    image = "image" in takes and config.model_type not in ("lxmert", "visual_bert")  # these read regions
    words = "text" in takes or task in DECODERS
    return Processors(
        image=_got(lambda: hf.AutoImageProcessor.from_pretrained(place, **options), source) if image else None,
        text=_got(lambda: hf.AutoTokenizer.from_pretrained(place, **options), source) if words else None,
        sound=_got(lambda: hf.AutoFeatureExtractor.from_pretrained(place, **options), source)
        if "sound" in takes
        else None,
    )


def _got(get: Callable[[], Thing], source: str) -> Thing:
    """What transformers gives, or what is missing in one line."""
    try:
        return get()
    except HeedmapError:
        raise
    except ImportError as error:
        if "timm" in str(error):
            raise ModelError(
                f"{source!r} needs the package timm: `pip install timm` (in an environment whose torchvision fits its "
                f"torch), or name a revision that does without, such as facebook/detr-resnet-50@no_timm."
            ) from error
        if lacking := re.search(r"requires the (\w+) library|ackage `(\w+)` is required", str(error)):
            package = (lacking[1] or lacking[2]).lower()
            raise ModelError(f"{source!r} needs the package {package}: `pip install {package}`.") from error
        raise ModelError(f"{source!r} needs a package that is not there: {_first_line(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{source!r} brings code of its own, which heedmap does not run. If you trust it, load it yourself "
                "with trust_remote_code=True and call heedmap.explain(module, inputs, ...)."
            ) from error
        raise _Missing(
            f"{source!r} cannot be loaded: {_first_line(error)} heedmap expected config, weights and processor, as "
            "save_pretrained writes them."
        ) from error
    except Exception as error:
        if not type(error).__module__.startswith(FETCHING):
            raise
        raise _Missing(f"{source!r} cannot be loaded: its weights are damaged ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype is {dtype!r}. heedmap expected a floating one, such as 'float32' or 'bfloat16'.")
    return found
