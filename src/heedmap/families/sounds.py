"""Sounds: numbers at the rate a model expects, or a WAV file."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from heedmap.errors import InputError

FRAME = 0.01  # seconds from one column of a spectrogram to the next
WIDTHS = {1: ("u1", 128.0, 128.0), 2: ("<i2", 0.0, 32768.0), 4: ("<i4", 0.0, 2147483648.0)}


def read(source: Any, extractor: Any) -> Any:
    """A sound as one row of numbers from -1 to 1."""
    import numpy as np

    if isinstance(source, str | Path):
        return _opened(Path(source), extractor.sampling_rate)
    numbers = np.asarray(source, dtype=np.float32)
    if numbers.ndim != 1 or not numbers.size:
        raise InputError(
            f"The sound has shape {numbers.shape}. heedmap expected one row of numbers at {extractor.sampling_rate} "
            "in a second: average the channels."
        )
    return numbers


def tensors(extractor: Any, waves: Sequence[Any]) -> dict[str, Tensor]:
    rate, most = extractor.sampling_rate, _most(extractor)
    for one in waves:
        if most is not None and len(one) > most * rate:
            raise InputError(
                f"The sound lasts {len(one) / rate:.1f} seconds; this model hears {most:g}. Cut a piece out."
            )
    padding = "max_length" if most is not None else True
    made = extractor(list(waves), sampling_rate=rate, return_tensors="pt", padding=padding)
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def lengths(extractor: Any, waves: Sequence[Any]) -> tuple[tuple[float, ...], float]:
    """How many seconds each sound has, and how many the model reads."""
    seconds = tuple(len(one) / extractor.sampling_rate for one in waves)
    return seconds, float(_most(extractor) or max(seconds, default=0.0))


def _most(extractor: Any) -> float | None:
    """How many seconds a model hears that takes sounds of one length: longer ones would be cut, shorter are padded."""
    if getattr(extractor, "chunk_length", None):
        return float(extractor.chunk_length)
    frames = getattr(extractor, "max_length", None)
    return frames * FRAME if isinstance(frames, int) else None


def _opened(path: Path, rate: int) -> Any:
    import numpy as np

    if not path.is_file():
        raise InputError(f"There is no sound {str(path)!r}. Check the path.")
    try:
        with wave.open(str(path)) as file:
            met, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise InputError(
            f"{str(path)!r} is not a WAV file of plain numbers ({error}). Convert it to 16-bit WAV."
        ) from error
    if width not in WIDTHS or not data:
        raise InputError(
            f"{str(path)!r} has {8 * width}-bit numbers, or none. heedmap expected 16-bit WAV: convert it."
        )
    if met != rate:
        raise InputError(f"{str(path)!r} has {met} numbers in a second, the model expects {rate}. Resample it.")
    kind, middle, peak = WIDTHS[width]
    numbers = (np.frombuffer(data, kind).astype(np.float32) - middle) / peak
    return numbers.reshape(-1, channels).mean(1)
