"""Explanations as files: one safetensors file with its metadata, versioned, never pickle; or what is drawn of them."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from heedmap.errors import FileFormatError, InputError
from heedmap.layouts import Frames, Grid, Joined, Layout, Plain, Regions, Shown, Tiles, Words
from heedmap.records import Call, Explanation, Moved, State, Wiring

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "heedmap explanation"
VERSION = 4  # 1 did not know what the tokens are, 2 had no pixels, 3 no tiles and no moved tokens
PARTS = (Grid, Words, Regions, Frames, Plain)
BESIDE = ".heedmap-"  # how a file is called while it is written


def save(explanation: Explanation, path: str | Path, **options: Any) -> None:
    """Write a file: `.heed` keeps everything, `.png`, `.svg` and `.html` draw, with the options of `heedmap.render`."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".heed":
        if options:
            raise InputError(f"A .heed file takes no options; {', '.join(options)} was given. Options are for drawing.")
        return write(path, packed(explanation))
    from heedmap.render import SUFFIXES, drawn

    if suffix not in SUFFIXES:
        raise InputError(
            f"{path.name!r} ends in {path.suffix or 'nothing'!r}. heedmap expected a name ending in '.heed', which "
            f"opens again, or in {', '.join(map(repr, SUFFIXES))}, which are drawn."
        )
    return write(path, drawn(explanation, suffix, **options))


def write(path: Path, data: bytes) -> None:
    """A whole file or none: written beside, then renamed, so that what was there is lost only to what is complete."""
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {str(path.parent)!r} to write {path.name!r} in. Make it first.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder. heedmap expected the name of a file.")
    beside = path.with_name(f"{BESIDE}{uuid4().hex}{path.suffix}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def packed(explanation: Explanation) -> bytes:
    """A `.heed` file."""
    from safetensors.torch import save as to_bytes

    streams = explanation.streams
    tensors = {"value": explanation.value}
    tensors |= {f"relevance.{i}": explanation.relevance[name] for i, name in enumerate(streams)}
    tensors |= {f"start.{i}": explanation.starts[name] for i, name in enumerate(streams)}
    if explanation.pixels is not None:
        tensors["pixels"] = explanation.pixels
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
        "moved": {stream: _from_moved(moved) for stream, moved in explanation.wiring.moved.items()},
    }
    if explanation.shown:
        header["shown"], pictures = _from_shown(explanation.shown)
        tensors |= pictures
    return to_bytes(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
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
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
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
        wiring=Wiring(
            tuple(_to_call(call) for call in header["calls"]),
            header["tokens"],
            moved={stream: _to_moved(fields) for stream, fields in header.get("moved", {}).items()},
        ),
        readout=tuple(header["readout"]),
        predicted=None if predicted is None else tuple(predicted),
        metadata=header["metadata"],
        shown=tuple(_to_shown(fields, tensors) for fields in header.get("shown", ())),
        pixels=tensors.get("pixels"),
    )


def _from_call(call: Call) -> dict[str, Any]:
    fields = {name: getattr(call, name) for name in ("index", "module", "seam", "queries", "keys", "heads", "kind")}
    for end in ("reading", "read"):
        state: State = getattr(call, end)
        fields[end] = [state.stream, state.after]
    return fields


def _to_call(fields: dict[str, Any]) -> Call:
    return Call(**{**fields, "reading": State(*fields["reading"]), "read": State(*fields["read"])})


def _from_moved(moved: Moved) -> dict[str, Any]:
    return {"call": moved.call, "end": moved.end, "sources": [[state.stream, state.after] for state in moved.sources]}


def _to_moved(fields: dict[str, Any]) -> Moved:
    return Moved(fields["call"], fields["end"], tuple(State(*source) for source in fields["sources"]))


# ---- what the tokens are


def _from_shown(shown: tuple[Shown, ...]) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Pictures become PNG files in tensors of bytes, each of them once."""
    pictures: dict[bytes, str] = {}
    header = []
    for one in shown:
        name = None
        if one.picture is not None:
            name = pictures.setdefault(_png(one.picture), f"picture.{len(pictures)}")
        header.append(
            {
                "layouts": {stream: _from_layout(layout) for stream, layout in one.layouts.items()},
                "picture": name,
                "text": one.text,
                "box": one.box,
                "answer": one.answer,
                "sure": one.sure,
            }
        )
    return header, {name: _bytes(data) for data, name in pictures.items()}


def _to_shown(header: dict[str, Any], tensors: dict[str, Any]) -> Shown:
    picture, box = header["picture"], header["box"]
    return Shown(
        layouts={stream: _to_layout(layout) for stream, layout in header["layouts"].items()},
        picture=None if picture is None else _pixels(tensors[picture]),
        text=header["text"],
        box=None if box is None else _tuples(box),
        answer=header["answer"],
        sure=header.get("sure"),
    )


def _from_layout(layout: Layout) -> dict[str, Any]:
    if isinstance(layout, Joined):
        return {"kind": "Joined", "parts": [(name, tokens, _from_layout(part)) for name, tokens, part in layout.parts]}
    told = {field.name: getattr(layout, field.name) for field in fields(layout)}
    if isinstance(layout, Tiles):
        told["grids"] = [_from_layout(grid) for grid in layout.grids]
    return {**told, "kind": type(layout).__name__, "special": list(layout.special.items())}  # json has no whole keys


def _to_layout(header: dict[str, Any]) -> Layout:
    if header["kind"] == "Joined":
        return Joined(tuple((name, tokens, _to_part(part)) for name, tokens, part in header["parts"]))
    if header["kind"] == "Tiles":
        told = {name: _tuples(header[name]) for name in ("order", "frames")}
        grids: Any = tuple(map(_to_part, header["grids"]))
        return Tiles(grids, **told, special=dict(header["special"]))
    return _to_part(header)


def _to_part(header: dict[str, Any]) -> Grid | Words | Regions | Frames | Plain:
    kinds = {kind.__name__: kind for kind in PARTS}
    told = {name: _tuples(value) for name, value in header.items() if name not in ("kind", "special")}
    return kinds[header["kind"]](**told, special=dict(header["special"]))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _png(picture: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _pixels(data: Tensor) -> Any:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data.numpy().tobytes()), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _bytes(data: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
