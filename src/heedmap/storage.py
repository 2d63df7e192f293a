"""Explanations as files: one safetensors file with its metadata, versioned, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heedmap.errors import FileFormatError, InputError
from heedmap.records import Call, Explanation, State, Wiring

FORMAT = "heedmap explanation"
VERSION = 1


def save(explanation: Explanation, path: str | Path) -> None:
    """Write a `.heed` file."""
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".heed":
        raise InputError(
            f"{path.name!r} ends in {path.suffix or 'nothing'!r}. heedmap expected a name ending in '.heed'."
        )
    streams = explanation.streams
    tensors = {"value": explanation.value}
    tensors |= {f"relevance.{i}": explanation.relevance[name] for i, name in enumerate(streams)}
    tensors |= {f"start.{i}": explanation.starts[name] for i, name in enumerate(streams)}
    header = {
        "method": explanation.method,
        "correction": explanation.correction,
        "target": explanation.target,
        "streams": list(streams),
        "readout": list(explanation.readout),
        "predicted": None if explanation.predicted is None else list(explanation.predicted),
        "metadata": dict(explanation.metadata),
        "tokens": dict(explanation.wiring.tokens),
        "calls": [_from_call(call) for call in explanation.wiring.calls],
    }
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        path,
        metadata={"format": FORMAT, "version": str(VERSION), "explanation": json.dumps(header)},
    )


def load(path: str | Path) -> Explanation:
    """Read a `.heed` file."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"There is no file {str(path)!r}. heedmap expected a .heed file that e.save(...) wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path.name!r} is not a .heed file ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise FileFormatError(f"{path.name!r} is a safetensors file, but not an explanation that heedmap saved.")
    try:
        if int(metadata["version"]) > VERSION:
            raise FileFormatError(
                f"{path.name!r} has format version {metadata['version']}; this heedmap reads up to {VERSION}. "
                "Upgrade heedmap."
            )
        return _explanation(json.loads(metadata["explanation"]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path.name!r} is damaged ({error!r}). Save the explanation again.") from error


def _explanation(header: dict[str, Any], tensors: dict[str, Any]) -> Explanation:
    streams = header["streams"]
    predicted = header["predicted"]
    return Explanation(
        method=header["method"],
        correction=header["correction"],
        target=header["target"],
        value=tensors["value"],
        relevance={name: tensors[f"relevance.{i}"] for i, name in enumerate(streams)},
        starts={name: tensors[f"start.{i}"] for i, name in enumerate(streams)},
        wiring=Wiring(tuple(_to_call(call) for call in header["calls"]), header["tokens"]),
        readout=tuple(header["readout"]),
        predicted=None if predicted is None else tuple(predicted),
        metadata=header["metadata"],
    )


def _from_call(call: Call) -> dict[str, Any]:
    fields = {name: getattr(call, name) for name in ("index", "module", "seam", "queries", "keys", "heads", "kind")}
    for end in ("reading", "read"):
        state: State = getattr(call, end)
        fields[end] = [state.stream, state.after]
    return fields


def _to_call(fields: dict[str, Any]) -> Call:
    return Call(**{**fields, "reading": State(*fields["reading"]), "read": State(*fields["read"])})
