"""Which calls begin with tokens that were moved, and of which states these are: a wiring with streams of its own.

What a call reads may be laid out anew: the tokens of a picture between those of a text, or in windows, rolled, merged.
It is then a stream of its own. Where each of its tokens comes from is found out by gradients: `heedmap.routes`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from heedmap.errors import MixedTokensError, WiringError
from heedmap.records import Base, Mark, Moved, Name, Origin, State, Wiring
from heedmap.streams import Declaration, Inference, Seen, Stream

AS_MOVED = " (moved)"
MOVES = frozenset("pad roll flip __getitem__ index_select gather take_along_dim".split())  # tokens stay what they were


def follow(
    calls: Sequence[Seen],
    names: Sequence[Name],
    bases: Sequence[Base],
    marks: Sequence[Mark],
    declared: Declaration | None = None,
    apart: Collection[int] = (),
) -> Wiring:
    """The wiring of calls between which tokens are moved; in those `apart`, queries and values are of other tokens."""
    return _Following(calls, names, bases, marks, {} if declared is None else declared, apart=apart).run()


class Following(dict[Any, Mapping[str, str]]):
    """A declaration that asks to follow tokens besides; in the calls `apart` queries and values are of others."""

    def __init__(self, apart: Collection[int] = (), declared: Declaration | None = None) -> None:
        super().__init__(declared or {})
        self.apart = frozenset(apart)


class _Following(Inference):
    def __init__(self, calls: Sequence[Seen], names: Any, bases: Sequence[Base], *more: Any, apart: Any) -> None:
        super().__init__(calls, names, bases, *more)
        self.apart: Collection[int] = apart
        self.moved: dict[str, Moved] = {}
        self.together: dict[str, int] = {}  # how many examples, or windows, hold a stream's tokens

    def run(self) -> Wiring:
        wiring = super().run()
        return Wiring(wiring.calls, wiring.tokens, wiring.layouts, self.moved, wiring.grids)

    def _ends(self, seen: Seen) -> tuple[State, State, frozenset[str]]:
        if seen.index in self.declared or seen.module in self.declared:
            return super()._ends(seen)
        q, k, v = seen.origins
        if v is not None and not (v.calls or v.names):
            v = k
        queries, keys = seen.counts
        moved = set()
        reading = self._tried(seen, "queries", q, queries)
        if reading is None:
            both = seen.index not in self.apart and queries == keys and _alike(q, v)
            reading = self._laid_out(seen, "reading", v if both else q, queries)
            if both:
                return reading, reading, frozenset({"reading", "read"})
            moved.add("reading")
        read = self._tried(seen, "keys", v, keys)
        if read is None:
            read = self._laid_out(seen, "read", v, keys)
            moved.add("read")
        return reading, read, frozenset(moved) | self._declared_before(reading, read)

    def _tried(self, seen: Seen, what: str, origin: Origin | None, tokens: int) -> State | None:
        """The state that a call's tokens are as they stand; none where they were moved."""
        before = copy.deepcopy(self.streams)
        try:
            if what == "keys":
                state = self._read(seen, seen.origins[1], seen.origins[2], tokens)
            else:
                state = self._resolve(seen, what, origin, tokens)
            self._check_tokens(seen, state, tokens, what)
            if origin is None or not self._is_moved(seen, state, origin, tokens):
                if len(seen.lead) == 2:
                    self.together.setdefault(state.stream, seen.lead[0])
                return state
        except (WiringError, MixedTokensError):
            if origin is None:
                raise
        self.streams = before
        return None

    def _is_moved(self, seen: Seen, state: State, origin: Origin, tokens: int) -> bool:
        if len(seen.lead) == 2 and self.together.get(state.stream, seen.lead[0]) != seen.lead[0]:
            return True
        if state.after is None and state.stream in self.begun.values():
            return False
        if state.after is None and state.stream in self.moved:
            return True  # another part of what it begins with, perhaps
        if state.after is None:
            content = [base for i, base in enumerate(self.bases) if self._content(origin) >> i & 1]
            again = any(base.operation in MOVES and base.behind & self.strong for base in content)
            return again or (bool(content) and all(base.tokens != tokens for base in content))
        held = 0
        for call in self.calls:
            if origin.calls >> call.index & 1:
                held |= call.queries_from.marks
        return any(
            origin.marks & ~held & 1 << bit and mark.kind in ("splice", "move") for bit, mark in enumerate(self.marks)
        )

    def _laid_out(self, seen: Seen, end: str, origin: Origin | None, tokens: int) -> State:
        """A new stream for tokens that were moved, and where they come from."""
        assert origin is not None
        held = self._held(origin)
        sources = [call.state for call in reversed(self.calls) if origin.calls & ~held.calls & 1 << call.index]
        content = self._content(origin) & ~held.bases
        sources += [self._entered(bit) for bit in reversed(range(content.bit_length())) if content >> bit & 1]
        unique = self._unique((self._name(origin) or f"{seen.module}.{end}") + AS_MOVED)
        behind = [self._stream(state.stream) for state in sources]
        stream = Stream(unique, tokens, origin.names, content, declared=True)
        for each in behind:
            stream.names, stream.bases = stream.names | each.names, stream.bases | each.bases
        self.streams.append(stream)
        self.moved[unique] = Moved(seen.index, end, tuple(dict.fromkeys(sources)))
        if len(seen.lead) == 2:
            self.together[unique] = seen.lead[0]
        return State(unique)

    def _held(self, origin: Origin) -> Origin:
        """What lies behind states that were declared to be a beginning."""
        held = Origin()
        for call in self.calls:
            told = call.index in self.declared or call.module in self.declared
            if told and "reading" in call.declared and origin.calls >> call.index & 1:
                held |= call.queries_from
        return held

    def _entered(self, bit: int) -> State:
        """The stream whose tokens were laid out in a base, as it entered."""
        known = self._known(bit)
        while known is None and self.bases[bit].operation in MOVES and self.bases[bit].behind & self.strong:
            bit = (self.bases[bit].behind & self.strong).bit_length() - 1
            known = self._known(bit)
        if known is not None:
            return State(known)
        base = self.bases[bit]
        unique = self._unique(self._name(Origin(names=base.names)) or base.operation)
        self.streams.append(Stream(unique, base.tokens, base.names, 1 << bit))
        return State(unique)

    def _known(self, bit: int) -> str | None:
        return next((each.name for each in self.streams if each.bases >> bit & 1 and not each.declared), None)

    def _stream(self, name: str) -> Stream:
        return next(stream for stream in self.streams if stream.name == name)


def _alike(a: Origin | None, b: Origin | None) -> bool:
    """Whether queries and values are of the same tokens; queries may know of positions besides."""
    return a is not None and b is not None and a.calls == b.calls and not b.names & ~a.names
