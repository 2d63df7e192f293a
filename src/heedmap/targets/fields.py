"""What an output offers: where its logits are, what their axes stand for, and which class a label names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from heedmap.errors import LabelError, TargetError
from heedmap.targets.expressions import PASS_A_CALLABLE

# Where outputs keep their logits, first match first. What means several things (start_logits) is left out.
LOGIT_FIELDS = (
    "logits",  # nearly every model
    "question_answering_score",  # LXMERT
    "logits_per_image",  # CLIP, SigLIP: an example is an image, its classes are the texts
    "logits_per_video",
    "pred_logits",  # DETR as first published
    "class_logits",
    "class_queries_logits",  # MaskFormer, Mask2Former
    "prediction_logits",  # pre-training: the masked words before the sentence relation
    "seq_relationship_logits",
    "cross_relationship_score",
    "itm_score",  # image-text matching
)
# An output with one of these finds objects: the middle axis of its logits is object queries, not positions.
OBJECT_FIELDS = ("pred_boxes", "masks_queries_logits")

# An output with one of these compares objects with texts: each text is a class, and none is "no object".
TEXT_FIELDS = ("text_embeds", "encoder_last_hidden_state_text")


@dataclass(frozen=True, eq=False)
class Context:
    """What is known of the model and its inputs besides the output."""

    labels: Mapping[str, int] | None = None
    mask: Tensor | None = None  # batch x tokens, 1 = real, of the stream the logits stand on
    causal: bool = False
    batch: int | None = None


# ---- logits and their axes


def class_logits(output: Any, context: Context) -> tuple[Tensor, str | None, bool]:
    """Detached logits (batch, classes) or (batch, middle, classes), what the middle axis is, and whether the last
    class is a detector's "no object": it matches no text, and the labels name all but the last.
    """
    logits = logits_of(output, context)
    if logits.ndim > 3:
        expected = "(batch, classes) or (batch, tokens, classes)"
        raise TargetError(f"The logits have shape {shape(logits)}. Expected {expected}: {PASS_A_CALLABLE}.")
    if logits.ndim == 2:
        return logits.detach(), None, False
    fields = _fields(output)
    if not any(name in fields for name in OBJECT_FIELDS):
        return logits.detach(), "position", False
    classes = logits.shape[-1]
    named = max(context.labels.values()) + 1 if context.labels else classes - 1
    return logits.detach(), "query", 1 <= named == classes - 1 and not any(name in fields for name in TEXT_FIELDS)


def logits_of(output: Any, context: Context) -> Tensor:
    """The logits, (batch, ...)."""
    fields = _fields(output)
    listed = dict(enumerate(output)) if isinstance(output, list | tuple) else {}
    named = [output, *(fields[name] for name in LOGIT_FIELDS if name in fields)]
    places = [*((x, 1) for x in named), *((x, 2) for x in listed.values())]  # with the least number of axes
    floating = (x for x, axes in places if isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= axes)
    logits = next(floating, None)
    if logits is None:
        met = ", ".join(f"{name} {shape(value)}" for name, value in (fields or listed).items())
        raise TargetError(
            f"No logits were found in the output {shape(output)}. Its fields are: {met or 'none'}. Expected "
            f"a floating tensor, a tuple with one, or a field {', '.join(LOGIT_FIELDS)}: {PASS_A_CALLABLE}."
        )
    if not logits.numel() or context.batch not in (None, len(logits)):
        met = f"The logits have shape {shape(logits)} for {context.batch or 'no'} examples"
        raise TargetError(f"{met}. Expected one row for each: {PASS_A_CALLABLE}.")
    return logits.unsqueeze(-1) if logits.ndim == 1 else logits


def shape(x: Any) -> str:
    return str(tuple(x.shape)) if isinstance(x, Tensor) else f"({type(x).__name__})"


def _fields(output: Any) -> dict[str, Any]:
    """The named parts that an output has."""
    if isinstance(output, Mapping):
        named = dict(output)
    elif hasattr(output, "_asdict"):
        named = output._asdict()
    else:
        named = {} if isinstance(output, Tensor) else getattr(output, "__dict__", {})
    return {str(name): value for name, value in named.items() if value is not None}


# ---- labels


def class_of(index: int | str, classes: int, labels: Mapping[str, int]) -> tuple[int, int | str]:
    """A class as an index and as it is shown."""
    shown, met = index, f"Index {index}"
    if isinstance(index, str):
        shown = _label(index, labels)
        index = int(labels[shown])
        met = f"Index {index} of label {shown!r}"
    if not 0 <= index < classes:
        hint = " Negative indices do not count from the end." if index < 0 else ""
        raise LabelError(f"{met} is out of range: this model has {classes} classes, 0 to {classes - 1}.{hint}")
    return index, shown


def names_of_classes(classes: int, labels: Mapping[str, int]) -> dict[int, str]:
    """Label by index; nothing where the labels name something else than these classes."""
    names = {index: label for label, index in labels.items()}
    return {} if _nameless(labels) or max(names) + 1 < classes else names


def _label(text: str, labels: Mapping[str, int]) -> str:
    """The label meant: itself, else the only one that is the same but for case, or has it as a synonym."""
    if text in labels:
        return text
    if _nameless(labels):
        raise LabelError(f"{text!r} is a label, but this model has no label names. Give an index: logit(3).")
    wanted = text.strip().casefold()
    meant = [label for label in labels if label.casefold() == wanted]
    meant = meant or [label for label in labels if wanted in _synonyms(label)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise LabelError(f"Label {text!r} may be {' or '.join(map(repr, meant))}. Write one in full.")
    known = {name: label for label in labels for name in (*_synonyms(label), label.casefold())}
    near = dict.fromkeys(known[name] for name in difflib.get_close_matches(wanted, known))
    hint = f"Did you mean {' or '.join(map(repr, near))}?"
    if not near:
        more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
        hint = f"There are {', '.join(map(repr, list(labels)[:8]))}{more}. Give one, or an index."
    raise LabelError(f"Label {text!r} is not one of this model's {len(labels)} labels. {hint}")


def _synonyms(label: str) -> list[str]:
    return [part.strip() for part in label.casefold().split(",")]


def _nameless(labels: Mapping[str, int]) -> bool:
    """No labels, or the LABEL_0, LABEL_1 ... that a transformers config makes up by itself."""
    return all(re.fullmatch(r"LABEL_\d+", label) for label in labels)
