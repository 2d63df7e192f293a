"""Which state reads which in each call: inferred from where tensors come from, or declared; and checked.

A call's queries come from the state that reads, its values from the state that is read. The latest call upstream
names the state; before any call, the model's own inputs do. A state that holds another one through its residual
branch stands for both. Whatever is not certain is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from heedmap.errors import InputError, MixedTokensError, WiringError
from heedmap.records import Base, Call, Mark, Name, Origin, State, Wiring

Declaration = Mapping[Any, Mapping[str, str]]  # keys: the number of a call, or the path of its module


class Seen(Protocol):
    """What inference needs to know of a recorded call."""

    index: int
    module: str
    seam: str
    origins: tuple[Origin | None, Origin | None, Origin | None]
    lead: tuple[int, ...]
    counts: tuple[int, int]


SAYS = {
    "softmax": "weighs tokens in a form no seam knows",
    "weighing": "weighs tokens in a form no seam knows",
    "product": "multiplies activations with each other in a form no seam knows",
    "splice": "puts tokens of two depths side by side (they are spliced)",
    "move": "may move tokens",
    "unseen": "takes a tensor whose making was not seen (vmap, scripted code, a kernel of its own)",
}


@dataclass
class Stream:
    name: str
    tokens: int
    names: int
    bases: int
    declared: bool = False


def infer(
    calls: Sequence[Seen],
    names: Sequence[Name],
    bases: Sequence[Base],
    marks: Sequence[Mark],
    declared: Declaration | None = None,
) -> Wiring:
    """The wiring of the calls that were met."""
    return Inference(calls, names, bases, marks, {} if declared is None else declared).run()


class Inference:
    def __init__(
        self,
        calls: Sequence[Seen],
        names: Sequence[Name],
        bases: Sequence[Base],
        marks: Sequence[Mark],
        declared: Declaration,
    ) -> None:
        self.seen = calls
        self.names = names
        self.bases = bases
        self.marks = marks
        self.strong = sum(1 << i for i, base in enumerate(bases) if base.strong)
        self.primary = sum(1 << i for i, name in enumerate(names) if name.kind == "input")
        self.declared = declared
        self.streams: list[Stream] = []
        self.calls: list[Call] = []
        self.fused: set[State] = set()
        self.begun: dict[tuple[int, int, int], str] = {}  # what declared streams begin with

    def run(self) -> Wiring:
        _check_declared(self.seen, self.declared)
        for seen in self.seen:
            self.calls.append(self._call(seen))
        tokens = {stream.name: stream.tokens for stream in self.streams}
        layouts = {stream.name: stream.bases for stream in self.streams if not stream.declared}
        sampled = {
            call.read.stream: tuple(level.size for level in points.levels)
            for call, seen in zip(self.calls, self.seen, strict=True)
            if (points := getattr(seen, "points", None)) is not None
        }
        return Wiring(tuple(self.calls), tokens, layouts, grids=sampled)

    def _call(self, seen: Seen) -> Call:
        q, (queries, keys) = seen.origins[0], seen.counts
        reading, read, told = self._ends(seen)
        kind = "B" if reading.stream != read.stream else "C" if reading in self.fused else "A"
        if kind != "A":
            self.fused.add(State(reading.stream, seen.index))
        heads = seen.lead[-1] if seen.lead else 1
        return Call(
            seen.index,
            seen.module,
            seen.seam,
            reading,
            read,
            queries,
            keys,
            heads,
            kind,
            q or Origin(),
            told,
        )

    def _ends(self, seen: Seen) -> tuple[State, State, frozenset[str]]:
        """The states that read and are read, and which of them were declared."""
        told = {**self.declared.get(seen.module, {}), **self.declared.get(seen.index, {})}
        q, k, v = seen.origins
        queries, keys = seen.counts
        if "reading" in told:
            reading = self._told(told["reading"], queries, q)
        else:
            reading = self._resolve(seen, "queries", q, queries)
        read = self._told(told["read"], keys, v) if "read" in told else self._read(seen, k, v, keys)
        self._check_tokens(seen, reading, queries, "queries")
        self._check_tokens(seen, read, keys, "keys")
        return reading, read, frozenset(told) | self._declared_before(reading, read, told)

    def _declared_before(self, reading: State, read: State, told: Collection[str] = ()) -> frozenset[str]:
        """The ends at which a stream is met as it was declared to begin; `again` those at which that was inferred."""
        ends = (("reading", reading), ("read", read))
        met = {end for end, state in ends if state.after is None and state.stream in self.begun.values()}
        return frozenset(met | {f"{end} again" for end in met.difference(told)})

    def _told(self, text: str, tokens: int, origin: Origin | None) -> State:
        """A declared state: an unknown stream begins here, and stands for all that its tokens come from.

        A known stream without a number is meant as its last call left it.
        """
        stream, _, number = text.rpartition("@")
        if not stream or not number.isdigit():
            stream, number = text, ""
        if all(known.name != stream for known in self.streams):
            self.streams.append(Stream(stream, tokens, 0, 0, declared=True))
            if origin is not None and origin.calls:
                self.begun[self._key(origin)] = stream
        known = next(known for known in self.streams if known.name == stream)
        if origin is not None:
            known.names |= origin.names
            known.bases |= self._content(origin)
        written = [call.index for call in self.calls if call.reading.stream == stream]
        if number and int(number) not in written:
            raise InputError(f"wiring= names {text!r}, but {stream!r} was so far written by calls {written}.")
        return State(stream, int(number) if number else written[-1] if written else None)

    def _key(self, origin: Origin) -> tuple[int, int, int]:
        return origin.calls, origin.marks, origin.bases & self.strong

    def _read(self, seen: Seen, k: Origin | None, v: Origin | None, tokens: int) -> State:
        """The state that values come from; constant values stand for the tokens of their keys."""
        if v is not None and not (v.calls or v.names):
            v = k
        read = self._resolve(seen, "values", v, tokens)
        if k is None or not (k.calls or k.names) or k is v:
            return read
        if k.calls or (v is not None and v.calls):
            other = self._resolve(seen, "keys", k, tokens)
            if other != read:
                raise WiringError(
                    f"Call {seen.index} ({seen.module}) takes its keys from {other} and its values from {read}. "
                    f"heedmap expected one state for both; {_declare(seen)}"
                )
        elif not self._same_stream(k, read):
            raise WiringError(
                f"Call {seen.index} ({seen.module}) takes keys and values from different layouts of {read}: "
                f"tokens may be moved between them. heedmap expected one layout for both; {_declare(seen)}"
            )
        return read

    def _same_stream(self, origin: Origin, state: State) -> bool:
        stream = next(known for known in self.streams if known.name == state.stream)
        if stream.bases and not self._content(origin) & stream.bases:
            return False
        stream.bases |= self._content(origin)
        return True

    def _content(self, origin: Origin) -> int:
        """The layouts that carry content; positions and masks count only where there is nothing else."""
        return origin.bases & self.strong or origin.bases

    def _resolve(self, seen: Seen, what: str, origin: Origin | None, tokens: int) -> State:
        if origin is None:
            raise WiringError(
                f"The {what} of call {seen.index} ({seen.module}) come from a tensor whose making was not seen "
                f"(scripted code, a custom kernel, or numbers kept from an earlier forward). {_declare(seen)}"
            )
        if self._key(origin) in self.begun:
            return State(self.begun[self._key(origin)])  # the same tokens, met once more
        self._refuse_marks(seen, what, origin, tokens)
        if not origin.calls:
            return self._enter(seen, what, origin, tokens)
        latest = frontier(origin.calls, self.calls)
        if len(latest) > 1:
            states = " and ".join(str(self.calls[index].state) for index in latest)
            raise WiringError(
                f"The {what} of call {seen.index} ({seen.module}) are computed from two states at once, {states}: "
                f"tokens were spliced, or two calls read one state. heedmap expected one state; {_declare(seen)}"
            )
        state = self.calls[latest[0]].state
        stream = next(known for known in self.streams if known.name == state.stream)
        stream.bases |= self._words_again(origin.bases & self.strong & ~stream.bases, stream)
        if origin.names & self.primary & ~stream.names or origin.bases & self.strong & ~stream.bases:
            foreign = [n.text for i, n in enumerate(self.names) if origin.names & self.primary & ~stream.names & 1 << i]
            raise WiringError(
                f"The {what} of call {seen.index} ({seen.module}) are spliced from {state} and from tokens of "
                f"{' and '.join(foreign) or 'another layout of ' + state.stream} that no call has read yet. "
                f"heedmap expected one state; {_declare(seen)}"
            )
        return state

    def _words_again(self, bits: int, stream: Stream) -> int:
        """Of some layouts those in which a stream's own words, as they were given, are looked up in another table."""
        if stream.declared:
            return 0
        again = 0
        for bit, base in enumerate(self.bases):
            given = base.operation == "embedding" and not base.behind & self.strong
            own = given and not base.names & self.primary & ~stream.names
            if bits >> bit & 1 and own and len(base.shape) == 3 and base.tokens == stream.tokens:
                again |= 1 << bit
        return again

    def _refuse_marks(self, seen: Seen, what: str, origin: Origin, tokens: int) -> None:
        """Refuse what the probe between calls cannot tell: splices of two depths, and mixing before any call."""
        held = 0  # what lies behind a declared state is its declarer's affair
        for call in self.calls:
            if call.declared and origin.calls >> call.index & 1:
                held |= call.queries_from.marks
        for bit, mark in enumerate(self.marks):
            if not origin.marks >> bit & 1:
                continue
            early = not mark.upstream.calls
            if held >> bit & 1:
                continue
            if mark.kind in ("splice", "unseen") or (early and (mark.kind == "product" or tokens in mark.sizes)):
                raise MixedTokensError(
                    f"The {what} of call {seen.index} ({seen.module}) pass through a {mark.operation} in {mark.module} "
                    f"that {SAYS[mark.kind]}. heedmap expected tokens that stay as they are; {_declare(seen)}"
                )

    def _enter(self, seen: Seen, what: str, origin: Origin, tokens: int) -> State:
        """The state of a stream before any call: the one laid out by the same operations, or a new one."""
        content = self._content(origin)
        for bit, base in enumerate(self.bases):
            if content >> bit & 1 and base.operation == "__setitem__":  # in place: what was written into has its shape
                written = [i for i, each in enumerate(self.bases) if base.behind >> i & 1 and each.shape == base.shape]
                content |= sum(1 << i for i in written) & self.strong
        for stream in self.streams:
            if stream.tokens == tokens and self._one(content, stream.bases):
                stream.bases |= content
                stream.names |= origin.names
                return State(stream.name)
        unique = self._unique(self._name(origin) or f"{seen.module}.{what}")
        self.streams.append(Stream(unique, tokens, origin.names, content))
        return State(unique)

    def _one(self, content: int, known: int) -> bool:
        """Whether tokens are those of a stream; two sets of learned or chosen ones may share their positions."""
        return bool(content & known & self.strong) or (bool(content & known) and content & known in (content, known))

    def _unique(self, name: str) -> str:
        taken, unique, number = {stream.name for stream in self.streams}, name, 2
        while unique in taken:
            unique, number = f"{name}#{number}", number + 1
        return unique

    def _name(self, origin: Origin) -> str:
        """The model's own inputs upstream; a learned parameter only if there is none."""
        for kind in ("input", "parameter", "auxiliary"):
            texts = [n.text for i, n in enumerate(self.names) if n.kind == kind and origin.names & 1 << i]
            if texts:
                return "+".join(texts)
        return ""

    def _check_tokens(self, seen: Seen, state: State, tokens: int, what: str) -> None:
        expected = next(stream.tokens for stream in self.streams if stream.name == state.stream)
        if tokens != expected:
            raise WiringError(
                f"Call {seen.index} ({seen.module}) has {tokens} {what}, the stream {state.stream!r} they come from "
                f"has {expected} tokens: tokens were merged, dropped, windowed or added on the way. "
                f"heedmap expected equal counts; {_declare(seen)}"
            )


def frontier(bits: int, calls: Sequence[Call]) -> list[int]:
    """The calls among `bits` whose states no other of them holds through its residual branch."""
    left = [i for i in range(bits.bit_length()) if bits >> i & 1]
    held: set[int] = set()
    for index in reversed(left):
        step: int | None = index
        while step is not None:
            call = calls[step]
            if "reading" in call.declared:
                held |= {i for i in range(step) if call.queries_from.calls >> i & 1}
            step = call.reading.after
            if step in held:
                break
            if step is not None:
                held.add(step)
    return [index for index in left if index not in held]


def _declare(seen: Seen) -> str:
    return f'declare it: wiring={{{seen.index}: {{"reading": "stream", "read": "stream"}}}}.'


def _check_declared(calls: Sequence[Seen], declared: Any) -> None:
    form = 'wiring={call number or module path: {"reading": "stream", "read": "stream@call"}}'
    if not isinstance(declared, Mapping):
        raise InputError(f"wiring= is a {type(declared).__name__}. heedmap expected {form}.")
    known = {call.index for call in calls} | {call.module for call in calls}
    for key, told in declared.items():
        if key not in known:
            raise InputError(
                f"wiring= declares {key!r}, which is neither a call's number nor its module path. heedmap expected "
                f"{form}; print heedmap.wiring(model, inputs) to see the calls."
            )
        fits = isinstance(told, Mapping) and set(told) <= {"reading", "read"}
        if not fits or not all(isinstance(text, str) and text for text in told.values()):
            raise InputError(f"wiring={{{key!r}: {told!r}}} is not of the form heedmap expected: {form}.")
