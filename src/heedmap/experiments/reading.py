"""Semantic reading: what a model takes in of the words, and of the picture, before either has heard of the other.

Up to the first cross-attention each stream reads itself alone. The walk begun there, under absolute correction, shows
what its encoder brings along: of the words, what the question turns on; of the regions, what there is to be seen
(heterogenous-attention, section 5.2 and figure 7). The gradient is that of the answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError
from heedmap.records import Readout

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation, Wiring

CORRECTION = "absolute"
NAME = "reading"
CHOOSES = "visual-question-answering"  # its answer is read from the first row of the words, not written by a decoder
TAKES = "A reading is of a model that takes in words and picture apart, and then lets them meet, as zoo:lxmert does"


def reading(
    model: Model, image: Any, text: Any, target: Any = None, *, correction: str = CORRECTION, regions: Any = None
) -> Explanation:
    """What the words say to one another and the regions to one another, before they meet.

    `target` is the answer whose gradient is taken: what the model predicts, if left out.
    """
    task = getattr(model, "task", None)
    if task != CHOOSES:
        met = f"{model.source!r} does {task}" if task else f"The model is a {type(model).__name__}"
        raise InputError(f"{met}. {TAKES}.")
    places = before_meeting(model.wiring(image, text, regions))
    found = model.explain(image, text, target, correction=correction, regions=regions, readout=places)
    return replace(found, shown=tuple(replace(one, answer=f"{NAME}: {one.answer}") for one in found.shown))


def before_meeting(wiring: Wiring) -> list[Readout]:
    """Where two streams stand as one of them first reads the other.

    The one that reads, LXMERT's words, has the row that the answer will be read from: its first, [CLS]. The one that is
    read has none; of it all rows are taken, which gives how much attention each of its tokens got in all.
    """
    first = next((call for call in wiring.calls if call.reading.stream != call.read.stream), None)
    if first is None:
        raise InputError(f"No stream of this model reads another: it has {' and '.join(wiring.streams)}. {TAKES}.")
    for state in (first.reading, first.read):
        if state.after is None:
            raise InputError(
                f"In call {first.index} ({first.module}) {first.reading} reads {first.read}, and {state} has not read "
                f"anything before. {TAKES}."
            )
    return [
        Readout(first.reading.stream, first.reading.after, rows=0),
        Readout(first.read.stream, first.read.after, rows="all"),
    ]
