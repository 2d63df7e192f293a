"""What was found right once, and is carried where it is wrong: to another input, another target, another state."""

import pytest
import torch
import torch.nn.functional as F
from test_traps import IDENTITY, LABEL, TO_DO, finish, refused, right
from torch import Tensor, nn
from towers import CHANNELS, TOKENS, Tower, flowed, maps, moved, tokens

import heedmap
from heedmap import logit
from heedmap.errors import GradientError, HeedmapError, MixedTokensError, ReadoutError

MATRIX = torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def columns(x: Tensor) -> Tensor:
    """Columns before rows: an order that no operation tells by its name."""
    return x.unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)


COLUMNS = columns(IDENTITY[None])[0]

# -- another input ---------------------------------------------------------------------------------------------------

GATED = {
    "a mean": lambda x: x.mean(1, keepdim=True),
    "a matrix": lambda x: MATRIX @ x,
    "an einsum": lambda x: torch.einsum("mn,...nc->...mc", MATRIX, x),
    "one token": lambda x: x[:, :1],
    "columns before rows": columns,
    "a norm over all": lambda x: F.layer_norm(x, x.shape[1:]),
    "an order by value": lambda x: x.flatten(0, 1)[x[0, :, 0].argsort()].view(x.shape),
}


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", GATED)
def test_a_gate_that_opens_on_another_input_is_met(name, early):
    def path(s, x):
        x = x if early else x + s.a(x)
        s.open = torch.relu(x[:, :1, :1])
        return finish(s, x + s.open * GATED[name](x), *((s.a, s.b) if early else (s.b,)))

    model, met = Tower(path), {}
    while len(met) < 2:
        x = tokens(1)
        model(x)
        met[bool(model.open > 0)] = x
    heedmap.explain(model, met[False], logit(LABEL))
    refused(model, met[True], HeedmapError, "heedmap expected")


SORTED = {
    "indexed": lambda flat, order: flat[order],
    "looked up": lambda flat, order: F.embedding(order, flat),
    "by a product": lambda flat, order: F.one_hot(order).to(flat) @ flat,
}


@pytest.mark.parametrize("name", SORTED)
def test_an_order_by_value_that_is_another_on_another_input_is_followed(name):
    def path(s, x):
        x = x + s.a(x)
        flat = x.flatten(0, 1)
        return finish(s, SORTED[name](flat, flat[:, 0].argsort()).view(x.shape), s.b)

    model, x = Tower(path), tokens(1)
    nn.init.zeros_(model.a.o.weight[0])  # the first channel stays what it was
    order = x[0, :, 0].argsort()
    heedmap.explain(model, x[:, order], logit(LABEL))
    if name == "by a product":
        refused(model, x, MixedTokensError, "wiring=")
        return
    right(model, x, moved(maps(model, (x,), LABEL), {0: IDENTITY[order]}))


def test_a_model_that_takes_one_of_two_orders_by_value_is_met():
    def path(s, x):
        y = x + s.a(x)
        other = columns(y)
        return finish(s, other if bool(x.detach()[0, 0, 0] > 0) else y, s.b)

    model, x = Tower(path), tokens(1)
    x[0, 0, 0] = -1
    right(model, x, flowed(maps(model, (x,), LABEL)))
    x[0, 0, 0] = 1
    refused(model, x, MixedTokensError, "wiring=")


# -- another target ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["logit", "callable"])
@pytest.mark.parametrize("calls", [1, 2])
def test_a_target_that_reads_elsewhere_is_probed_though_another_was(calls, by):
    """The first token stays where it is, the second does not."""

    def path(s, x):
        x = x + s.a(x) if calls == 2 else x
        return s.head(x + s.b(x) + columns(x))

    def asked(row):
        return logit(LABEL, position=row) if by == "logit" else lambda o: o[:, row, LABEL]

    model, x = Tower(path), tokens(1)
    heedmap.explain(model, x, asked(0))
    refused(model, x, ReadoutError, "readout=", asked(1))


def test_patches_as_they_entered_beside_the_last_call_are_told_by_their_places():
    class Patches(Tower):
        def forward(self, x):
            return self.path(self, self.lay(x).flatten(2).mT)

    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for step in (columns, lambda x: x):
        model = Patches(lambda s, x, step=step: s.head((x + s.a(x) + step(x) * s.conv.bias)[:, 1]))
        model.lay = nn.Conv2d(3, CHANNELS, 2, 2, dtype=torch.float64)
        if step is columns:
            refused(model, x, ReadoutError, "readout=")
        else:
            right(model, x, maps(model, (x,), LABEL)[0][:, 1])


# -- another depth -----------------------------------------------------------------------------------------------------


def _written(older, newer):
    both = newer.clone()
    both[..., :] = older
    return both


OLDER = {
    "channels side by side": lambda older, newer: torch.cat([older, newer], -1)[..., :CHANNELS],
    "in chunks": lambda older, newer: torch.cat([older, newer], -1).chunk(2, -1)[0],
    "stacked channel by channel": lambda older, newer: torch.stack([older, newer], -1)[..., :1].squeeze(-1),
    "written over": _written,
    "copied": lambda older, newer: newer.clone().copy_(older),
    "chosen": lambda older, newer: torch.where(torch.tensor(False), newer, older),
    "chosen for some tokens": lambda older, newer: torch.where((torch.arange(TOKENS) % 2 > 0)[:, None], newer, older),
}


@pytest.mark.parametrize("end", ["reading", "read"])
@pytest.mark.parametrize("name", OLDER)
def test_an_older_state_that_is_taken_for_a_newer_one_is_refused(name, end):
    def path(s, x):
        older = x + s.a(x)
        newer = older + s.b(older)
        mine = OLDER[name](older, newer)
        x = mine + s.c(mine, newer) if end == "reading" else newer + s.c(newer, mine)
        return s.head(x[:, 0])

    refused(Tower(path), tokens(), MixedTokensError, "older state.*wiring=")


@pytest.mark.parametrize("last", [False, True])
def test_a_residual_branch_that_leaves_out_a_call_is_refused(last):
    def path(s, x):
        x = x + s.a(x)
        y = x + s.b(x)
        x = x + s.c(y)
        return s.head(x[:, 0]) if last else finish(s, x, s.a)

    refused(Tower(path), tokens(), HeedmapError, TO_DO)


def test_padding_that_attention_leaves_alone_is_no_older_state():
    heard = (torch.arange(TOKENS) < 6).double()[:, None]

    def path(s, x):
        for attend in (s.a, s.b, s.c):
            x = x + attend(x) * heard
        return s.head(x[:, 0])

    model, x = Tower(path), tokens()
    right(model, x, flowed(maps(model, (x,), LABEL)))


# -- another part of what was declared ---------------------------------------------------------------------------------

PARTS = {
    "halves": lambda y: (y[:, :TOKENS], y[:, TOKENS:]),
    "chunks": lambda y: y.chunk(2, 1),
    "narrowed": lambda y: (y.narrow(1, 0, TOKENS), y.narrow(1, TOKENS, TOKENS)),
    "rows and columns": lambda y: (y[:, :TOKENS], columns(y[:, :TOKENS])),
    "mixed": lambda y: (y[:, :TOKENS], MATRIX @ y[:, :TOKENS]),
    "detached": lambda y: (y[:, :TOKENS], columns(y[:, :TOKENS]).detach()),
}
DECLARED = {1: {"reading": "part", "read": "part"}}


@pytest.mark.parametrize("ends", ["both", "read"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_not_known_again_by_another_that_was_declared(name, ends):
    def path(s, x):
        y = s.convolve(x + s.a(x))
        one, other = PARTS[name](y)
        one = one + s.b(one)
        if ends == "read":
            return s.head((one + s.c(one, other))[:, 0])
        return s.head(one[:, 0]) + s.head2((other + s.c(other))[:, 1])

    model, x = Tower(path), tokens(2, 2 * TOKENS)
    refused(model, x, (MixedTokensError, GradientError), "declare|Declare", wiring=DECLARED)


SAME = {
    "itself": lambda y: y,
    "sliced likewise": lambda y: y[:, :],
    "heads in two parts": lambda y: torch.cat([each * 2 for each in y.unflatten(-1, (2, -1)).unbind(2)], -1),
    "with more channels": lambda y: torch.cat([y, y], -1)[..., 4 : 4 + CHANNELS],
}


@pytest.mark.parametrize("name", SAME)
def test_what_was_declared_once_is_known_again(name):
    def path(s, x):
        y = s.convolve(x + s.a(x))
        z = y + s.b(y)
        return s.head((z + s.c(z, SAME[name](y)))[:, 0])

    model, x = Tower(path), tokens()
    _, among, again = maps(model, (x,), LABEL)
    right(model, x, (among + again)[:, 0], "part", wiring=DECLARED)


# -- tokens that share what is not their own ---------------------------------------------------------------------------


def test_two_sets_of_learned_tokens_are_not_one_by_a_position_that_they_share():
    def path(s, x):
        one, other = ((each + s.place).expand(len(x), -1, -1) for each in (s.one, s.other))
        one = one + s.a(one, other)
        return s.head((one + s.b(one, x))[:, 0])

    model, x = Tower(path), tokens()
    for name in ("place", "one", "other"):
        setattr(model, name, nn.Parameter(torch.randn(1, 4, CHANNELS, dtype=torch.float64)))
    refused(model, x, MixedTokensError, "wiring=")


def test_two_choices_are_not_one_by_a_position_that_they_share():
    def path(s, x):
        x = x + s.a(x)
        best = s.head(x).topk(4, 1).indices
        one, other = (x.gather(1, best[..., k : k + 1].expand(-1, -1, CHANNELS)).detach() + s.place for k in (0, 1))
        one = one + s.b(one, other)
        return s.head((one + s.c(one, x))[:, 0])

    model = Tower(path)
    model.place = nn.Parameter(torch.randn(4, CHANNELS, dtype=torch.float64))
    refused(model, tokens(), MixedTokensError, "wiring=")


UNSHOWN = {
    "columns before rows": columns,
    "a matrix": lambda x: MATRIX @ x,
    "one token": lambda x: x[:, :1].expand(-1, TOKENS, -1),
    "rolled and rolled back": lambda x: x.roll(1, 1).roll(-1, 1),
}


@pytest.mark.parametrize("quietly", [False, True])
@pytest.mark.parametrize("name", UNSHOWN)
def test_tokens_moved_where_no_name_and_no_gradient_tells_are_refused(name, quietly):
    def path(s, x):
        y = x + s.a(x)
        if quietly:
            with torch.no_grad():
                z = UNSHOWN[name](y)
        else:
            z = UNSHOWN[name](y).detach()
        return finish(s, y + s.b(y, z), s.c)

    refused(Tower(path), tokens(), (GradientError, MixedTokensError), "expected")


def test_words_shifted_by_an_ellipsis_say_so():
    def path(s, ids):
        shifted = torch.zeros_like(ids)
        shifted[..., 1:] = ids[..., :-1].clone()
        return finish(s, s.embed(shifted), s.a, s.b)

    model = Tower(path)
    model.embed = nn.Embedding(20, CHANNELS, dtype=torch.float64)
    assert heedmap.explain(model, torch.arange(TOKENS)[None], logit(LABEL)).streams == ("x (rearranged)",)


def test_a_stack_indexed_behind_a_truth_value_is_not_picked_from():
    """The truth value adds an axis, so what follows it is not the axis of the stack."""

    def path(s, x):
        y = x + s.a(x)
        both = torch.stack([y, y + s.b(y)], 1)
        return s.head(both[True, 0][0, :, :1].flatten(0, 1)[1:])  # both depths of the first example; its newer one

    with pytest.raises(HeedmapError):
        heedmap.explain(Tower(path), tokens(1), logit(LABEL))
