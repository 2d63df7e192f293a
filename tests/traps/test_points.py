"""Deformable attention, one step from what it must be: explained as the equations say, or refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sampled import Sampled
from test_traps import LABEL, TO_DO, refused
from torch import Tensor, nn
from towers import CHANNELS, HEADS, Tower, maps
from towers import flowed as stacked

import heedmap
from heedmap import logit
from heedmap.errors import HeedmapError

SIZES = ((3, 4), (2, 2))
COUNT, POINTS = 16, 3
SCALE = 2.0  # of the places: some points lie beyond the grid


class Reader(nn.Module):
    """Deformable attention by hand; every step of it may be exchanged."""

    def __init__(self, **other) -> None:
        super().__init__()
        self.value, self.out = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.weigh = nn.Linear(CHANNELS, HEADS * len(SIZES) * POINTS)
        self.place = nn.Linear(CHANNELS, HEADS * len(SIZES) * POINTS * 2)
        self.other = other
        self.met: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        batch, queries, _ = x.shape
        how = self.other.get
        values = self.value(x if y is None else y).view(batch, -1, HEADS, CHANNELS // HEADS)
        values = how("values", lambda v: v)(values)
        scores = self.weigh(x).view(batch, queries, HEADS, -1)
        weights = how("softmax", lambda s: s.softmax(-1))(scores)
        places = torch.tanh(self.place(x)).view(batch, queries, HEADS, len(SIZES), POINTS, 2) * SCALE
        self.met = weights, places
        found = []
        for level, part in enumerate(values.split([h * w for h, w in SIZES], 1)):
            grid = how("grid", lambda part, size: part.flatten(2).transpose(1, 2).reshape(batch * HEADS, -1, *size))(
                part, SIZES[level]
            )
            at = places[:, :, :, level].transpose(1, 2).flatten(0, 1)
            found.append(F.grid_sample(grid, at, **{"align_corners": False, **how("options", {})}))
        found = how("join", lambda found: torch.stack(found, -2).flatten(-2))(found)
        flat = weights.transpose(1, 2).reshape(batch * HEADS, 1, queries, -1)
        product = how("weighed", lambda found, weights: found * weights)(found, flat)
        output = how("sum", lambda product: product.sum(-1))(product)
        return self.out(output.view(batch, CHANNELS, queries).transpose(1, 2))


def tower(read: Reader, path=None) -> Tower:
    def plain(s, x):
        x = x + s.a(x)
        x = x + read(x)
        x = x + s.b(x)
        return s.head(x[:, 0])

    model = Tower(path or plain)
    model.read = read.eval().double()
    for parameter in read.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, COUNT, CHANNELS, dtype=torch.float64)


def flowed(model: Tower, x: Tensor, shift: int = 0) -> Tensor:
    """(I + b)(I + read)(I + a) - I at the first row, each map from its own gradient."""
    first, last = (each for each in maps(model, (x,), LABEL) if each.shape[-2:] == (COUNT, COUNT))
    value = model(x)[:, LABEL].sum()
    weights, places = model.read.met
    sampled = Sampled(weights, (places + 1) / 2, SIZES)
    (gradient,) = torch.autograd.grad(value, sampled.weights)
    between = torch.from_numpy(sampled.map(gradient.numpy(), "complete")).roll(-shift, -1)
    one = torch.eye(COUNT, dtype=torch.float64)
    return ((one + last) @ (one + between) @ (one + first) - one)[:, 0]


def side_by_side(found):
    return torch.cat(found, -1)


SAME = {
    "stacked": {},
    "side by side": {"join": side_by_side},
    "weights on the left": {"weighed": lambda found, weights: weights * found},
    "torch.mul": {"weighed": torch.mul},
    "reshaped": {"join": lambda found: (s := torch.stack(found, dim=3)).reshape(*s.shape[:3], -1)},
    "sum by keyword": {"sum": lambda product: torch.sum(product, dim=-1)},
}


@pytest.mark.parametrize("name", SAME)
def test_forms_of_one_attention(name):
    model, x = tower(Reader(**SAME[name])), tokens()
    e = heedmap.explain(model, (x,), logit(LABEL))
    assert e.wiring.calls[1].seam == "grid_sample, sum"
    close(e, flowed(model, x))


def test_tokens_in_another_order_are_followed():
    model, x = tower(Reader(values=lambda v: v.roll(1, 1))), tokens()
    close(heedmap.explain(model, (x,), logit(LABEL)), flowed(model, x, shift=1))


def close(e, true: Tensor) -> None:
    torch.testing.assert_close(e[e.streams[0]], true, rtol=0, atol=1e-9 * float(true.abs().max()))


def _gelu_before(found):
    return F.gelu(torch.stack(found, -2).flatten(-2))


def _in_place(found):
    joined = torch.cat(found, -1)
    joined[..., 1:] += joined[..., :1]
    return joined


def _late(found, weights):
    product = found * weights
    product[..., 0] = 0.0
    return product


OTHER = {
    "softmax over queries": {"softmax": lambda s: s.softmax(1)},
    "sigmoid": {"softmax": torch.sigmoid},
    "softmax level by level": {"softmax": lambda s: s.unflatten(-1, (len(SIZES), -1)).softmax(-1).flatten(-2)},
    "activation between": {"join": _gelu_before},
    "changed in place": {"join": _in_place},
    "product changed in place": {"weighed": _late},
    "points in another order": {"join": lambda found: torch.cat(found, -1).flip(-1)},
    "points twice": {"weighed": lambda found, weights: found * weights * weights},
    "mean": {"sum": lambda product: product.mean(-1)},
    "the best point": {"sum": lambda product: product.amax(-1)},
    "tokens mixed": {"values": lambda v: v + v.roll(1, 1)},
    "columns before rows": {
        "grid": lambda part, size: part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, size[::-1]).transpose(-1, -2)
    },
    "bicubic": {"options": {"mode": "bicubic"}},
}


@pytest.mark.parametrize("name", OTHER)
def test_one_step_from_it_is_refused(name):
    refused(tower(Reader(**OTHER[name])), tokens(), HeedmapError, TO_DO)


def test_a_grid_sampled_without_attention_is_refused():
    def path(s, x):
        x = x + s.a(x)
        grid = x[:, :12].transpose(1, 2).unflatten(-1, (3, 4))
        where = torch.tanh(s.head(x)[..., :2])[:, :, None]
        x = x + F.grid_sample(grid, where, align_corners=False)[..., 0].transpose(1, 2)
        return s.head((x + s.b(x))[:, 0])

    refused(tower(Reader(), path), tokens(), HeedmapError, TO_DO)


@pytest.mark.parametrize(
    ("mode", "padding"), [("bilinear", "border"), ("bilinear", "reflection"), ("nearest", "zeros")]
)
def test_rows_keep_their_sums(mode, padding):
    """However points are read between tokens, all of them is shared out."""
    model, x = tower(Reader(options={"mode": mode, "padding_mode": padding})), tokens(1)
    model.path = lambda s, x: s.head((x + s.read(x))[:, 0])
    e = heedmap.explain(model, (x,), logit(LABEL))
    value = model(x)[:, LABEL].sum()
    weights, _ = model.read.met
    (gradient,) = torch.autograd.grad(value, weights)
    total = (gradient * weights).detach()[:, 0].sum() / HEADS
    torch.testing.assert_close(e[e.streams[0]].sum(), total)


# -- stacks, chosen tokens, scores of two directions -------------------------------------------------------------------


def layers(s, x):
    """The states after each attention, stacked as detectors do."""
    states = []
    for attend in (s.a, s.b, s.c):
        x = x + attend(x)
        states.append(x)
    return states


PICKED = {
    "the last": lambda states: torch.stack(states)[-1],
    "by ellipsis": lambda states: torch.stack(states, -1)[..., 2],
    "along examples": lambda states: torch.stack(states, dim=1)[:, 2],
    "select": lambda states: torch.stack(states, 1).select(1, -1),
    "unbind": lambda states: torch.stack(states).unbind()[-1],
    "stacked twice": lambda states: torch.stack([torch.stack(states)[-1], states[0]])[0],
}


@pytest.mark.parametrize("name", PICKED)
def test_what_is_picked_from_a_stack_is_what_it_was(name):
    model, x = Tower(lambda s, x: s.head(PICKED[name](layers(s, x))[:, 0])), tokens()
    found = maps(model, (x,), LABEL)
    one = torch.eye(COUNT, dtype=torch.float64)
    close(
        heedmap.explain(model, (x,), logit(LABEL)), ((one + found[2]) @ (one + found[1]) @ (one + found[0]) - one)[:, 0]
    )


def _overwritten(states):
    stacked = torch.stack(states)
    stacked[-1] = states[0]
    return stacked[-1] + 0.0


NOT_PICKED = {
    "a mean": lambda states: torch.stack(states).mean(0),
    "two of them": lambda states: torch.stack(states)[1:].sum(0),
    "by a tensor": lambda states: torch.stack(states)[torch.tensor([0, 2])].sum(0),
    "an older one beside it": lambda states: torch.stack(states)[-1] + torch.stack(states)[0].roll(1, 1),
    "along tokens": lambda states: torch.stack(states, 1)[:, :, 0],
}


@pytest.mark.parametrize("name", NOT_PICKED)
def test_several_of_a_stack_are_refused(name):
    refused(Tower(lambda s, x: s.head(NOT_PICKED[name](layers(s, x))[:, 0].flatten(1)[:, :CHANNELS])), tokens(),
            HeedmapError, "heedmap expected")  # fmt: skip


def test_a_stack_that_was_written_to_is_what_was_written():
    model, x = Tower(lambda s, x: s.head(_overwritten(layers(s, x))[:, 0])), tokens()
    with pytest.raises(HeedmapError):
        heedmap.explain(model, (x,), logit(LABEL))


def chosen(s, x, follow=None):
    """The best tokens, detached, ask again: a detector of two stages."""
    x = x + s.a(x)
    best = s.head(x).amax(-1).topk(4, 1).indices[..., None].expand(-1, -1, CHANNELS)
    picked = x.gather(1, best)
    return x, picked


def test_tokens_that_are_chosen_and_detached_are_a_stream():
    def path(s, x):
        x, picked = chosen(s, x)
        queries = picked.detach()
        queries = queries + s.b(queries)
        queries = queries + s.c(queries, x)
        return s.head(queries[:, 0])

    model, x = Tower(path), tokens()
    e = heedmap.explain(model, (x,), logit(LABEL))
    first, among, across = maps(model, (x,), LABEL)
    one = torch.eye(COUNT, dtype=torch.float64)
    assert e.streams == ("x", "x (detached)")
    torch.testing.assert_close(e["x (detached)"], among[:, 0])
    torch.testing.assert_close(e["x"], (across @ (one + first))[:, 0])


BESIDE = {
    "what they were goes on beside them": lambda s, x, picked: picked + s.b(picked.detach()),
    "read alone": lambda s, x, picked: picked + s.b(picked, picked.detach()),
}


@pytest.mark.parametrize("name", BESIDE)
def test_chosen_tokens_that_are_detached_in_part_go_both_ways(name):
    best = {}

    def path(s, x):
        x, picked = chosen(s, x)
        best["row"] = (picked[:, :1] == x).all(-1).float().argmax(1)
        return s.head(BESIDE[name](s, x, picked)[:, 0])

    model, x = Tower(path), tokens()
    e = heedmap.explain(model, (x,), logit(LABEL))
    first, among = maps(model, (x,), LABEL)
    torch.testing.assert_close(e["x (detached)"], among[:, 0])
    torch.testing.assert_close(e["x"], first[torch.arange(2), best["row"]])


@pytest.mark.parametrize("further", ["attends again", "asks detached"])
def test_chosen_tokens_of_which_two_states_are_made_are_refused(further):
    def path(s, x):
        x, picked = chosen(s, x)
        if further == "asks detached":
            return s.head((picked + s.b(picked.detach(), picked))[:, 0])
        queries = picked + s.b(picked.detach())
        return s.head((queries + s.c(queries))[:, 0])

    refused(Tower(path), tokens(), HeedmapError, "heedmap expected")


def test_one_product_may_be_the_scores_of_two_directions():
    """Both sides of a fusion read each other as they were."""

    def path(s, x, y):
        x, y = x + s.a(x), y + s.b(y)
        scores = s.c.q(x) @ s.c.k(y).transpose(1, 2)
        left, right = scores.softmax(-1), scores.transpose(1, 2).softmax(-1)
        return s.head((x + left @ y)[:, 0]) + s.head2((y + right @ x)[:, 0])

    model = Tower(path)
    x, y = tokens(), torch.randn(2, 5, CHANNELS, dtype=torch.float64)
    of_x, of_y, left, right = maps(model, (x, y), LABEL)
    e = heedmap.explain(model, (x, y), logit(LABEL))
    a, b = torch.eye(COUNT).double(), torch.eye(5).double()
    torch.testing.assert_close(e["x"], of_x[:, 0] + (right @ (a + of_x))[:, 0])
    torch.testing.assert_close(e["y"], of_y[:, 0] + (left @ (b + of_y))[:, 0])


WRITTEN = {
    "channels": lambda z, y: z.__setitem__((..., slice(2, 4)), y[..., :2]),
    "one channel": lambda z, y: z.__setitem__((..., 3), y[..., 0]),
}
ELSEWHERE = {
    "channels of rolled tokens": lambda z, y: z.__setitem__((..., slice(2, 4)), y.roll(1, 1)[..., :2]),
    "tokens": lambda z, y: z.__setitem__((slice(None), slice(1, None)), y[:, :-1]),
}


@pytest.mark.parametrize("name", [*WRITTEN, *ELSEWHERE])
def test_channels_that_are_written_over_stay_where_they_are(name):
    def path(s, x):
        y = x + s.a(x)
        z = y * 0.5
        (WRITTEN | ELSEWHERE)[name](z, y)
        return s.head((z + s.b(z))[:, 0])

    model, x = Tower(path), tokens()
    if name in ELSEWHERE:
        refused(model, x, HeedmapError, "heedmap expected")
    else:
        close(heedmap.explain(model, (x,), logit(LABEL)), stacked(maps(model, (x,), LABEL)))
