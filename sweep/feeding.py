"""Inputs for a model of any kind, by the names its forward takes; several tries, and the first that runs is used."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .configuring import SIDE, SPLICED, WIDTH, WORDS

Inputs = dict[str, Any]
TEXT, ANSWER = 11, 5  # words; no other stream has as many tokens
SOUND, FRAMES, MELS = 4000, 32, 80
GRID = 4  # patches along a side, where patches are given one by one


def feeds(model: nn.Module, name: str) -> Iterator[Inputs]:
    """What to try, the likeliest first. The sizes are those of one example."""
    taken = inspect.signature(model.forward).parameters
    needed = [key for key, each in taken.items() if each.default is inspect.Parameter.empty and each.kind < 2]
    config = model.config
    words = _words(config, name) if "input_ids" in taken else {}
    words |= {key: value for key, value in _beside(config, name).items() if key in taken}
    if "decoder_input_ids" in taken:
        whole = name.endswith("SequenceClassification")  # the last of its own words stands for the answer
        words["decoder_input_ids"] = _turned(words["input_ids"]) if whole and words else _ids(ANSWER, seed=3)
    seen = [_pictures(config, taken), _videos(config, taken), _sounds(config, taken), _series(config, taken, needed)]
    if "grid_thw" in needed:
        seen.insert(0, _patches(config, needed[0], "grid_thw"))
    for tries in seen:
        for each in tries:
            yield {**words, **each}
    if words:
        yield words


def spliced(inputs: Inputs, config: Any, error: str) -> Inputs | None:
    """The same with as many words standing for the picture or the sound as the model says that it has."""
    found = re.search(r"tokens\D*(\d+)\D+features\D*(\d+)", error)
    if not found or "input_ids" not in inputs:
        return None
    kind = "audio" if "input_features" in inputs else "video" if "pixel_values_videos" in inputs else "image"
    fitting = sorted(SPLICED, key=lambda name: not name.startswith(kind))
    word = next((getattr(config, name) for name in fitting if getattr(config, name, None) is not None), None)
    count = int(found[2])
    count = count // WIDTH if count > 400 else count  # some tell how many numbers
    if word is None or not 0 < count <= 400:
        return None
    plain = _ids(TEXT)
    middle = torch.full((1, count), word)
    ids = torch.cat([plain[:, :3], middle, plain[:, 3:]], 1)
    again = {**inputs, "input_ids": ids}
    if "mm_token_type_ids" in inputs:
        again["mm_token_type_ids"] = (ids == word).long()
    return again


def _ids(count: int, seed: int = 2) -> Tensor:
    return torch.randint(5, 60, (1, count), generator=torch.Generator().manual_seed(seed))


def _turned(ids: Tensor) -> Tensor:
    """The same words in another order, but for the last."""
    return torch.cat([ids[..., :-1].flip(-1), ids[..., -1:]], -1)


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _words(config: Any, name: str) -> Inputs:
    ids = _ids(TEXT)
    ends = getattr(config, "eos_token_id", None)
    if isinstance(ends, int) and ends < WORDS and name.endswith("SequenceClassification"):
        ids[:, -1] = ends
    if name.endswith("MultipleChoice"):
        ids = ids[:, None]  # of several choices each is asked by itself
    return {"input_ids": ids}


def _beside(config: Any, name: str) -> Inputs:
    """What some families take beside their words."""
    corner = torch.randint(0, 20, (1, TEXT, 2), generator=torch.Generator().manual_seed(4))
    features, places = getattr(config, "visual_feat_dim", 32), getattr(config, "visual_pos_dim", 4)
    given: Inputs = {
        "bbox": torch.cat([corner, corner + 9], -1),
        "image": _numbers(1, 3, 224, 224),
        "visual_feats": _numbers(1, 7, features),
        "visual_pos": _numbers(1, 7, places).sigmoid(),
        "visual_embeds": _numbers(1, 7, getattr(config, "visual_embedding_dim", 64)),
        "qformer_input_ids": _ids(TEXT - 2, seed=6),
        "input_shape_ids": _ids(TEXT),
        "input_pronunciation_ids": _ids(TEXT),
        "task_inputs": _ids(getattr(config, "task_seq_len", TEXT)),
    }
    if "bros" in type(config).__name__.lower():
        given["bbox"] = given["bbox"] / 30
    return given


def _part(config: Any, *names: str) -> Any:
    """The part of a configuration that speaks of pictures or of sound, or the whole."""
    for name in names:
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return config


def _pictures(config: Any, taken: Any) -> list[Inputs]:
    if "pixel_values" not in taken and "flattened_patches" not in taken:
        return []
    seen = _part(config, "vision_config", "image_model_config", "backbone_config", "encoder")
    if "flattened_patches" in taken:
        size = getattr(seen, "patch_embed_hidden_size", 768)
        places = torch.stack([1 + torch.arange(16) // 4, 1 + torch.arange(16) % 4], -1)[None]
        return [{"flattened_patches": torch.cat([places, _numbers(1, 16, size)], -1)}]
    channels = getattr(seen, "num_channels", None) or getattr(seen, "in_channels", 3)
    channels = channels if isinstance(channels, int) else 3
    side = getattr(seen, "image_size", None) or SIDE
    high, wide = side if isinstance(side, (list, tuple)) else (side, side)
    frames = getattr(config, "num_frames", None) or 4
    tries: list[Inputs] = []
    if "spatial_shapes" in taken:
        side = getattr(seen, "patch_size", 16)
        given = {"pixel_values": _numbers(1, GRID * GRID, channels * side**2)}
        given |= {"pixel_attention_mask": torch.ones(1, GRID * GRID, dtype=torch.long)}
        tries.append({**given, "spatial_shapes": torch.tensor([[GRID, GRID]])})
    if "image_grid_thw" in taken:
        tries += _patches(seen, "pixel_values", "image_grid_thw")
        if "mm_token_type_ids" in taken:
            tries = [{**each, "mm_token_type_ids": torch.zeros(1, TEXT, dtype=torch.long)} for each in tries]
    plain, film, tile, tiles = (
        {"pixel_values": _numbers(*shape, channels, high, wide)} for shape in ((1,), (1, frames), (1, 1), (1, 2))
    )
    several = [film, plain] if getattr(config, "num_frames", None) else [plain, tile, tiles, film]
    if "image_sizes" in taken:
        sizes = {"image_sizes": torch.tensor([[high, wide]])}
        several = [{**each, **sizes} for each in (tiles, plain)] + several
    tries += several
    if high != SIDE:
        tries.append({"pixel_values": _numbers(1, channels, SIDE, SIDE)})
    tries += [{"pixel_values": _numbers(1, channels, 2 * SIDE, 2 * SIDE)}]
    return tries


def _patches(config: Any, name: str, grid: str) -> list[Inputs]:
    """Patches given one by one, with the shape of the picture that they make."""
    side, deep = getattr(config, "patch_size", 16), getattr(config, "temporal_patch_size", 1) or 1
    channels = getattr(config, "in_channels", None) or getattr(config, "num_channels", None) or 3
    return [
        {name: _numbers(GRID * GRID, channels * times * side**2), grid: torch.tensor([[1, GRID, GRID]])}
        for times in dict.fromkeys((deep, 1))
    ]


def _videos(config: Any, taken: Any) -> list[Inputs]:
    if "pixel_values_videos" not in taken or "pixel_values" in taken:
        return []
    seen = _part(config, "vision_config", "video_config")
    side = getattr(seen, "image_size", None) or getattr(seen, "crop_size", None) or SIDE
    frames = getattr(seen, "frames_per_clip", None) or getattr(seen, "num_frames", None) or 4
    return [{"pixel_values_videos": _numbers(1, min(frames, 16), 3, side, side)}]


def _sounds(config: Any, taken: Any) -> list[Inputs]:
    tries: list[Inputs] = []
    heard = _part(config, "audio_config", "encoder_config", "encoder", "speech_encoder")
    if "input_values" in taken:
        mels = getattr(heard, "num_mel_bins", MELS)
        frames = getattr(heard, "max_length", FRAMES)
        raw = {"input_values": _numbers(1, SOUND)}
        long = {"input_values": _numbers(1, 3 * SOUND)}
        laid = {"input_values": _numbers(1, frames if isinstance(frames, int) and frames < 200 else FRAMES, mels)}
        tries += [raw, {"input_values": _numbers(1, 1, SOUND)}, laid, long] if "pixel_values" not in taken else [laid]
    if "input_features" in taken:
        names = (
            "feature_projection_input_dim",
            "num_mel_bins",
            "feature_size",
            "input_feat_per_channel",
            "input_dim",
            "n_mels",
            "input_size",
        )
        mels = next((value for each in names if isinstance(value := getattr(heard, each, None), int)), MELS)
        frames = 2 * (getattr(heard, "max_source_positions", None) or FRAMES)
        frames = frames if frames <= 256 else 2 * FRAMES
        mask = (
            {"input_features_mask": torch.ones(1, frames, dtype=torch.long)} if "input_features_mask" in taken else {}
        )
        tries += [
            {"input_features": _numbers(1, mels, frames), **mask},
            {"input_features": _numbers(1, frames, mels), **mask},
            {"input_features": _numbers(1, mels, frames)},
            {"input_features": _numbers(1, frames, mels)},
        ]
    if "audio_values" in taken and "pixel_values" in taken:
        tries += []
    return tries


def _series(config: Any, taken: Any, needed: list[str]) -> list[Inputs]:
    tries: list[Inputs] = []
    if "past_values" in taken:
        context = getattr(config, "context_length", None) or FRAMES
        lags = max(getattr(config, "lags_sequence", None) or [0])
        channels = getattr(config, "num_input_channels", None) or getattr(config, "input_size", 1)
        times = getattr(config, "num_time_features", 0)
        ahead = getattr(config, "prediction_length", None) or 4
        past = _numbers(1, context + lags, channels) if channels > 1 or "num_input_channels" in vars(config) else None
        given: Inputs = {"past_values": _numbers(1, context + lags) if past is None else past}
        if "past_observed_mask" in needed:
            given["past_observed_mask"] = torch.ones_like(given["past_values"])
        if "past_time_features" in needed:
            given["past_time_features"] = _numbers(1, context + lags, times)
        if "future_values" in taken:
            given |= {"future_values": _numbers(1, ahead), "future_time_features": _numbers(1, ahead, times)}
        tries.append({key: value for key, value in given.items() if key in taken})
    if "inputs" in taken:
        tries += [{"inputs": each} for each in (_numbers(1, 3, SIDE, SIDE), _numbers(1, TEXT, 64), _ids(TEXT))]
    if "states" in taken:
        size, acts = getattr(config, "state_dim", 17), getattr(config, "act_dim", 4)
        tries.append(
            {
                "states": _numbers(1, 4, size),
                "actions": _numbers(1, 4, acts),
                "rewards": _numbers(1, 4, 1),
                "returns_to_go": _numbers(1, 4, 1),
                "timesteps": torch.arange(4)[None],
                "attention_mask": torch.ones(1, 4),
            }
        )
    return tries
