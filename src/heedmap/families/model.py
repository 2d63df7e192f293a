"""A model with what it takes to use it: give a picture or a text and the name of an answer, get an explanation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from heedmap import api
from heedmap.errors import InputError, LabelError
from heedmap.estimate import estimate
from heedmap.families import answering, captions, laying, naming, sinks, tiling
from heedmap.families.answering import Answer
from heedmap.families.asking import Asked, ask
from heedmap.families.feeding import Fed, feed
from heedmap.families.looking import Look
from heedmap.families.processors import Processors
from heedmap.families.producing import Produced, produced, written
from heedmap.families.tasks import DETECTS, ENDS, MATCHES, VOCABULARY, WRITERS
from heedmap.layouts import Shown
from heedmap.records import Estimate, Explanation, Wiring
from heedmap.targets import Target, as_target, settle
from heedmap.targets.expressions import Logit
from heedmap.targets.fields import class_of


@dataclass(frozen=True, eq=False)
class Model:
    """`image` is a path, a PIL image or an array of bytes, or a list of them; `text` a string, or a list.

    A conversation is a list of messages, `{"role": "user", "content": "..."}`, for models with a chat template.

    Models that match pictures with captions take the captions as `text` and one of them as the target. Models that read
    regions take them as `regions`. `sound` is a WAV file or numbers at the model's rate. `prefix` is how an answer
    begins whose next word is asked for.
    """

    module: nn.Module
    task: str
    source: str
    processor: Processors

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, by index; none where the model has none, or answers in words of its vocabulary."""
        if self.task in VOCABULARY or self.task == MATCHES:
            return ()
        names: Mapping[int, str] = self.config.id2label
        if all(name == f"LABEL_{index}" for index, name in names.items()):
            return ()
        return tuple(names.get(index, str(index)) for index in range(max(names) + 1))

    @property
    def config(self) -> Any:
        return self.module.config

    def inputs(
        self, image: Any = None, text: Any = None, regions: Any = None, **more: Any
    ) -> tuple[dict[str, Tensor], tuple[Shown, ...]]:
        """The tensors that the model takes, and what their tokens are."""
        fed = self.fed(image, text, regions, **more)
        with self.steady(fed) as order:
            wired = api.wiring(self.module, fed.inputs, wiring=ENDS.get(self.config.model_type))
        tokens = {name: count * tiling.many(name, fed) for name, count in wired.entered.items()}
        return dict(fed.inputs), laying.shown(fed, self.config, tokens, order, wired.grids)

    def wiring(self, image: Any = None, text: Any = None, regions: Any = None, **more: Any) -> Wiring:
        """Which stream reads which in every attention call."""
        fed = self.fed(image, text, regions, **more)
        return api.wiring(self.module, fed.inputs, wiring=ENDS.get(self.config.model_type))

    def estimate(self, image: Any = None, text: Any = None, regions: Any = None, **more: Any) -> Estimate:
        """How much memory an explanation takes."""
        return estimate(self.module, self.fed(image, text, regions, **more).inputs)

    def explain(
        self,
        image: Any = None,
        text: Any = None,
        target: Any = None,
        against: Any = None,
        loss: str | None = None,
        correction: str | None = None,
        method: str = "heed",
        regions: Any = None,
        guide: Any = None,
        **options: Any,
    ) -> Explanation:
        """What speaks for an answer and against it, and what it is said of.

        `target` is a label, an index, or an expression such as `logit(3) - logit(5)`; None is what the model predicts.
        `against` is an answer that it is weighed against by `loss`: "difference" a - b, "ratio" a / b, or "relative"
        (a - b) / a. `guide` is a picture of another class (also `menagerie:owl`, a drawn one) that is put on a `side`
        of the picture ("right", "left", "above", "below"), so that attention has somewhere else to go.
        """
        told = {"correction": correction, "method": method, "regions": regions, "guide": guide, **options}
        return self.explain_each(image, text, [target], against, loss, **told)[0]

    def explain_each(
        self,
        image: Any = None,
        text: Any = None,
        targets: Sequence[Any] = (None,),
        against: Any = None,
        loss: str | None = None,
        correction: str | None = None,
        method: str = "heed",
        regions: Any = None,
        sound: Any = None,
        prefix: str | None = None,
        guide: Any = None,
        side: str = "right",
        **options: Any,
    ) -> list[Explanation]:
        """Several answers of one input, with one forward pass for all."""
        if isinstance(targets, str) or not isinstance(targets, Sequence):
            raise InputError(f"targets is {targets!r}. heedmap expected a list; for one target call explain.")
        told = {"correction": correction, "method": method, **options}
        if guide is not None:
            from heedmap.guidance import guided

            def explain(pairs: list[Any], asked: Sequence[Any]) -> list[Explanation]:
                return self.explain_each(pairs, text, asked, against, loss, regions=regions, prefix=prefix, **told)

            return guided(self, image, text, targets, guide, side, explain)
        if self.task == MATCHES:
            return [captions.matched(self, image, text, target, against, loss, told) for target in targets]
        fed = self.fed(image, text, regions, sound=sound, prefix=prefix)
        look = Look(self, fed)
        asked = [self.asked(fed, look, target, against, loss) for target in targets]
        return self.explained(fed, look, asked, told)

    def explain_detections(
        self, image: Any, threshold: float = 0.5, top: int | None = None, **options: Any
    ) -> list[Explanation]:
        """Every object that a detector is sure of in a picture, surest first, with one forward pass for all."""
        if self.task != DETECTS:
            raise InputError(f"{self.source!r} does {self.task}. heedmap expected a detector, such as zoo:detr.")
        fed = self.fed(image)
        if fed.count > 1:
            raise InputError(f"{fed.count} pictures were given. heedmap explains the detections of one at a time.")
        look = Look(self, fed)
        found = answering.objects(look.output(), look.context, threshold)[0][:top]
        if not found:
            return []
        asked = [self.asked(fed, look, Logit(one.index, query=one.query), None, None) for one in found]
        return self.explained(fed, look, asked, options)

    def explain_produced(
        self,
        image: Any = None,
        text: Any = None,
        tokens: int = 30,
        regions: Any = None,
        sound: Any = None,
        prefix: str | None = None,
        against: str | None = None,
        **options: Any,
    ) -> Produced:
        """What the model writes, and each word of it explained: from what it was given, and from the words before.

        The model writes greedily, up to so many tokens; then one forward pass explains all of them.
        `against="next best"` holds each token against the one that the model liked best but for it, any other words
        hold all of it against a continuation that begins with them: log p(written) - log p(other), of which each word
        is a summand and `.contrast` the whole.
        """
        fed = self.fed(image, text, regions, sound=sound, prefix=prefix)

        def explain(whole: Fed, asked: Sequence[Asked]) -> list[Explanation]:
            return self.explained(whole, Look(self, whole), asked, options)

        return produced(self, fed, tokens, against, explain)

    def generate(self, prompt: Any, image: Any = None, tokens: int = 30, explain: bool = True, **options: Any) -> Any:
        """`explain_produced`, the prompt first: a text, or messages; with `explain=False` only what is written."""
        if explain:
            return self.explain_produced(image, prompt, tokens, **options)
        if options:
            raise InputError(f"{', '.join(options)}: of what is explained. Leave it out, or give explain=True.")
        return written(self, self.fed(image, prompt), tokens)

    def predict(
        self,
        image: Any = None,
        text: Any = None,
        top: int = 5,
        regions: Any = None,
        sound: Any = None,
        prefix: str | None = None,
    ) -> list[tuple[Answer, ...]]:
        """The likeliest answers of each example, with their probabilities; of a detector its surest objects."""
        fed = self.fed(image, text, regions, sound=sound, prefix=prefix)
        look = Look(self, fed)
        positions = naming.positions(self, fed)
        if self.task in WRITERS:
            settled = settle(as_target(None), look.output(), look.context)
            assert isinstance(settled, Logit)
            where = settled.position
            positions = where if isinstance(where, tuple) else None if where is None else (where,) * fed.count
        name = naming.names(self, fed)
        return answering.answers(look.output(), look.context, self.task, self.config, name, top, positions)

    def index(self, label: str | int) -> int:
        """The class that a label names, of a model that has classes."""
        labels = {text: i for i, text in enumerate(self.labels)}
        index, _ = class_of(label, naming.classes(self), labels or getattr(self.config, "label2id", {}))
        twins = [i for i, text in enumerate(self.labels) if text == self.labels[index]] if labels else []
        if isinstance(label, str) and len(twins) > 1:
            raise LabelError(f"{label!r} is the name of classes {twins}. Give one of these indices.")
        return index

    # ---- the parts

    def fed(
        self, image: Any = None, text: Any = None, regions: Any = None, sound: Any = None, prefix: Any = None
    ) -> Fed:
        if self.task == "fill-mask" and text is not None:
            mask = self.processor.text.mask_token
            text = [_masked(one, mask) for one in text] if isinstance(text, list | tuple) else _masked(text, mask)
        return feed(
            self.module, self.processor, self.task, self.source, image, text, sound=sound, found=regions, prefix=prefix
        )

    def asked(
        self, fed: Fed, look: Look, target: Any, against: Any, loss: str | None, look_first: bool = False
    ) -> Asked:
        plain = not (isinstance(target, Target) or callable(target))
        needed = self.task == DETECTS or (target is None and (self.task in VOCABULARY or look_first))
        return ask(
            target,
            against,
            loss,
            fed.count,
            naming.named(self, fed),
            look.output,
            look.context,
            naming.positions(self, fed, need=plain),
            needed,
        )

    def explained(self, fed: Fed, look: Look, asked: Sequence[Asked], told: Mapping[str, Any]) -> list[Explanation]:
        told = {"wiring": ENDS.get(self.config.model_type), **told}
        with self.steady(fed) as order:
            found = api.explain_each(self.module, fed.inputs, [one.target for one in asked], **told)
        if self.processor.both is not None:
            found = [tiling.folded(explanation) for explanation in found]
        base = laying.of(found[0], fed, self.config, order) if found else ()
        sunk = ""
        if found and self.task in ("text-generation", "image-text-generation"):
            base, sunk = sinks.marked(self.module, fed.inputs, found[0].wiring, base)
        finished = []
        for explanation, one in zip(found, asked, strict=True):
            predicted = one.predicted or explanation.predicted
            said = one.words or tuple(map(str, predicted or ()))
            shown = tuple(
                replace(
                    example, answer=said[i] if i < len(said) else None, box=look.box(one, i), sure=look.sure(one, i)
                )
                for i, example in enumerate(base)
            )
            metadata = {**explanation.metadata, **({sinks.TOLD: sunk} if sunk else {})}
            finished.append(replace(explanation, predicted=predicted, shown=shown, metadata=metadata))
        return finished

    @contextlib.contextmanager
    def steady(self, fed: Fed) -> Iterator[Tensor | None]:
        """With the same chance each time, and the order in which a model that shuffles its patches (ViLT) does so."""
        if self.config.model_type != "vilt":
            yield None
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            embeddings: Any = self.module.get_submodule("vilt.embeddings")
            with torch.no_grad():
                _, _, (order, _) = embeddings.visual_embed(
                    fed.inputs["pixel_values"], fed.inputs["pixel_mask"], self.config.max_image_length
                )
            torch.manual_seed(0)
            yield order

    def __repr__(self) -> str:
        return f"Model({self.source!r}, {type(self.module).__name__}, {self.task}, {len(self.labels)} labels)"


def _masked(text: Any, mask: str) -> Any:
    """Whoever does not know a model's own mask may write [MASK]."""
    return text.replace("[MASK]", mask) if isinstance(text, str) and mask not in text else text
