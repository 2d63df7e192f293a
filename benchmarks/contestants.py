"""Who is measured. A contestant is set up once (model loaded, modules imported) and called repeatedly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor, nn

from .cases import CHOSEN, DETECTORS, Case, build_inputs, build_model

LIMIT, ONE, DETECTIONS = "limit", "heedmap complete", "heedmap ten detections"
TEN = 10
SLOW = ("flow", "tis")
MODELS = ("vit", "lm", *DETECTORS)
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Contestant:
    """`attention=None` is the model's own default; the limit's parameters are frozen, a user's are not."""

    name: str
    call: Callable[[Case, nn.Module, Mapping[str, Tensor]], Tensor]
    attention: str | None = None
    frozen: bool = False
    dense: bool = False  # keeps every weight and every gradient: may not fit
    control: bool = False  # the limit once more, to show the noise; its memory is not measured again
    batches_only: bool = False  # nothing new at batch 1
    slow: bool = False  # hundreds of passes: one round, and not before the clock starts
    kinds: tuple[str, ...] = MODELS  # of the cases that it enters


def limit(case: Case, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """One forward, and one gradient of the target to the float pixels or the embeddings of the words."""
    if case.kind == "command":
        return command(case, model, inputs, words=("-c", BY_HAND))
    if case.kind == "lm":
        name, tensor = "inputs_embeds", model.get_input_embeddings()(inputs["input_ids"])
    else:
        name, tensor = "pixel_values", inputs["pixel_values"]
    tensor = tensor.detach().requires_grad_()
    value = case.value(model(**{name: tensor}).logits)
    return torch.autograd.grad(value.sum(), tensor)[0]


def ours(case: Case, model: nn.Module, inputs: Mapping[str, Tensor], *, correction: str) -> Tensor:
    """heedmap as a user calls it."""
    import heedmap

    target = heedmap.logit(CHOSEN, query=case.row) if case.kind in DETECTORS else heedmap.logit(CHOSEN)
    explanation = heedmap.explain(model, dict(inputs), target, correction=correction)
    return explanation[explanation.streams[0]]


def theirs(case: Case, model: nn.Module, inputs: Mapping[str, Tensor], *, method: str) -> Tensor:
    """A method of the table."""
    import heedmap

    target = heedmap.logit(CHOSEN, query=case.row) if case.kind in DETECTORS else heedmap.logit(CHOSEN)
    explanation = heedmap.explain(model, dict(inputs), target, method=method)
    return explanation[explanation.streams[0]] if explanation.pixels is None else explanation.pixels


def several(case: Case, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Ten object queries of a picture, explained in one call."""
    import heedmap

    targets = [heedmap.logit(CHOSEN, query=query) for query in range(TEN)]
    found = heedmap.explain_each(model, dict(inputs), targets)
    return torch.stack([explanation[explanation.streams[0]] for explanation in found])


# What a person types who has transformers alone: load the zoo's classifier, one forward, one gradient to the pixels.
BY_HAND = """
import sys, torch, transformers
model = transformers.ViTForImageClassification.from_pretrained(sys.argv[1]).eval()
pixels = torch.zeros(1, 3, 96, 96, requires_grad=True)
torch.autograd.grad(model(pixels).logits[0, 0], pixels)
"""


def command(case: Case, model: nn.Module, inputs: Mapping[str, Tensor], *, words: Sequence[str]) -> Tensor:
    """A process from start to end: python with these words, and the zoo's classifier for it to load."""
    from heedmap.zoo import path

    with TemporaryDirectory() as folder:
        Image.new("RGB", (96, 96)).save(Path(folder, "grey.png"))
        subprocess.run(
            [sys.executable, *words, str(path("vit"))], cwd=folder, check=True, capture_output=True, text=True
        )
    return torch.zeros(1)


def dense(case: Case, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The usual way: eager weights, their retained gradients, the N x N rollout, then one row of it."""
    model.zero_grad(set_to_none=True)
    output = model(**inputs, output_attentions=True)
    for weights in output.attentions:
        weights.retain_grad()
    case.value(output.logits).sum().backward()
    with torch.no_grad():
        weights = output.attentions[0]
        identity = torch.eye(case.tokens, device=weights.device, dtype=weights.dtype)
        relevance = identity.expand(len(weights), -1, -1)
        for weights in output.attentions:
            relevance = relevance + (weights.grad * weights).mean(dim=1) @ relevance
        return relevance[:, case.row] - identity[case.row]


def dense_per_image(case: Case, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The same, one example after the other, as most implementations do."""
    parts = ({name: tensor[i : i + 1] for name, tensor in inputs.items()} for i in range(case.batch))
    return torch.cat([dense(case, model, part) for part in parts])


def _methods() -> Iterator[Contestant]:
    """Each method in its first form, as a user calls it."""
    from heedmap.methods import OURS

    for name in OURS:
        kinds = ("detr",) if name == "odam" else ("methods", "detr") if name == "gae" else ("methods",)
        yield Contestant(f"method {name}", partial(theirs, method=name), kinds=kinds, slow=name in SLOW)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(LIMIT, limit, frozen=True, kinds=(*MODELS, "methods", "command")),
        Contestant(ONE, partial(ours, correction="complete")),
        Contestant("heedmap positive", partial(ours, correction="positive")),
        Contestant("heedmap absolute", partial(ours, correction="absolute")),
        Contestant(DETECTIONS, several, kinds=DETECTORS),
        *_methods(),
        Contestant(
            "heedmap explain PICTURE",
            partial(command, words=("-m", "heedmap", "explain", "grey.png", "--quiet", "--model")),
            kinds=("command",),
        ),
        Contestant("heedmap --help", partial(command, words=("-m", "heedmap", "--help")), kinds=("command",)),
        Contestant("limit again", limit, frozen=True, control=True, kinds=(*MODELS, "methods", "command")),
        Contestant(
            "dense per image",
            dense_per_image,
            attention="eager",
            dense=True,
            batches_only=True,
            kinds=("vit", "lm"),
        ),
        Contestant("dense batched", dense, attention="eager", dense=True, kinds=("vit", "lm")),
    )
}


def entering(case: Case, names: Iterable[str] | None = None) -> list[Contestant]:
    """The contestants of a case, the limit always among them and first."""
    wanted = set(CONTESTANTS if names is None else names) | {LIMIT}
    enters = [c for c in CONTESTANTS.values() if c.name in wanted and case.kind in c.kinds]
    return [c for c in enters if not (c.batches_only and case.batch == 1)]


def set_up(
    contestant: Contestant,
    case: Case,
    device: str,
    dtype: torch.dtype,
    models: dict[tuple[str | None, bool], nn.Module] | None = None,
) -> Run:
    """Load what the contestant needs; those with the same needs share a model through `models`."""
    if contestant.name.startswith(("heedmap", "method")):
        import heedmap  # noqa: F401  (an import is loading, not explaining)
    models = {} if models is None else models
    key = (contestant.attention, contestant.frozen)
    if key not in models:
        models[key] = build_model(case, device, dtype, contestant.attention)
        models[key].requires_grad_(not contestant.frozen)
    return partial(contestant.call, case, models[key], build_inputs(case, device, dtype))


def disagreement(case: Case, device: str) -> float:
    """How far the dense way's map is from heedmap's, relative to the largest entry, in float32."""
    names = ("heedmap complete", "dense batched")
    found, expected = (set_up(CONTESTANTS[name], case, device, torch.float32)() for name in names)
    return float((found - expected).abs().max() / expected.abs().max())
