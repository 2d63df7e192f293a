"""The model writes by itself: always the likeliest token that its generation config admits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from heedmap.errors import InputError, ModelError
from heedmap.families import words
from heedmap.installs import quiet, transformers

# Greedy, and no end forced where the tokens asked for run out.
GREEDY = {"do_sample": False, "num_beams": 1, "forced_eos_token_id": None, "return_dict_in_generate": False}


def continued(module: Any, inputs: Mapping[str, Tensor], stream: str, tokens: int) -> list[int]:
    """The tokens that the model writes after those that are there."""
    hf = transformers()
    # Whisper's own cuts sounds into pieces and its output to size; here is one piece, and every token counts.
    generate: Any = hf.GenerationMixin.generate if "input_features" in inputs else type(module).generate
    with quiet(hf), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        made = generate(module, **inputs, **GREEDY, max_new_tokens=tokens)[0].tolist()
    begun = inputs[stream][0].tolist()
    if made[: len(begun)] != begun or len(made) == len(begun):
        raise ModelError(
            f"The model was to write on after the tokens {begun}, and gave {made}. heedmap expected them and what "
            "comes after: look at its generation config."
        )
    return made[len(begun) :]


def lengthened(module: Any, inputs: Mapping[str, Tensor], tokens: int) -> dict[str, Tensor]:
    """What says something of each token of a text (that it is heard, that it is no picture's), for so many more.

    As the model's own generate has it: a written word may be of another kind than one that was given (PaliGemma).
    """
    known = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    for _ in range(tokens):
        known = module._update_model_kwargs_for_generation({}, known, is_encoder_decoder=False)
    return known


def room(config: Any, begun: int, tokens: int, phrase: str = "") -> int:
    """No more tokens than the model has places for; refused where a phrase needs them all."""
    inner = getattr(config, "text_config", config)
    names = ("max_target_positions", "max_position_embeddings", "n_positions")
    relative = inner.model_type in words.ENDLESS_POSITIONS
    places = None if relative else next((getattr(inner, name) for name in names if getattr(inner, name, None)), None)
    if places is not None and begun >= places:
        raise InputError(f"{begun} tokens are there already, and this model takes {places}. Shorten what was given.")
    if phrase and places is not None and begun + tokens > places:
        left = f"{tokens} tokens, and this model has {places - begun} places left"
        raise InputError(f"against={words.brief(phrase)!r} has {left}. Shorten it.")
    return tokens if places is None else min(tokens, places - begun)


def ends(module: Any, last: int) -> bool:
    end = getattr(module.generation_config, "eos_token_id", None)
    return last in (end if isinstance(end, list | tuple) else [end])
