"""The records that pass between the rooms: frozen, little behaviour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from heedmap.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from heedmap.layouts import Shown


class Origin(NamedTuple):
    """Where a tensor comes from, as sets of bits: only paths that pass through no attention count.

    `calls`: attention calls upstream; `names`: model inputs and learned parameters upstream; `bases`: the tensors
    in which its tokens were last laid out; `marks`: operations upstream that may read what no seam has seen.
    """

    calls: int = 0
    names: int = 0
    bases: int = 0
    marks: int = 0

    def __or__(self, other: Origin) -> Origin:  # type: ignore[override]
        return Origin(
            self.calls | other.calls,
            self.names | other.names,
            self.bases | other.bases,
            self.marks | other.marks,
        )


@dataclass(frozen=True)
class Name:
    """A model input or a learned parameter: what a stream may be called after."""

    text: str
    kind: str  # "input", "auxiliary" (masks, positions) or "parameter"


@dataclass(frozen=True)
class Base:
    """A tensor in which tokens were laid out anew: an embedding, a convolution, a concatenation."""

    operation: str
    strong: bool  # it carries an input's content, not only positions or masks
    names: int = 0  # the inputs and parameters that it is made of, as bits
    shape: tuple[int, ...] = ()
    behind: int = 0  # the tensors that it was laid out from, as bits

    @property
    def tokens(self) -> int:
        """How many tokens an example has in it; channels are last, or second where a convolution made it."""
        if self.operation.startswith("conv") and len(self.shape) > 2:
            places = math.prod(self.shape[2:])
            return self.shape[0] if places == 1 else places
        return self.shape[0] if len(self.shape) == 2 else math.prod(self.shape[1:-1])


@dataclass(frozen=True)
class Mark:
    """An operation whose effect on tokens the labels alone cannot tell.

    `kind` is "softmax" (weights that reached no seam), "weighing" (they multiplied another activation), "product" (two
    activations were multiplied as matrices), "join" (a state met an older one, `older`), "splice" (tokens of two depths
    were put side by side), "move" (an operation that may move tokens) or "unseen" (a tensor made where no mode looks).
    """

    kind: str
    operation: str
    module: str
    upstream: Origin
    sizes: tuple[int, ...] = ()  # the axes along which tokens may have been mixed
    older: Origin | None = None
    tokenwise: bool = True
    after_model: bool = False  # met while the target was computed


@dataclass(frozen=True)
class State:
    """A stream as it stands after a call; `after` is None for the stream as it enters the model's attention."""

    stream: str
    after: int | None = None

    def __str__(self) -> str:
        return self.stream if self.after is None else f"{self.stream}@{self.after}"


class Level(NamedTuple):
    """One grid of tokens, and where between them it is read: (batch * head, query, point, 2), as grid_sample has it."""

    size: tuple[int, int]
    places: Tensor
    options: Mapping[str, Any]


class Points(NamedTuple):
    """What a call reads that weighs points between tokens, level after level; heads are folded into the batch."""

    weights: Tensor  # (batch * head, query, point)
    taken: Tensor  # (batch * head, channel, query, point): what was found at each point
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Heads:
    """A call's tensors in one layout, (batch, head, token, channel); `weights` where the model formed them itself.

    With `points` there are no scores: every query weighs points that lie between the tokens that `values` are of.
    """

    values: Tensor
    queries: Tensor | None = None
    keys: Tensor | None = None
    weights: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False
    scale: float = 1.0
    points: Points | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, heads, queries, keys."""
        if self.points is not None:
            batch, heads, keys, _ = self.values.shape
            return batch, heads, self.points.weights.shape[1], keys
        tokens = self.queries if self.weights is None else self.weights
        assert tokens is not None
        return tokens.shape[0], tokens.shape[1], tokens.shape[2], self.values.shape[2]


@dataclass(frozen=True)
class Call:
    """One execution of attention: tokens of `reading` (queries) take from tokens of `read` (keys, values)."""

    index: int
    module: str
    seam: str
    reading: State
    read: State
    queries: int
    keys: int
    heads: int
    kind: str  # the paper's type: A one source, B two sources, C one stream that is already fused
    queries_from: Origin = field(default=Origin(), compare=False)  # what its queries were computed from
    declared: frozenset[str] = field(default=frozenset(), compare=False)  # "reading", "read"

    @property
    def state(self) -> State:
        """The reading stream as it stands after this call."""
        return State(self.reading.stream, self.index)


@dataclass(frozen=True)
class Moved:
    """A stream that begins with the tokens of other states, put elsewhere; `end` of `call` is where it is met."""

    call: int
    end: str  # "reading" or "read"
    sources: tuple[State, ...]


@dataclass(frozen=True)
class Wiring:
    """Which state reads which in each call, and how many tokens each stream has."""

    calls: tuple[Call, ...]
    tokens: Mapping[str, int]
    layouts: Mapping[str, int] = field(default_factory=dict, compare=False)  # the bases of each stream, as bits
    moved: Mapping[str, Moved] = field(default_factory=dict, compare=False)  # by the stream that begins so
    grids: Mapping[str, tuple[tuple[int, int], ...]] = field(
        default_factory=dict, compare=False
    )  # where points are read

    def upstream(self, ends: Iterable[int], moved: bool = True) -> set[int]:
        """All calls that the states after some calls are made of, those calls included; also behind moved tokens."""
        found = set(ends)
        waiting = list(found)
        while waiting:
            call = self.calls[waiting.pop()]
            for before in self._before(call, moved):
                if before not in found:
                    found.add(before)
                    waiting.append(before)
        return found

    def _before(self, call: Call, moved: bool) -> Iterator[int]:
        for state in (call.reading, call.read):
            if state.after is not None:
                yield state.after
            elif moved and state.stream in self.moved:
                yield from (each.after for each in self.moved[state.stream].sources if each.after is not None)

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.tokens)

    @property
    def entered(self) -> dict[str, int]:
        """The streams that are of what entered, and how many tokens each has; what was moved later is no other."""
        return {stream: tokens for stream, tokens in self.tokens.items() if stream not in self.moved}

    def state(self, text: str) -> State:
        """The state that a text such as `pixel_values@5` names; without a number, the stream's last one."""
        stream, _, number = text.rpartition("@")
        if not stream or not number.isdigit():
            stream, number = text, ""
        if stream not in self.tokens:
            raise InputError(f"No stream is called {stream!r}. The streams are {', '.join(self.tokens)}.")
        after = [call.index for call in self.calls if call.reading.stream == stream]
        if number and int(number) not in after:
            raise InputError(f"Call {number} does not write {stream!r}. The calls that do are {after}.")
        return State(stream, int(number) if number else after[-1] if after else None)

    def __str__(self) -> str:
        head = ("call", "module", "seam", "reading <- read", "tokens", "heads", "type")
        rows = [
            (
                str(call.index),
                call.module or "(the model itself)",
                call.seam,
                f"{call.reading} <- {call.read}",
                f"{call.queries} <- {call.keys}",
                str(call.heads),
                call.kind,
            )
            for call in self.calls
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Readout:
    """Where the walk starts: `rows` of a stream as it stands after a call.

    `rows` is an index, a list of them that share the weight 1, or "all": a row of ones, which gives column totals.
    Without `after` the stream's last state is meant.
    """

    stream: str
    after: int | None = None
    rows: int | Sequence[int] | str = 0


@dataclass(frozen=True)
class Explanation:
    """What spoke for a target (+) and against it (-), for every token of every stream; NaN where a method is silent."""

    method: str
    correction: str
    target: str
    value: Tensor
    relevance: Mapping[str, Tensor]  # what flowed: the papers' row minus its start
    starts: Mapping[str, Tensor]  # the part of the row that the walk began with
    wiring: Wiring
    readout: tuple[str, ...]
    predicted: tuple[str | int, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[Shown, ...] = ()  # one per example, where it is known what the tokens are
    pixels: Tensor | None = None  # (batch, height, width) of the model's input, by a method that scores pixels

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.relevance)

    def __getitem__(self, stream: str) -> Tensor:
        """What flowed from each token of a stream, (batch, tokens), signed."""
        if stream not in self.relevance:
            raise InputError(f"No stream is called {stream!r}. The streams are {', '.join(self.relevance)}.")
        return self.relevance[stream]

    def row(self, stream: str) -> Tensor:
        """The papers' row as written: what flowed, and the start of the walk."""
        return self[stream] + self.starts[stream]

    def normalized(self) -> Mapping[str, Tensor]:
        """S / max|S|, each example of each stream by itself; zero stays zero."""
        return {stream: _over_peak(flowed) for stream, flowed in self.relevance.items()}

    def save(self, path: str | Path, **options: Any) -> None:
        """Write the explanation; the suffix decides how: `.heed` opens again, `.png`, `.svg` and `.html` are looked at.

        `options` are those of `heedmap.render.picture`, `svg` or `page`.
        """
        from heedmap.storage import save

        save(self, path, **options)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from heedmap.render import notebook

        return notebook(self)

    def __repr__(self) -> str:
        values = ", ".join(f"{number:.4g}" for number in self.value.flatten()[:4].tolist())
        if self.value.numel() > 4:
            values += ", ..."
        streams = ", ".join(f"{name} {tuple(flowed.shape)}" for name, flowed in self.relevance.items())
        how = self.method if ":" in self.method else f"{self.method}:{self.correction}"
        return f"Explanation({self.target} = [{values}], {how}, {streams})"


def _over_peak(flowed: Tensor) -> Tensor:
    peak = flowed.abs().nan_to_num(0.0).amax(dim=-1, keepdim=True)
    return flowed / peak.where(peak > 0, peak.new_ones(()))


@dataclass(frozen=True)
class Estimate:
    """How much memory an explanation will take beyond the model and its inputs, in bytes."""

    graph: int
    workspace: int

    @property
    def total(self) -> int:
        return self.graph + self.workspace

    def __str__(self) -> str:
        return (
            f"about {self.total / 2**20:,.0f} MiB: {self.graph / 2**20:,.0f} kept for the backward pass, "
            f"{self.workspace / 2**20:,.0f} of workspace"
        )
