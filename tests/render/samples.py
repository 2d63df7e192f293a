"""Explanations as a model would give them, with numbers that a test can name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from heedmap import Explanation, menagerie
from heedmap.layouts import Frames, Grid, Joined, Layout, Plain, Regions, Shown, Words
from heedmap.records import Wiring

STREAM = "pixel_values"
BOTH = "input_ids+visual_embeds"
SCENE = menagerie.scene(["zebra", "elephant"], seed=7)
PICTURE = np.asarray(SCENE.image)
GREY = np.full((90, 120, 3), 128, np.uint8)
SENTENCE = "[CLS] the act ##ing is dreadful [SEP]".split()


def explanation(
    relevance: dict[str, Tensor], shown: tuple[Shown, ...] = (), target: str = "logit('zebra')", **fields: Any
) -> Explanation:
    examples = len(next(iter(relevance.values())))
    given: dict[str, Any] = {"method": "heed", "correction": "complete", "value": torch.arange(examples) + 1.5}
    return Explanation(
        target=target,
        relevance=relevance,
        starts={stream: torch.zeros_like(flowed) for stream, flowed in relevance.items()},
        wiring=Wiring((), {stream: flowed.shape[1] for stream, flowed in relevance.items()}),
        readout=(),
        shown=shown,
        **{**given, **fields},
    )


def patches(
    values: list[list[float]] | None = None, picture: np.ndarray | None = PICTURE, **fields: Any
) -> Explanation:
    """A grid of patches behind a CLS token that is louder than all of them."""
    rows = [[1.0, 0.0, -0.5], [0.0, 0.25, 0.0]] if values is None else values
    flowed = torch.tensor([[9.0, *(value for row in rows for value in row)]])
    layout = Grid(len(rows), len(rows[0]), 1, fields.pop("window", (0.0, 0.0, 1.0, 1.0)), {0: "[CLS]"})
    more = {name: fields.pop(name, None) for name in ("box", "answer", "sure")}
    shown = Shown({STREAM: layout}, picture=picture, **more)
    return explanation({STREAM: flowed}, (shown,), **fields)


def sentence(**fields: Any) -> Explanation:
    flowed = torch.tensor([[5.0, 0.1, 0.25, 0.25, 0.0, -1.0, 2.0]])
    layout = Words(tuple(SENTENCE), ((1,), (2, 3), (4,), (5,)), {0: "[CLS]", 6: "[SEP]"})
    return explanation({"input_ids": flowed}, (Shown({"input_ids": layout}, text="the acting is dreadful"),), **fields)


def question(**fields: Any) -> Explanation:
    """Words and regions of a picture, as LXMERT has them; the second region covers part of the first."""
    words = Words(("[CLS]", "which", "one", "[SEP]"), ((1,), (2,)), {0: "[CLS]", 3: "[SEP]"})
    boxes = ((0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), (0.4, 0.4, 0.6, 0.6))
    layouts: dict[str, Layout] = {"input_ids": words, "visual_feats": Regions(boxes, ("zebra", "cat", ""))}
    return explanation(
        {"input_ids": torch.tensor([[3.0, 0.5, -1.0, 0.0]]), "visual_feats": torch.tensor([[2.0, -1.0, 0.1]])},
        (Shown(layouts, picture=PICTURE, text="which one"),),
        "logit('yes')",
        **fields,
    )


def joined(**fields: Any) -> Explanation:
    """Words and regions in one stream, as VisualBERT has them; each part counts from its own start."""
    words = Words(("[CLS]", "which", "one", "[SEP]"), ((1,), (2,)), {0: "[CLS]", 3: "[SEP]"})
    boxes = ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75))
    regions = Regions(boxes, ("", "zebra", ""), {0: "[IMG]"})
    layout = Joined((("input_ids", 4, words), ("visual_embeds", 3, regions)))
    flowed = torch.tensor([[9.0, 0.5, -1.0, 8.0, 7.0, 2.0, -0.5]])
    return explanation({BOTH: flowed}, (Shown({BOTH: layout}, picture=PICTURE, text="which one"),), **fields)


def detection(**fields: Any) -> Explanation:
    """Patches, and tokens that the model brings itself."""
    layouts: dict[str, Layout] = {STREAM: Grid(2, 2), "queries": Plain({i: f"object query {i}" for i in range(16)})}
    flows = {STREAM: torch.tensor([[1.0, 0.0, -0.5, 0.25]]), "queries": torch.linspace(-4, 4, 16)[None]}
    return explanation(flows, (Shown(layouts, picture=PICTURE, box=(0.1, 0.1, 0.5, 0.5)),), **fields)


def sound(count: int = 300) -> Explanation:
    flowed = torch.linspace(-1, 0.5, count)[None]
    return explanation({"input_features": flowed}, (Shown({"input_features": Frames(0.02)}),), "logit('yes')")


def bare(examples: int = 1, tokens: int = 70) -> Explanation:
    """Nothing is known but the numbers."""
    return explanation({"hidden": torch.linspace(-1, 2, tokens).repeat(examples, 1)}, target="logit(340)")
