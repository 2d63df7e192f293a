"""Regions of a picture, as models that read regions take them: from arrays, .npz files, or bottom-up-attention TSV."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError
from heedmap.installs import quiet, transformers
from heedmap.layouts import Regions, Window

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

BOXES = ("boxes", "bbox", "bboxes", "visual_pos", "normalized_boxes")
FEATURES = ("features", "x", "feat", "visual_feats", "visual_embeds", "roi_features")
NAMES = ("names", "labels", "objects")
ZOO = "zoo:lxmert"
SLACK = 1e-5  # by which a share of the picture may be over 1 by rounding
# Columns of bottom-up-attention's files as first published, and as LXMERT's authors write them.
TSV = {
    6: ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),
    10: ("image_id", "image_h", "image_w", "objects", "", "", "", "num_boxes", "boxes", "features"),
}


@dataclass(frozen=True)
class Given:
    """The regions of one picture."""

    boxes: np.ndarray  # (n, 4), left, top, right, bottom as shares of the picture
    features: np.ndarray  # (n, d)
    names: tuple[str, ...]


def read(source: Any, images: Sequence[Image], paths: Sequence[Path | None], model: str) -> tuple[Given, ...]:
    """The regions of each picture: given, in a file, or, for the zoo's lxmert, found by the zoo's detector."""
    if source is None:
        if model != ZOO:
            raise InputError(
                f"{model!r} reads regions of a picture, not its pixels. Give regions=: a mapping with 'boxes' and "
                "'features', an .npz file with the same, or a bottom-up-attention .tsv file."
            )
        return _described(images)
    each = list(source) if isinstance(source, list | tuple) else [source] * len(images)
    if len(each) != len(images):
        raise InputError(f"Regions of {len(each)} pictures were given for {len(images)} pictures. Give one for each.")
    if isinstance(source, Mapping) and len(images) > 1:
        raise InputError(f"Regions of one picture were given for {len(images)}. Give a list with one for each.")
    return tuple(_one(one, image, path) for one, image, path in zip(each, images, paths, strict=True))


def tensors(given: Sequence[Given], config: Any) -> tuple[dict[str, Tensor], tuple[Regions, ...]]:
    """What the model takes of regions, padded to the longest list, and what each region is."""
    import torch

    longest = max(len(one.boxes) for one in given)
    width = getattr(config, "visual_feat_dim", None) or getattr(config, "visual_embedding_dim", None)
    for one in given:
        if width is not None and one.features.shape[1] != width:
            raise InputError(
                f"The features of a region are {one.features.shape[1]} numbers; this model reads {width}. Take them "
                "from the detector that it was trained with."
            )
    features, boxes = (
        torch.stack([_filled(rows, longest) for rows in columns])
        for columns in ([one.features for one in given], [one.boxes for one in given])
    )
    there = torch.stack([_filled(one.boxes[:, 0] * 0 + 1, longest) for one in given])
    layouts = tuple(_layout(one, longest) for one in given)
    if config.model_type == "lxmert":
        return {"visual_feats": features, "visual_pos": boxes, "visual_attention_mask": there}, layouts
    kinds = torch.ones(there.shape, dtype=torch.long)
    return {"visual_embeds": features, "visual_attention_mask": there.long(), "visual_token_type_ids": kinds}, layouts


def _layout(given: Given, longest: int) -> Regions:
    missing = longest - len(given.boxes)
    boxes: list[Window] = [(left, top, right, bottom) for left, top, right, bottom in given.boxes.tolist()]
    special = dict.fromkeys(range(len(boxes), longest), "[PAD]")
    return Regions((*boxes, *[(0.0, 0.0, 0.0, 0.0)] * missing), given.names + ("",) * missing, special)


def _filled(rows: np.ndarray, longest: int) -> Tensor:
    import torch

    tensor = torch.as_tensor(rows, dtype=torch.float32)
    return torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])


def _described(images: Sequence[Image]) -> tuple[Given, ...]:
    from heedmap.zoo.describing import describe, detector

    with quiet(transformers()):
        names = detector()[0].config.id2label
    return tuple(
        Given(found.boxes.cpu().numpy(), found.features.cpu().numpy(), tuple(names[i] for i in found.labels.tolist()))
        for found in describe(images)
    )


def _one(source: Any, image: Image, path: Path | None) -> Given:
    if isinstance(source, Given):
        return source
    if isinstance(source, Mapping):
        return _from_mapping(source, image, "The regions")
    if not isinstance(source, str | Path):
        raise InputError(
            f"regions is a {type(source).__name__}. heedmap expected a mapping with 'boxes' and 'features', or the "
            "path of an .npz or .tsv file."
        )
    file = Path(source)
    if not file.is_file():
        raise InputError(f"There is no file of regions {str(source)!r}. Check the path.")
    if file.suffix == ".tsv":
        return _from_mapping(_row(file, path), image, repr(str(source)))
    if file.suffix == ".npz":
        return _from_mapping(_arrays(file), image, repr(str(source)))
    raise InputError(f"{str(source)!r} ends in {file.suffix!r}. heedmap reads regions from .npz and .tsv files.")


def _arrays(file: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as held:
            return {name: held[name] for name in held.files if held[name].dtype != object}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{str(file)!r} cannot be read as plain arrays ({error}). Save it again with numpy.savez(boxes=, "
            "features=)."
        ) from error


def _row(file: Path, picture: Path | None) -> dict[str, Any]:
    """The row of a TSV file that is about the picture: the only one, or the one whose id its name ends in."""
    wanted = None if picture is None else picture.stem
    only, met = None, 0
    with file.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            cells = line.rstrip("\n").split("\t")
            if len(cells) not in TSV:
                raise InputError(
                    f"{str(file)!r} has a row of {len(cells)} columns. heedmap expected bottom-up-attention's 6, or "
                    "the 10 of LXMERT's authors."
                )
            met, only = met + 1, line if not met else only
            if wanted is not None and _same(cells[0], wanted):
                return decoded(cells, file)
    if met == 1 and only is not None:
        return decoded(only.rstrip("\n").split("\t"), file)
    raise InputError(
        f"{str(file)!r} has {met} rows, and none with the id {wanted!r}. heedmap looks for the picture's name without "
        "its ending: name the picture by its id, or give its row alone."
    )


def _same(cell: str, stem: str) -> bool:
    """Whether an id is a picture's: its whole name, or COCO's number at the end of it."""
    number = stem.rpartition("_")[2]
    return cell == stem or (cell.isdigit() and number.isdigit() and int(cell) == int(number))


def decoded(cells: Sequence[str], file: Path) -> dict[str, Any]:
    """A row of a TSV file as arrays."""
    import numpy as np

    row = dict(zip(TSV[len(cells)], cells, strict=True))
    try:
        count = int(row["num_boxes"])
        boxes, features = (
            np.frombuffer(base64.b64decode(row[name]), np.float32).reshape(count, -1).copy()
            for name in ("boxes", "features")
        )
        size = {"image_w": float(row["image_w"]), "image_h": float(row["image_h"])}
    except ValueError as error:
        raise InputError(
            f"{str(file)!r} has a damaged row for {row['image_id']!r} ({error}). Fetch it again."
        ) from error
    return {"boxes": boxes, "features": features, **size}


def _from_mapping(held: Mapping[str, Any], image: Image, what: str) -> Given:
    import numpy as np

    found = {}
    for name, choices in (("boxes", BOXES), ("features", FEATURES)):
        key = next((choice for choice in choices if choice in held), None)
        if key is None:
            raise InputError(f"{what} hold {', '.join(map(str, held))}. heedmap expected 'boxes' and 'features'.")
        value = held[key]
        found[name] = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float32)
    boxes, features = found["boxes"], found["features"]
    if boxes.ndim != 2 or boxes.shape[1] < 4 or features.ndim != 2 or len(boxes) != len(features) or not len(boxes):
        raise InputError(
            f"{what} have boxes {boxes.shape} and features {features.shape}. heedmap expected (n, 4) and (n, d), n at "
            "least 1."
        )
    if not np.isfinite(boxes).all() or not np.isfinite(features).all():
        raise InputError(f"{what} hold numbers that are not finite. heedmap expected ordinary ones.")
    names = next((held[choice] for choice in NAMES if choice in held), None)
    names = tuple(str(name) for name in names) if names is not None and len(names) == len(boxes) else ("",) * len(boxes)
    return Given(_shares(boxes[:, :4], held, image), features, names)


def _shares(boxes: np.ndarray, held: Mapping[str, Any], image: Image) -> np.ndarray:
    """Boxes in pixels of the picture, or of the size that is told beside them, as shares; shares as they are."""
    import numpy as np

    if "image_w" in held and "image_h" in held:
        size = float(held["image_w"]), float(held["image_h"])
    elif boxes.max() <= 1.0 + SLACK:
        size = 1.0, 1.0
    else:
        size = float(image.width), float(image.height)
    return np.clip(boxes / np.array([*size, *size], dtype=np.float32), 0, 1)
