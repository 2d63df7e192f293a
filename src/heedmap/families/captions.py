"""Models that match pictures with captions: an answer is a caption, and its words are explained with the picture."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from heedmap.errors import InputError, LabelError
from heedmap.families.feeding import Fed
from heedmap.families.looking import Look
from heedmap.records import Explanation
from heedmap.targets.expressions import Logit

if TYPE_CHECKING:
    from heedmap.families.model import Model


def matched(
    model: Model, image: Any, text: Any, target: Any, against: Any, loss: str | None, told: Mapping[str, Any]
) -> Explanation:
    """Captions: only those asked about are looked at, the target's first: its words are the first row of texts."""
    captions = _captions(text, target, against)
    fed = model.fed(image, captions or None)
    look = Look(model, fed)
    alone = loss if against is None else None
    asked = model.asked(fed, look, target, None, alone, look_first=target is None)
    if not isinstance(asked.target, Logit):
        explained = model.explained(fed, look, [model.asked(fed, look, target, against, loss)], told)[0]
        return _apart(explained, fed)
    words = asked.words or ("",) * fed.count
    if against is None:
        own = Logit(0 if fed.count == 1 else tuple(range(fed.count)), shown=words[0] if fed.count == 1 else words)
        fed = model.fed(image, list(words))
        return model.explained(fed, Look(model, fed), [replace(asked, target=own)], told)[0]
    if fed.count > 1:
        raise InputError(
            f"{fed.count} pictures were given with two captions to weigh. heedmap expected one picture at a time."
        )
    model.asked(fed, look, target, against, loss)  # refuses what cannot be weighed, in the words it was asked in
    other = captions[caption(against, captions)]
    fed = model.fed(image, [words[0], other])
    look = Look(model, fed)
    pair = model.asked(fed, look, 0, 1, loss)
    return _apart(model.explained(fed, look, [replace(pair, predicted=asked.predicted)], told)[0], fed, "against")


def _apart(explanation: Explanation, fed: Fed, *names: str) -> Explanation:
    """One picture and several captions: each caption a stream of its own, the first under the stream's own name."""
    stream, rows = "input_ids", len(fed.texts)
    called = [stream, *(f"{stream} ({name})" for name in names or range(2, rows + 1))]
    if rows == 1 or fed.count > 1 or len(explanation.relevance.get(stream, ())) != rows:
        return explanation

    def split(flows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = {name: flows[stream][i : i + 1] for i, name in enumerate(called)}
        return {key: value for name in flows for key, value in (own if name == stream else {name: flows[name]}).items()}

    layouts = {**explanation.shown[0].layouts, **dict(zip(called, fed.layouts[stream], strict=True))}
    shown = (replace(explanation.shown[0], layouts=layouts),)
    return replace(explanation, relevance=split(explanation.relevance), starts=split(explanation.starts), shown=shown)


def _captions(text: Any, target: Any, against: Any) -> list[str]:
    """What a picture may be matched with: the texts given, else the answers named."""
    if text is None:
        return list(dict.fromkeys(one for one in (target, against) if isinstance(one, str)))
    return [text] if isinstance(text, str) else list(text)


def caption(label: Any, texts: Sequence[str]) -> int:
    if isinstance(label, int) and 0 <= label < len(texts):
        return label
    if label in texts:
        return texts.index(label)
    near = difflib.get_close_matches(str(label), texts, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"They are {', '.join(map(repr, texts[:8]))}."
    raise LabelError(f"{label!r} is not one of the {len(texts)} captions given. {hint}")
