"""Models that would give a plausible, wrong map: each is refused with what to do, or explained rightly."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from towers import CHANNELS, TOKENS, Tower, flowed, maps, moved, tokens

import heedmap
from heedmap import logit
from heedmap.errors import (
    DisconnectedError,
    GradientError,
    HeedmapError,
    InputError,
    MixedTokensError,
    NoAttentionError,
    NotEvalError,
    ReadoutError,
    UnsupportedError,
    WiringError,
)

LABEL = 1
TO_DO = r"heedmap expected.*(wiring=|readout=)"


def refused(model, inputs, error, says, target=None, **options):
    """Refused, with a message that says what to do."""
    inputs = inputs if isinstance(inputs, (tuple, dict)) else (inputs,)
    with pytest.raises(error, match=says) as caught:
        heedmap.explain(model, inputs, logit(LABEL) if target is None else target, **options)
    assert isinstance(caught.value, HeedmapError)
    return caught.value


def right(model, inputs, true, stream=None, rtol=1e-9, **options):
    """Explained, as the dense equations say."""
    inputs = inputs if isinstance(inputs, (tuple, dict)) else (inputs,)
    e = heedmap.explain(model, inputs, logit(LABEL), **options)
    found = e[stream or e.streams[0]]
    assert found.shape == true.shape
    torch.testing.assert_close(found, true.to(found), rtol=0, atol=float(true.abs().max()) * rtol)


def right_or_refused(model, x, *true):
    """Explained, each stream as the dense equations say, or refused with a message that says what to do."""
    try:
        e = heedmap.explain(model, (x,), logit(LABEL))
    except HeedmapError as error:
        met = str(error)
    else:
        assert len(e.streams) == len(true), e.streams
        for stream, each in zip(e.streams, true, strict=True):
            torch.testing.assert_close(e[stream], each)
        return
    assert re.search(TO_DO, met), met


def plain(s, x):
    for attend in (s.a, s.b, s.c):
        x = x + attend(x)
    return s.head(x[:, 0])


def finish(s, x, *attends):
    for attend in attends:
        x = x + attend(x)
    return s.head(x[:, 0])


def test_a_plain_stack_is_right():
    model, x = Tower(plain), tokens()
    true = flowed(maps(model, (x,), LABEL))
    right(model, x, true)


# -- between calls -----------------------------------------------------------------------------------------------------


def between(step):
    return lambda s, x: finish(s, step(s, x + s.a(x)), s.b, s.c)


SWAPPED = [1, 0, *range(2, TOKENS)]
BETWEEN = {
    "convolution": lambda s, x: s.convolve(x),
    "convolution beside": lambda s, x: x + s.convolve(x),
    "token-mixing linear": lambda s, x: x + s.mix(x),
    "examples mixed": lambda s, x: x + x.mean(0, keepdim=True),
    "examples turned": lambda s, x: x.roll(1, 0),
    "running sum": lambda s, x: x + x.cumsum(1),
    "mean added": lambda s, x: x + x.mean(1, keepdim=True),
    "linear attention": lambda s, x: x + x.softmax(-1) @ (x.softmax(1).transpose(1, 2) @ x),
    "sigmoid attention": lambda s, x: x + (x @ x.transpose(1, 2)).sigmoid() @ x,
    "softmax over the wrong axis": lambda s, x: x + (x @ x.transpose(1, 2)).softmax(1) @ x,
    "softmax of another": lambda s, x: x + ((x @ x.mT).softmax(-1) + (x @ x.mT / 2).softmax(-1)) @ x,
    "softmax and a sum": lambda s, x: x + ((x @ x.mT).softmax(-1)[..., None] * x[:, None]).sum(-2),
    "channels as tokens": lambda s, x: x.reshape(len(x), CHANNELS, TOKENS).transpose(1, 2),
}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("batch", [1, 2])
def test_tokens_mixed_between_calls_are_refused(name, batch):
    if batch == 1 and name.startswith("examples"):
        pytest.skip("one example alone")
    refused(Tower(between(BETWEEN[name])), tokens(batch), WiringError, "wiring=")


IDENTITY = torch.eye(TOKENS, dtype=torch.float64)
MOVES = {
    "rolled": (lambda x: x.roll(1, 1), IDENTITY.roll(1, 0)),
    "flipped": (lambda x: x.flip(1), IDENTITY.flip(0)),
    "two tokens swapped": (lambda x: x[:, SWAPPED], IDENTITY[SWAPPED]),
    "the last two dropped": (lambda x: x[:, :-2], IDENTITY[:-2]),
    "some picked": (lambda x: torch.index_select(x, 1, torch.tensor([4, 0, 2])), IDENTITY[[4, 0, 2]]),
    "in windows and back": (
        lambda x: x[:, :4].unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2), IDENTITY[[0, 2, 1, 3]]
    ),
    "one put before": (lambda x: torch.cat([x.detach()[:, :1] * 0 + 1, x], 1), F.pad(IDENTITY, (0, 0, 1, 0))),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", MOVES)
def test_tokens_moved_between_calls_are_followed(name, batch):
    move, matrix = MOVES[name]
    model, x = Tower(between(lambda s, x: move(x))), tokens(batch)
    right(model, x, moved(maps(model, (x,), LABEL), {0: matrix}))


def test_tokens_picked_by_what_they_say_are_followed():
    def path(s, x):
        x = x + s.a(x)
        order = x[..., 0].argsort(1)[:, :6]
        return finish(s, x.gather(1, order[..., None].expand(-1, -1, CHANNELS)), s.b)

    model, x = Tower(path), tokens()
    order = (x + model.a(x))[..., 0].argsort(1)[:, :6]
    right(model, x, moved(maps(model, (x,), LABEL), {0: IDENTITY[order]}))


def test_where_tokens_are_drawn_to_is_where_one_forward_pass_puts_them():
    model, x = Tower(between(lambda s, x: x[:, torch.randperm(TOKENS)])), tokens()
    torch.manual_seed(5)
    value = model(x)[:, LABEL]
    torch.manual_seed(5)
    torch.testing.assert_close(heedmap.explain(model, (x,), logit(LABEL)).value, value.detach())


def test_tokens_that_become_one_share_what_reaches_it():
    """The walk of the halves, told apart by where their gradients are: the sum stays, and each has its part."""

    def path(s, x):
        x = x + s.a(x)
        return finish(s, torch.cat([x[:, :1], (x[:, 1::2] + 3 * x[:, 2::2]) / 4], 1), s.b)

    model, x = Tower(path), tokens()
    first, second = maps(model, (x,), LABEL)
    share = torch.zeros(1 + (TOKENS - 1) // 2, TOKENS, dtype=torch.float64)
    share[0, 0] = 1
    for new in range(1, len(share)):
        share[new, 2 * new - 1], share[new, 2 * new] = 0.25, 0.75  # of the gradient's size, which the weights scale
    right(model, x, moved([first, second], {0: share}))


@pytest.mark.parametrize("count", [9, 40, 60])
def test_every_swap_of_two_tokens_is_followed(count):
    """The numbers of tokens must differ from one another; so must the rows of the probe, where swaps are refused."""
    pairs = [(i, j) for i in range(count) for j in range(i)]
    found = []
    order = torch.arange(count)

    def path(s, x):
        y = x + s.a(x)
        return finish(s, y[:, order], s.b)

    model, x = Tower(path), tokens(1, count)
    step = max(1, len(pairs) // 250)
    for i, j in pairs[::step]:
        order = torch.arange(count)
        order[i], order[j] = j, i
        right(model, x, moved(maps(model, (x,), LABEL), {0: torch.eye(count, dtype=torch.float64)[order]}))
        try:
            heedmap.explain(model, x, logit(LABEL), verify="always", method="tam")
        except WiringError:
            continue
        found.append((i, j))
    assert not found


def test_tokens_of_two_depths_spliced_are_followed():
    def path(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        y = y + s.b(y)
        return finish(s, torch.cat([y[:, :1], x[:, 1:]], 1), s.c)

    model, x = Tower(path), tokens()
    a, b, again, c = maps(model, (x,), LABEL)
    older = IDENTITY + a
    newer = older + b @ older
    newer = newer + again @ newer
    spliced = torch.cat([newer[:, :1], older[:, 1:]], 1)
    right(model, x, (spliced + c @ spliced - IDENTITY)[:, 0])


def test_an_older_state_put_elsewhere_on_top_of_a_newer_one_is_refused():
    """Two states at one place, and neither holds the other there."""

    def path(s, x):
        x = x + s.a(x)
        y = s.b(x)  # no residual branch
        return finish(s, y + x.roll(1, 1), s.c)

    refused(Tower(path), tokens(), WiringError, "wiring=")


def test_a_view_kept_through_an_addition_in_place():
    def path(s, x):
        x = x + s.a(x)
        flat = x.view(-1, CHANNELS)
        x += s.b(x)
        return finish(s, flat.view(x.shape), s.c)

    model, x = Tower(path), tokens()
    true = flowed(maps(model, (x,), LABEL))
    right(model, x, true)


def test_additions_in_place_are_right():
    def path(s, x):
        y = s.a(x)
        y += x
        y += s.b(y)
        y.add_(s.c(y))
        return s.head(y[:, 0])

    model, x = Tower(path), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))


def test_two_attentions_beside_one_another_are_refused():
    refused(Tower(lambda s, x: finish(s, x + s.a(x) + s.b(x), s.c)), tokens(), WiringError, "two calls read one state")


def test_attention_and_mlp_beside_one_another_are_right():
    def path(s, x):
        for attend in (s.a, s.b, s.c):
            x = x + attend(x) + F.gelu(s.conv(x.transpose(1, 2)[..., :1]).mean() * 0 + x) * 0.3
        return s.head(x[:, 0])

    def tokenwise(s, x):
        for attend in (s.a, s.b, s.c):
            x = x + attend(x) + F.gelu(attend.q(x))
        return s.head(x[:, 0])

    model, x = Tower(tokenwise), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))
    refused(Tower(path), x, WiringError, "wiring=")


def test_a_declared_stream_ends_the_walk_after_a_convolution():
    """What the refusal says to do, works."""
    path = lambda s, x: s.head((lambda y: y + s.b(y))(s.convolve(x + s.a(x)))[:, 0])  # noqa: E731
    model, x = Tower(path), tokens()
    (_, last) = maps(model, (x,), LABEL)
    right(model, x, last[:, 0], "after", wiring={1: {"reading": "after", "read": "after"}})


# -- before and in the first call --------------------------------------------------------------------------------------


FIRST = {
    "keys and values cut differently": lambda s, x: s.a(x[:, :-1], x[:, :-1], x[:, 1:]) + x[:, :-1],
    "keys indexed": lambda s, x: x + s.a(x, x[:, SWAPPED]),
    "keys mixed by a linear": lambda s, x: x + s.a(x, s.mix(x)),
    "keys of the other example": lambda s, x: x + s.a(x, x[[1, 0]]),
    "residual indexed": lambda s, x: x[:, SWAPPED] + s.a(x),
    "residual mixed by a linear": lambda s, x: s.mix(x) + s.a(x),
    "queries rolled": lambda s, x: x + s.a(x.roll(1, 1), x),
    "values rolled": lambda s, x: x + s.a(x, x, x.roll(1, 1)),
    "columns before rows": lambda s, x: x + s.a(x, x.unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)),
}


@pytest.mark.parametrize("name", FIRST)
def test_tokens_moved_in_the_first_call_are_refused(name):
    refused(Tower(lambda s, x: finish(s, FIRST[name](s, x), s.b)), tokens(), WiringError, "wiring=")


UNSEEN = {
    "softmax and a sum": BETWEEN["softmax and a sum"],
    "einsum with an ellipsis": lambda s, x: x + torch.einsum("...qk,...kd->...qd", (x @ x.mT).softmax(-1), x),
    "mm": lambda s, x: x + torch.stack([torch.mm((t @ t.T).softmax(-1), t) for t in x]),
    "sum of two softmaxes": BETWEEN["softmax of another"],
    "sigmoid": BETWEEN["sigmoid attention"],
    "a running sum": lambda s, x: x + x.cumsum(1),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_attention_that_no_seam_sees_before_the_first_call_is_refused(name):
    path = lambda s, x: finish(s, UNSEEN[name](s, x), s.a, s.b)  # noqa: E731
    refused(Tower(path), tokens(), HeedmapError, "declare|Declare|wiring=|seam|form")


MERGED = {
    "side by side": lambda s, x, y: s.a(x, torch.cat([x, y], 1)),
    "values rolled": lambda s, x, y: s.a(x, torch.cat([x, y], 1), torch.cat([x, y], 1).roll(1, 1)),
    "keys of others besides": lambda s, x, y: s.a(
        x, torch.cat([x, y], 1) + torch.cat([y[:, :4], y], 1), torch.cat([x, y], 1)
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_own_tokens_and_those_of_another_state_read_as_one(name):
    """As a decoder that reads itself and the encoder in one call."""

    def path(s, x, y):
        y = y + s.b(y)
        x = x + MERGED[name](s, x, y)
        return s.head((x + s.c(x))[:, 0])

    model, inputs = Tower(path), (tokens(2, 4), tokens())
    if name != "side by side":
        refused(model, inputs, WiringError, "wiring=")
        return
    b, a, c = maps(model, inputs, LABEL)
    other = torch.eye(TOKENS, dtype=b.dtype) + b
    after = torch.cat([torch.eye(4, dtype=a.dtype) + a[..., :4], a[..., 4:] @ other], -1)
    true = (after + c @ after)[:, 0]
    e = heedmap.explain(model, inputs, logit(LABEL))
    torch.testing.assert_close(e["x"], true[:, :4] - torch.eye(4, dtype=a.dtype)[0])
    torch.testing.assert_close(e["y"], true[:, 4:])


WRITTEN = {
    "marked": lambda x: x.masked_fill(torch.arange(TOKENS)[:, None] == 3, 0.5),
    "marked in place": lambda x: _written(x, torch.arange(TOKENS) == 3, torch.full((1, CHANNELS), 0.5)),
    "moved in place": lambda x: _written(x, slice(1, None), x[:, :-1].clone()),
}


def _written(x, where, what):
    x = x * 1.0
    x[:, where] = what.to(x)
    return x


@pytest.mark.parametrize("name", WRITTEN)
def test_tokens_written_over_before_the_first_call_are_right_where_none_is_moved(name):
    model, x = Tower(lambda s, x: finish(s, WRITTEN[name](s.embed(x)), s.a, s.b)), torch.tensor([[*range(TOKENS)]])
    model.embed = torch.nn.Embedding(20, CHANNELS, dtype=torch.float64)
    if name == "moved in place":
        refused(model, x, WiringError, "wiring=")
    else:
        right(model, x, flowed(maps(model, (x,), LABEL)))


def test_two_halves_that_read_one_another_are_followed():
    def path(s, x):
        a, b = x.chunk(2, 1)
        return finish(s, a + s.a(a, b), s.b)

    model, x = Tower(path), tokens(2, 2 * TOKENS)
    first, second = maps(model, (x,), LABEL)
    across = (second[:, :1] @ first + first[:, :1])[:, 0]
    right(model, x, torch.cat([second[:, 0], across], 1))


def test_a_stream_that_reads_itself_one_on_is_followed():
    path = lambda s, x: finish(s, s.a(x[:, :-1], x[:, 1:]) + x[:, :-1], s.b)  # noqa: E731
    model, x = Tower(path), tokens()
    first, second = maps(model, (x,), LABEL)
    read = IDENTITY[:-1] + first @ IDENTITY[1:]
    right(model, x, (read + second @ read - IDENTITY[:-1])[:, 0])


def test_two_views_encoded_by_one_tower_are_not_summed():
    def path(s, x):
        return sum(finish(s, each, s.a, s.b) for each in x.unbind(1))

    model, x = Tower(path), tokens(4).reshape(2, 2, TOKENS, CHANNELS)
    found = maps(model, (x,), LABEL)
    try:
        e = heedmap.explain(model, (x,), logit(LABEL))
    except HeedmapError:
        return
    torch.testing.assert_close(e[e.streams[0]], torch.cat([flowed(found[:2]), flowed(found[2:])], 1))


def test_two_inputs_of_equal_length_stay_two_streams():
    """Queries that also know one token of the image are not the image's."""

    def path(s, text, image):
        return finish(s, text + s.a(text + image[:, :1], image), s.b)

    try:
        e = heedmap.explain(Tower(path), (tokens(), tokens()), logit(LABEL))
    except HeedmapError:
        return
    assert len(e.streams) == 2, e.streams


def test_a_flipped_copy_is_a_stream_of_its_own_or_refused():
    def path(s, x):
        return finish(s, x, s.a, s.b) + finish(s, x[:, list(range(TOKENS - 1, -1, -1))], s.a, s.b)

    try:
        e = heedmap.explain(Tower(path), tokens(), logit(LABEL))
    except HeedmapError:
        return
    assert len(e.streams) == 2, e.streams


def test_convolutional_projections_are_refused():
    path = lambda s, x: finish(  # noqa: E731
        s, x + s.a(s.convolve(x), s.conv_k(x.mT).mT, s.convolve(x)), s.b
    )
    refused(Tower(path), tokens(), WiringError, "wiring=")
    later = lambda s, x: finish(  # noqa: E731
        s, (lambda y: y + s.b(s.convolve(y), s.conv_k(y.mT).mT, s.convolve(y)))(x + s.a(x)), s.c
    )
    refused(Tower(later), tokens(), WiringError, "wiring=")


def test_queries_mixed_where_scores_are_no_single_product():
    """Scores of content and position, or of distances: the probe must see the queries all the same."""

    def distances(q, k, v):
        return (-torch.cdist(q, k)).softmax(-1) @ v

    def two_products(q, k, v):
        return (q @ k.mT + q @ k.mean((0, 2), keepdim=True).detach().expand_as(k).mT).softmax(-1) @ v

    for core in (distances, two_products):
        path = lambda s, x: finish(s, (lambda y: y + s.b(y[:, SWAPPED], y))(x + s.a(x)), s.c)  # noqa: E731
        refused(Tower(path, core), tokens(), WiringError, "wiring=")


# -- after the last call ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax and a sum", "sigmoid attention", "linear attention"])
@pytest.mark.parametrize("dropped", [0, 1])
def test_attention_that_no_seam_sees_after_the_last_call_is_refused(name, dropped):
    def path(s, x):
        x = x + s.a(x)
        x = x + s.b(x)
        return s.head(BETWEEN[name](s, x[:, dropped:])[:, 0])

    refused(Tower(path), tokens(), (ReadoutError, WiringError), "readout=|wiring=")


@pytest.mark.parametrize("dropped", [0, 1])
def test_pooling_by_attention_is_refused(dropped):
    def path(s, x):
        x = (x + s.a(x))[:, dropped:]
        weights = s.head(x)[..., :1].softmax(1)
        return s.head((weights * x).sum(1))

    refused(Tower(path), tokens(), ReadoutError, "readout=")


def test_classes_as_many_as_tokens_are_no_attention():
    def path(s, x):
        x = x + s.a(x)
        return s.mixing(torch.cat([x[:, 0], x[:, 0, :1]], -1)).softmax(-1)

    model, x = Tower(path), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)[:1]))


def test_two_depths_are_refused():
    def path(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        y = y + s.c(y)
        return s.head(y[:, 0]) + s.head2(x[:, 0])

    refused(Tower(path), tokens(), ReadoutError, "readout=")


def test_consecutive_depths_are_refused():
    def path(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        return s.head(y[:, 0]) + s.head2(x[:, 0])

    refused(Tower(path), tokens(), ReadoutError, "readout=")


def test_two_depths_by_a_mean_are_refused():
    def path(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        return s.head(torch.cat([y, x], 1).mean(1))

    refused(Tower(path), tokens(), ReadoutError, "readout=")


def test_two_depths_of_stacked_states_are_refused():
    def path(s, x):
        x = x + s.a(x)
        both = torch.stack([x, x + s.b(x)])
        return s.head(both[1, :, 0]) + s.head2(both[0, :, 1])

    refused(Tower(path), tokens(), ReadoutError, "readout=")


def test_two_depths_without_residual_are_refused():
    def path(s, x):
        x = s.a(x)
        y = s.c(s.b(x))
        return s.head(y[:, 0]) + s.head2(x[:, 2])

    refused(Tower(path), tokens(), ReadoutError, "readout=")


def test_a_mean_beside_the_last_call_is_refused():
    """Pooling by attention plus pooling by mean: the mean reads the state before."""

    def path(s, x):
        x = x + s.a(x)
        return s.head(s.b(x)[:, 0] + x.mean(1))

    refused(Tower(path), tokens(), ReadoutError, "readout=")


@pytest.mark.parametrize("calls", [1, 2])
def test_a_residual_rolled_at_the_last_call_is_refused(calls):
    def path(s, x):
        x = x + s.a(x) if calls == 2 else x
        return s.head((x.roll(1, 1) + s.b(x))[:, 0])

    refused(Tower(path), tokens(), (ReadoutError, WiringError), "readout=|wiring=")


CHANNELS_FIRST = {
    "as it is": lambda x: x.mT,
    "rolled": lambda x: x.mT.roll(1, -1),
    "pooled": lambda x: x.mT.mean(-1, keepdim=True),
    "mixed": lambda x: x.mT @ torch.ones(TOKENS, TOKENS, dtype=x.dtype),
}


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_a_residual_with_channels_first_is_right_where_its_tokens_stay(name):
    def path(s, x):
        x = x + s.a(x)
        return s.head((s.b(x).mT + CHANNELS_FIRST[name](x)).mT[:, 0])

    model, x = Tower(path), tokens()
    if name == "as it is":
        right(model, x, flowed(maps(model, (x,), LABEL)))
    else:
        refused(model, x, ReadoutError, "readout=")


def test_heads_side_by_side_are_right_and_depths_side_by_side_are_refused():
    def path(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        return torch.stack([s.head(y), s.head2(y)], 1)[:, :, 0].sum(1)

    model, x = Tower(path), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))

    def deep(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        return torch.stack([s.head(y), s.head2(x)], 1)[:, :, 0].sum(1)

    refused(Tower(deep), x, ReadoutError, "readout=")


def routed(x, back=True):
    """Tokens in the order of their first channel, worked on, and put back where they were."""
    order = x[..., :1].argsort(1).expand_as(x)
    worked = x.gather(1, order).sin()
    return torch.zeros_like(x).scatter(1, order, worked) if back else worked


def test_tokens_sorted_and_put_back_behind_the_last_call_are_right_where_one_row_is_read():
    def behind(s, x):
        x = x + s.a(x)
        x = x + s.b(x)
        return x + routed(x)

    model, x = Tower(lambda s, x: s.head(behind(s, x)[:, 1])), tokens()
    for _ in range(2):  # the second time without a probe
        right(model, x, flowed(maps(model, (x,), LABEL), row=1))
    refused(Tower(lambda s, x: s.head(behind(s, x)[:, :2].sum(1))), x, ReadoutError, "readout=")
    refused(Tower(lambda s, x: s.head(behind(s, x).mean(1))), x, ReadoutError, "readout=")


@pytest.mark.parametrize("back", [True, False])
def test_tokens_sorted_beside_the_last_call_are_right_where_they_are_put_back(back):
    def path(s, x):
        x = x + s.a(x)
        return s.head((x + s.b(x) + routed(x, back))[:, 1])

    model, x = Tower(path), tokens(1)
    if back:
        right(model, x, flowed(maps(model, (x,), LABEL), row=1))
    else:
        refused(model, x, ReadoutError, "readout=")


def test_two_depths_with_another_input_beside_are_refused():
    def path(s, x, extra):
        x = x + s.a(x)
        y = x + s.b(x)
        return s.head(y[:, 0]) + s.head2(x[:, 0] + extra)

    refused(Tower(path), (tokens(), tokens()[:, 0]), ReadoutError, "readout=")


def test_a_target_over_hidden_states_of_two_depths_is_refused():
    class States(Tower):
        def forward(self, x):
            y = x + self.a(x)
            return {"logits": self.head(y[:, 0]), "hidden": (x, y, y + self.b(y))}

    model, x = States(plain), tokens()
    both = lambda o: o["hidden"][2][:, 0, 0] + o["hidden"][1][:, 0, 0]  # noqa: E731
    means = lambda o: sum(h.mean((1, 2)) for h in o["hidden"])  # noqa: E731
    stacked = lambda o: torch.stack(o["hidden"]).mean((0, 2, 3))  # noqa: E731
    for target in (both, means, stacked):
        refused(model, x, ReadoutError, "readout=", target)
    assert heedmap.explain(model, x, lambda o: o["hidden"][1][:, 0, 0]).readout == ("x@0, row 0",)


# -- words that are looked up again -----------------------------------------------------------------------------------

AGAIN = {
    "as given": lambda again, ids: again(ids),
    "rolled": lambda again, ids: again(ids.roll(1, 1)),
    "shifted": lambda again, ids: again(F.pad(ids[:, :-1], (1, 0))),
    "picked by a list": lambda again, ids: again(ids[:, SWAPPED]),
    "summed up": lambda again, ids: again(ids.cumsum(1).clamp(max=19)),
    "rolled afterwards": lambda again, ids: again(ids).roll(1, 1),
    "pooled": lambda again, ids: again(ids).mean(1, keepdim=True),
}


@pytest.mark.parametrize("place", ["between", "behind"])
@pytest.mark.parametrize("name", AGAIN)
def test_words_looked_up_again_are_right_where_they_are_those_of_their_tokens(name, place):
    """A second table of the same words, read between two layers and behind the last one."""

    def path(s, ids):
        x = s.embed(ids)
        x = x + s.a(x)
        x = x + s.conv.bias * AGAIN[name](s.again, ids) if place == "between" else x
        x = x + s.b(x)
        x = x * AGAIN[name](s.again, ids) if place == "behind" else x
        return s.head(x[:, 1])

    model = Tower(path)
    model.embed, model.again = (torch.nn.Embedding(20, CHANNELS, dtype=torch.float64) for _ in range(2))
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5]])
    true = flowed(maps(model, (ids,), LABEL), row=1)
    if name == "as given":
        right(model, ids, true)
    elif place == "between":
        refused(model, ids, WiringError, "wiring=")
    else:
        right_or_refused(model, ids, true)


def test_tokens_as_they_entered_beside_the_last_state_are_right_where_its_residual_branch_is_there():
    def gated(s, x):
        y = x + s.a(x)
        y = y + s.b(y)
        return s.head((y + y * s.conv.bias * x)[:, 0])

    def skipped(s, x):
        y = x + s.a(x)
        y = s.b(y) + x  # what the first call gave is not handed on
        return s.head((y + y * x)[:, 0])

    def of_others(s, x):
        y = x + s.a(x)
        y = y + s.b(y)
        return s.head((y + y * x.roll(1, 1))[:, 0])

    model, x = Tower(gated), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))
    refused(Tower(skipped), x, ReadoutError, "readout=")
    refused(Tower(of_others), x, ReadoutError, "readout=")


# -- windows, heads, batch --------------------------------------------------------------------------------------------

WINDOWS, WIDTH = 4, 5


class Windows(nn.Module):
    """Attention in windows of an image, always the same ones."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.qkv = nn.ModuleList(nn.Linear(CHANNELS, 3 * CHANNELS) for _ in range(2))
        self.mha = nn.ModuleList(nn.MultiheadAttention(CHANNELS, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(CHANNELS, 5)
        self.eval().double()

    def forward(self, x):
        for qkv, mha in zip(self.qkv, self.mha, strict=True):
            if self.form == "heads":
                q, k, v = qkv(x.unflatten(1, (WINDOWS, WIDTH))).chunk(3, -1)
            else:
                q, k, v = qkv(x.reshape(-1, WIDTH, CHANNELS)).chunk(3, -1)
            if self.form == "module":
                y = x.reshape(-1, WIDTH, CHANNELS)
                y = mha(y, y, y)[0]
            elif self.form == "fused":
                y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
            else:
                y = (q @ k.mT).softmax(-1) @ v
            x = x + y.reshape(x.shape)
        return self.head(x[:, 0])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("form", ["batch", "heads", "module", "fused"])
def test_windows_are_refused(form, batch):
    model = Windows(form)
    refused(model, tokens(batch, WINDOWS * WIDTH), (InputError, WiringError), "heedmap expected")


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 4, 5)])
def test_rows_and_columns_are_refused(shape):
    class Axial(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.ModuleList(nn.Linear(CHANNELS, 3 * CHANNELS) for _ in range(4))
            self.head = nn.Linear(CHANNELS, 5)

        def forward(self, x):
            for i, qkv in enumerate(self.qkv):
                y = x.transpose(1, 2) if i % 2 else x
                q, k, v = qkv(y).chunk(3, -1)
                y = (q @ k.mT).softmax(-1) @ v
                x = x + (y.transpose(1, 2) if i % 2 else y)
            return self.head(x[:, 0, 0])

    refused(Axial().eval(), torch.randn(*shape, CHANNELS), WiringError, "wiring=")


class Folded(nn.Module):
    """Heads folded into the batch, example by example or head by head."""

    def __init__(self, heads_first: bool) -> None:
        super().__init__()
        self.heads_first = heads_first
        self.qkv = nn.ModuleList(nn.Linear(CHANNELS, 3 * CHANNELS) for _ in range(2))
        self.head = nn.Linear(CHANNELS, 5)
        self.eval().double()

    def forward(self, x):
        for qkv in self.qkv:
            q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in qkv(x).chunk(3, -1))
            if self.heads_first:
                q, k, v = (t.transpose(0, 1) for t in (q, k, v))
            y = torch.bmm(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).softmax(-1), v.flatten(0, 1))
            y = y.unflatten(0, q.shape[:2])
            y = y.transpose(0, 1) if self.heads_first else y
            x = x + y.transpose(1, 2).flatten(2)
        return self.head(x[:, 0])


def test_heads_folded_into_the_batch_are_right():
    model, x = Folded(False), tokens(3)
    right(model, x, flowed(maps(model, (x,), LABEL)))


def test_heads_laid_before_examples_are_refused_or_right():
    model, x = Folded(True), tokens(3)
    refused(model, x, HeedmapError, "heedmap expected|It expected")
    right(model, x[:1], flowed(maps(model, (x[:1],), LABEL)))


@pytest.mark.parametrize("target", [lambda o: o[:, LABEL].sum()[None], lambda o: o[:1, LABEL]], ids=["sum", "first"])
def test_one_number_of_a_batch_is_never_a_sum_over_examples(target):
    model, x = Folded(False), tokens(3)
    try:
        e = heedmap.explain(model, (x,), target)
    except HeedmapError:
        return
    assert e[e.streams[0]].shape == (3, TOKENS)


# -- gradients switched off -------------------------------------------------------------------------------------------


def quiet(attend, *args):
    with torch.no_grad():
        return attend(*args)


QUIET = {
    "in the middle": lambda s, x: finish(s, (lambda y: y + quiet(s.b, y))(x + s.a(x)), s.c),
    "first layers": lambda s, x: finish(s, x + quiet(s.a, x), s.b, s.c),
    "behind detach": lambda s, x: finish(s, (x + s.a(x)).detach(), s.b, s.c),
    "residual and read behind detach": lambda s, x: finish(
        s, (lambda y: y.detach() + s.b(y.detach()))(x + s.a(x)), s.c
    ),
}


@pytest.mark.parametrize("name", QUIET)
def test_attention_without_gradient_is_refused(name):
    refused(Tower(QUIET[name]), tokens(), GradientError, "no_grad.*detach.*expected")


def test_a_detached_answer_is_refused():
    refused(Tower(lambda s, x: plain(s, x).detach()), tokens(), DisconnectedError, "differentiable")


def test_only_the_read_side_behind_detach_is_refused_until_it_is_declared():
    """No gradient shows whether its tokens are where they were."""
    model = Tower(lambda s, x: finish(s, (lambda y: y + s.b(y, y.detach()))(x + s.a(x)), s.c))
    x = tokens()
    refused(model, x, GradientError, "no_grad.*detach.*expected.*declare")
    right(model, x, flowed(maps(model, (x,), LABEL)), wiring={1: {"reading": "x@0", "read": "x@0"}})


HIDDEN = {
    "read rolled under no_grad": lambda s, y: s.b(y, quiet(torch.roll, y, 1, 1)),
    "queries rolled and detached": lambda s, y: s.b(y.roll(1, 1).detach(), y),
    "read indexed and detached": lambda s, y: s.b(y, y[:, SWAPPED].detach()),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_tokens_moved_where_no_gradient_sees_it_are_refused(name):
    model = Tower(lambda s, x: finish(s, (lambda y: y + HIDDEN[name](s, y))(x + s.a(x)), s.c))
    refused(model, tokens(), (WiringError, GradientError), "wiring=|expected")


# -- forms of attention ------------------------------------------------------------------------------------------------


def einsums(scores, values, *orders):
    """Attention by two einsums, its tensors laid out as the equations want them."""

    def core(q, k, v):
        laid = zip((q, k, v), orders[:3], strict=True)
        q, k, v = (t.permute(["bhnd".index(letter) for letter in order]) for t, order in laid)
        out = torch.einsum(values, torch.einsum(scores, q, k).softmax(-1), v)
        return out.permute([orders[3].index(letter) for letter in "bhnd"])

    return core


EINSUMS = {
    "heads first": einsums("bhqd,bhkd->bhqk", "bhqk,bhkd->bhqd", "bhnd", "bhnd", "bhnd", "bhnd"),
    "tokens first": einsums("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "bnhd", "bnhd", "bnhd", "bnhd"),
    "heads outermost": einsums("qbhd,kbhd->bhqk", "bhqk,kbhd->qbhd", "nbhd", "nbhd", "nbhd", "nbhd"),
    "head before batch": einsums("bhqd,bhkd->hbqk", "hbqk,bkhd->bhqd", "bhnd", "bhnd", "bnhd", "bhnd"),
    "query before head": einsums("bhqd,bhkd->bqhk", "bqhk,bhkd->bhqd", "bhnd", "bhnd", "bhnd", "bhnd"),
    "channels before tokens": einsums("bhdq,bhdk->bhqk", "bhqk,bhdk->bhdq", "bhdn", "bhdn", "bhdn", "bhdn"),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_attention_by_einsum_is_right_or_refused(name):
    model, x = Tower(plain, EINSUMS[name]), tokens()
    for attend in (model.a, model.b, model.c):
        attend.core = EINSUMS["heads first"]
    true = flowed(maps(model, (x,), LABEL))
    for attend in (model.a, model.b, model.c):
        attend.core = EINSUMS[name]
    ask = right_or_refused if name == "head before batch" else right
    ask(model, x, true)


def test_values_before_weights_in_an_einsum_are_right():
    core = lambda q, k, v: torch.einsum("bhkd,bhqk->bhqd", v, (q @ k.mT).softmax(-1))  # noqa: E731
    model, x = Tower(plain, core), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))


def test_shared_keys_and_values_are_right():
    core = lambda q, k, v: (q @ k[:, :1].mT).softmax(-1) @ v[:, :1]  # noqa: E731
    model, x = Tower(plain, core), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))


@pytest.mark.parametrize("first", [False, True])
def test_a_sink_beside_the_scores_is_no_token(first):
    """A column that takes its share of the softmax and is cut off behind it."""

    def core(q, k, v):
        scores, sink = q @ k.mT, torch.full((*q.shape[:-1], 1), 0.3, dtype=q.dtype)
        scores = torch.cat([sink, scores] if first else [scores, sink], -1)
        weights = (scores - scores.max(-1, keepdim=True).values).softmax(-1)
        return (weights[..., 1:] if first else weights[..., :-1]) @ v

    model, x = Tower(plain, core), tokens()
    true = maps(model, (x,), LABEL)
    right(model, x, flowed([each[..., 1:] if first else each[..., :-1] for each in true]))


def test_a_softmax_shared_by_two_streams_is_right_or_refused():
    def core(q, k, v):
        weights = torch.cat([q @ k.mT, q @ (k * 2).mT], -1).softmax(-1)
        return weights[..., : k.shape[-2]] @ v + weights[..., k.shape[-2] :] @ (v * 2)

    model, x = Tower(plain, core), tokens()
    refused(model, x, HeedmapError, "expected|declare")


def test_weights_masked_after_softmax_are_right():
    keep = (torch.arange(TOKENS) % 3 > 0).double()
    core = lambda q, k, v: ((q @ k.mT).softmax(-1) * keep) @ v  # noqa: E731
    model, x = Tower(plain, core), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))  # dA * A is the same with the mask in A or in dA


def talking(q, k, v, before=None):
    mix = torch.tensor([[0.7, 0.2], [-0.1, 0.9]], dtype=q.dtype)
    scores = q @ k.mT
    if before:
        return torch.einsum("bhqk,hg->bgqk", scores, mix).softmax(-1) @ v
    return torch.einsum("bhqk,hg->bgqk", scores.softmax(-1), mix) @ v


def test_talking_heads_before_softmax_are_right_or_refused():
    model, x = Tower(plain, lambda q, k, v: talking(q, k, v, before=True)), tokens()
    right_or_refused(model, x, flowed(maps(model, (x,), LABEL)))


def test_talking_heads_after_softmax_are_refused():
    refused(Tower(plain, talking), tokens(), HeedmapError, "form|expected")
    later = Tower(plain)
    later.b.core = talking
    refused(later, tokens(), WiringError, "wiring=")


def test_talking_heads_in_the_first_layer_alone_are_refused():
    first = Tower(plain)
    first.a.core = talking
    refused(first, tokens(), HeedmapError, "form|wiring=")


def test_softmax_over_the_wrong_axis_is_refused():
    refused(Tower(plain, lambda q, k, v: (q @ k.mT).softmax(-2) @ v), tokens(), NoAttentionError, "softmax followed")


def test_the_flash_kernel_itself_is_refused():
    def core(q, k, v):
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]

    refused(Tower(plain, core), tokens(), UnsupportedError, "sdpa")
    direct = lambda q, k, v: torch.ops.aten.scaled_dot_product_attention(q, k, v)  # noqa: E731
    refused(Tower(plain, direct), tokens(), UnsupportedError, "sdpa")


class Own(torch.autograd.Function):
    """Attention that torch's operations do not show as such, with a backward of its own."""

    @staticmethod
    def forward(ctx, q, k, v):
        e = (q @ k.mT).exp()
        a = e / e.sum(-1, keepdim=True)
        ctx.save_for_backward(q, k, v, a)
        return a @ v

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, a = ctx.saved_tensors
        da = gradient @ v.mT
        ds = a * (da - (da * a).sum(-1, keepdim=True))
        return ds @ k, ds.mT @ q, a.mT @ gradient


def test_attention_by_a_function_of_ones_own_is_refused():
    refused(Tower(plain, Own.apply), tokens(), HeedmapError, "form|wiring=")
    later = Tower(plain)
    later.b.core = Own.apply
    refused(later, tokens(), WiringError, "wiring=")


def test_attention_by_a_function_of_ones_own_in_the_first_layer_is_refused():
    first = Tower(plain)
    first.a.core = Own.apply
    refused(first, tokens(), HeedmapError, "form|wiring=")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_submodule_is_refused():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.softmax(x @ x.transpose(1, 2), -1) @ x

    model = Tower(lambda s, x: finish(s, s.inner(x), s.a))
    model.inner = torch.jit.script(Inner())
    refused(model, tokens(), UnsupportedError, "inner is a scripted module")


# -- other tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_keys_longer_than_the_stream_are_refused(more):
    model = nn.MultiheadAttention(CHANNELS, 2, batch_first=True, **more).eval()
    x = torch.randn(2, TOKENS, CHANNELS)
    refused(model, (x, x, x), WiringError, "wiring=", lambda o: o[0][:, 0, 0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_decoder_reads_its_memory(batch_first):
    layer = nn.TransformerDecoderLayer(CHANNELS, 2, 16, batch_first=batch_first)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.TransformerDecoder(layer, 2)

        def forward(self, words, memory):
            words, memory = (t if batch_first else t.transpose(0, 1) for t in (words, memory))
            out = self.decoder(words, memory)
            return (out if batch_first else out.transpose(0, 1))[:, 0]

    model = Reader().eval().double()
    words, memory = tokens(2, 4), tokens(2)
    a = maps(model, (words, memory), LABEL)
    w, m = torch.eye(4, dtype=torch.float64), torch.zeros(4, TOKENS, dtype=torch.float64)
    for self_map, cross in ((a[0], a[1]), (a[2], a[3])):
        w, m = w + self_map @ w, m + self_map @ m
        m = m + cross
    e = heedmap.explain(model, (words, memory), logit(LABEL))
    torch.testing.assert_close(e["words"], (w - torch.eye(4).double())[:, 0])
    torch.testing.assert_close(e["memory"], m[:, 0])


def test_deformable_sampling_is_refused():
    def path(s, x):
        x = x + s.a(x)
        grid = x.transpose(1, 2).unflatten(-1, (3, 3))
        where = torch.tanh(s.head(x)[..., :2])[:, :, None]
        return finish(s, x + F.grid_sample(grid, where, align_corners=False)[..., 0].transpose(1, 2), s.b)

    refused(Tower(path), tokens(), WiringError, "wiring=")


# -- modes -------------------------------------------------------------------------------------------------------------


def test_dropout_in_training_is_refused():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(CHANNELS, 2, 16, 0.1, batch_first=True), 1).train()
    refused(model, torch.randn(2, TOKENS, CHANNELS), NotEvalError, "eval", lambda o: o[:, 0, 0])


def test_batch_statistics_in_training_are_refused_and_stay():
    model = Tower(lambda s, x: s.head(s.norm((x + s.a(x))[:, 0])))
    model.norm = nn.BatchNorm1d(CHANNELS).double()
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    refused(model, tokens(), NotEvalError, "eval")
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("which", [(1,), (0, 1, 2)])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_gradient_checkpointing_is_refused(reentrant, which):
    def path(s, x):
        for i, attend in enumerate((s.a, s.b, s.c)):
            x = x + (checkpoint(attend, x, use_reentrant=reentrant) if i in which else attend(x))
        return s.head(x[:, 0])

    refused(Tower(path), tokens(), UnsupportedError, "checkpoint")


def test_a_compiled_model_is_explained_as_it_is():
    model, x = Tower(plain), tokens()
    true = flowed(maps(model, (x,), LABEL))
    right(torch.compile(model, backend="eager"), x, true)


def test_a_branch_that_opens_after_training_is_met():
    """Trust in a wiring must not outlive the weights it was checked with."""
    model, x = Tower(between(lambda s, x: x + s.convolve(x))), tokens()
    nn.init.zeros_(model.conv.weight)
    heedmap.explain(model, x, logit(LABEL))
    nn.init.normal_(model.conv.weight)
    refused(model, x, MixedTokensError, "wiring=")


def test_a_branch_that_opens_by_a_flag_is_met():
    model, x = Tower(between(lambda s, x: x.roll(int(s.rolled), 1) if s.rolled else x)), tokens()
    model.rolled = False
    heedmap.explain(model, x, logit(LABEL))
    model.rolled = True
    right(model, x, moved(maps(model, (x,), LABEL), {0: IDENTITY.roll(1, 0)}))


def test_a_gradient_taken_inside_the_model_is_right_or_refused():
    def path(s, x):
        x = x + s.a(x)
        leaf = x.detach().requires_grad_()
        (force,) = torch.autograd.grad((leaf**2).sum(), leaf)
        return s.head((x + force)[:, 0])

    model, x = Tower(path), tokens()
    right_or_refused(model, x, flowed(maps(model, (x,), LABEL)))


def test_attention_inside_vmap_after_the_last_call_is_refused():
    def path(s, x):
        x = x + s.a(x)
        return s.head((x + torch.vmap(lambda t: (t @ t.T).softmax(-1) @ t)(x))[:, 0])

    refused(Tower(path), tokens(), HeedmapError, "expected|declare")


def test_a_mask_made_inside_vmap_after_something_was_changed_in_place():
    """As masks are made that are joined of several: the memory of a tensor inside vmap is not its own."""

    def path(s, x):
        positions = torch.arange(x.shape[1])
        positions += 1
        heard = torch.vmap(lambda i: i > 0)(positions)
        return finish(s, x.masked_fill(~heard[:, None], 0.0), s.a, s.b)

    model, x = Tower(path), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))


def test_attention_taken_only_for_some_inputs():
    model = Tower(lambda s, x: finish(s, x, s.a, s.b) if x.sum() > 0 else finish(s, x, s.a))
    x = tokens().abs()
    for inputs in (x, -x):
        right(model, inputs, flowed(maps(model, (inputs,), LABEL)))


def test_a_rolled_copy_beside_the_last_state_is_refused():
    """The answer reads a state whose tokens were moved, and beside it older ones that went elsewhere."""

    def path(s, x):
        x = x + s.a(x)
        y = x.roll(1, 1)
        return s.head((y + s.b(y))[:, 0] + x[:, 3])

    refused(Tower(path), tokens(), WiringError, "expected")
