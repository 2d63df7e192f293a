"""LRP, partial LRP and T-Attr: against a ViT written out rule by rule, and by what the rules must keep."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from builders import BY_NAME
from lrp import Vit, walked
from runs import dense_run, distance, lifted, model_of
from torch import Tensor, nn

import heedmap
from heedmap import logit
from heedmap.errors import HeedmapError, InputError, UnsupportedError
from heedmap.methods import rules
from heedmap.methods.asking import questions
from heedmap.methods.relevance import taped
from heedmap.methods.t_attr import _Maps
from heedmap.records import Heads

BATCH = 3
ALL_THREE = ["lrp", "partial-lrp", "t-attr"]
KEPT = ["vit", "deit", "beit", "bert", "roberta", "distilbert", "gpt2", "llama", "visual-bert", "nn-encoder"]
TWO_STREAMS = ["lxmert", "t5", "bart", "whisper", "clip"]


def inputs_of(name: str, batch: int = BATCH) -> dict[str, Tensor]:
    return lifted(BY_NAME[name].inputs(batch), torch.float64)


def asked(name: str) -> Callable[..., Tensor]:
    """One logit for each example, as it is: the family's own question is twenty times that."""
    ask = BY_NAME[name].ask
    return lambda output: ask(output) / ask.times


def explained(name: str, method: str, **options) -> heedmap.Explanation:
    torch.manual_seed(0)
    return heedmap.explain(model_of(name), inputs_of(name), asked(name), method=method, **options)


def off(found: Tensor, true: Tensor) -> float:
    return float((found - true).abs().max() / true.abs().max())


@cache
def written(rules: str) -> list:
    model = model_of("vit")
    parameters = {name: each.numpy() for name, each in model.state_dict().items()}
    vit = Vit(parameters, blocks=2, heads=4, patch=4, eps=model.config.layer_norm_eps)
    pictures, labels = inputs_of("vit")["pixel_values"].numpy(), BY_NAME["vit"].ask.index
    logits = model(inputs_of("vit")["pixel_values"]).logits.detach().numpy()
    assert distance(np.stack([vit.forward(each)["logits"] for each in pictures]), logits) <= 1e-12
    return [vit.relevance(each, label, rules == "orig") for each, label in zip(pictures, labels, strict=True)]


# ------------------------------------------------------------------------------------------- as it is written out


@pytest.mark.parametrize("rules", ["ours", "orig"])
def test_relevance_of_tokens_and_pixels_is_as_written_out(rules):
    e = explained("vit", f"lrp:{rules}")
    passed = written(rules)
    assert distance(e["pixel_values"].numpy(), np.stack([each.tokens for each in passed])) <= 1e-9
    assert e.pixels.shape == (BATCH, 12, 12)
    assert distance(e.pixels.flatten(1).numpy(), np.stack([each.pixels.ravel() for each in passed])) <= 1e-9
    assert not e.starts["pixel_values"].any()


@pytest.mark.parametrize(("variant", "rules"), [("ours", "ours"), ("orig", "orig"), ("signed", "ours")])
def test_partial_is_the_row_of_the_last_weights(variant, rules):
    last = [each.weights[-1] for each in written(rules)]
    true = [(each if variant == "signed" else np.maximum(each, 0)).mean(0)[0] for each in last]
    assert distance(explained("vit", f"partial-lrp:{variant}")["pixel_values"].numpy(), np.stack(true)) <= 1e-9


@pytest.mark.parametrize(
    ("variant", "rules", "start"), [("ours", "ours", 0), ("orig", "orig", 0), ("official", "ours", 1)]
)
def test_attribution_is_the_product_of_whole_matrices(variant, rules, start):
    gradients = [each / BY_NAME["vit"].ask.times for each in dense_run("vit", BATCH).gradients]
    true = [
        walked(each.weights, [gradient[example] for gradient in gradients], start)[0]
        for example, each in enumerate(written(rules))
    ]
    e = explained("vit", f"t-attr:{variant}")
    assert distance(e["pixel_values"].numpy(), np.stack(true)) <= 1e-9
    assert torch.equal(e.row("pixel_values"), e["pixel_values"] + torch.eye(10, dtype=torch.float64)[0])
    assert (e["pixel_values"] >= 0).all()


@pytest.mark.parametrize("name", ["detr", "lxmert", "bert"])
def test_attribution_walks_states_that_read_one_another(name):
    """All that differs from heed:positive is the relevance of the weights in place of the weights."""
    model, inputs = model_of(name), inputs_of(name)
    with taped(model, inputs, "ours") as (recording, wired, relevance):
        (asking,) = questions(model, inputs, [asked(name)], recording, wired, False, "once")
        weights = relevance.arrived(asking).weights
    run = dense_run(name, BATCH)
    maps = [
        np.maximum(gradient / BY_NAME[name].ask.times * weights[index].numpy(), 0).mean(1)
        if index in weights else np.zeros(gradient.shape[:1] + gradient.shape[2:])
        for index, gradient in enumerate(run.gradients)
    ]  # fmt: skip
    e = explained(name, "t-attr")
    flow = {state: row.numpy() for state, row in _rows(e, wired).items()}
    for call in reversed(wired.calls):
        row = flow.pop(call.state, None)
        if row is not None:
            flow[call.reading] = flow.get(call.reading, 0) + row
            flow[call.read] = flow.get(call.read, 0) + (row[:, None] @ maps[call.index])[:, 0]
    for state, row in flow.items():
        assert distance(e.row(state.stream).numpy(), row) <= 1e-9, state


def _rows(e: heedmap.Explanation, wired) -> dict:
    """The rows that the answer reads, at the state where it reads them."""
    (name,) = e.readout
    state = wired.state(name.partition(",")[0])
    return {state: e.starts[state.stream]}


# ------------------------------------------------------------------------------------------- what is kept


def totals(name: str, rules: str) -> list[tuple[str, float]]:
    """Of all relevance that is on its way, before each operation."""
    found = []
    with taped(model_of(name), inputs_of(name, 1), rules) as (recording, wired, relevance):
        relevance.watch = lambda operation, pending: found.append(
            (operation.name, sum(float(each.sum()) for each in pending.values()))
        )
        (asking,) = questions(model_of(name), inputs_of(name, 1), [asked(name)], recording, wired, False, "once")
        relevance.arrived(asking)
    return found


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_the_total_is_one_at_every_operation(name):
    ours, orig = totals(name, "ours"), totals(name, "orig")
    assert len(ours) > 40
    assert [(operation, total) for operation, total in ours if abs(total - 1) > 1e-6] == []
    assert sum(abs(total - 1) > 0.05 for _, total in orig) > 30, "orig does not keep it"


@pytest.mark.parametrize("name", ["nn-transformer", "hand-one-head"])
def test_the_total_changes_only_where_nothing_speaks_for_a_number(name):
    """Of few channels: an output of which no input agrees in sign with its weight has nobody to hand relevance to."""
    found = totals(name, "ours")
    changes = {a[0] for a, b in pairwise(found) if abs(a[1] - b[1]) > 1e-5}
    assert changes == {"linear"}


@pytest.mark.parametrize("name", KEPT)
def test_the_total_of_one_stream_is_one(name):
    (stream,) = explained(name, "lrp").streams
    total = explained(name, "lrp")[stream].sum(1)
    assert torch.allclose(total, torch.ones(BATCH, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("name", TWO_STREAMS)
def test_the_total_of_two_streams_is_one(name):
    e = explained(name, "lrp")
    assert len(e.streams) == 2
    total = sum(e[stream].sum(1) for stream in e.streams)
    assert torch.allclose(total, torch.ones(BATCH, dtype=torch.float64), atol=1e-6)
    if name == "clip":
        assert torch.allclose(e["pixel_values"].sum(1), torch.full((BATCH,), 0.5, dtype=torch.float64), atol=1e-6)
        assert e.pixels.shape == (BATCH, 12, 12)


def test_a_detectors_queries_lose_what_constant_values_are_handed():
    e = explained("detr", "lrp")
    assert set(e.streams) == {"pixel_values", "model.query_position_embeddings.weight"}
    assert (sum(e[stream].sum(1) for stream in e.streams) < 0.99).all()
    assert e.pixels is None, "a backbone lies between"


def test_rules_keep_their_totals():
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    values, queries, keys = drawn(2, 3, 5, 4), drawn(2, 3, 6, 4), drawn(2, 3, 5, 4)
    relevance = drawn(2, 3, 6, 4)
    whole = relevance.sum()
    parts = rules.attention(Heads(values, queries, keys), relevance)
    assert [float(part.sum() / whole) for part in parts] == pytest.approx([1 / 2, 1 / 4, 1 / 4, 1 / 2], abs=1e-6)
    masked = rules.attention(Heads(values, queries, keys, mask=torch.arange(5).view(1, 1, 1, 5) < 3), relevance)
    assert not any(part[..., 3:].any() for part in masked[:1])
    assert not any(part[..., 3:, :].any() for part in masked[2:])
    x, weight, given = drawn(3, 8, 12, 12), drawn(5, 8, 3, 3), drawn(3, 5, 4, 4)

    def convolved(a: Tensor, b: Tensor) -> Tensor:
        return nn.functional.conv2d(a, b, stride=3)

    assert float(rules.box(convolved, x, weight, given).sum() / given.sum()) == pytest.approx(1)
    assert float(rules.linear(convolved, x, weight, given, False).sum() / given.sum()) == pytest.approx(1)
    assert float(rules.linear(convolved, x, weight, given, True).sum() / given.sum()) == pytest.approx(2)
    shares = rules.added([drawn(4, 6), drawn(1, 6)], drawn(4, 6) + 1, True)
    assert [each.shape for each in shares] == [(4, 6), (1, 6)]
    pooled = drawn(2, 1, 4)
    taken = rules.summed(drawn(2, 7, 4), [1], pooled, True)
    assert float(taken.sum() / pooled.sum()) == pytest.approx(1)
    assert (taken.sum((0, 2)) / pooled.sum() >= 0).all(), "each token's total is of the sign of the whole"


def test_no_positive_product_gives_nothing():
    heads = Heads(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    maps = _Maps({0: torch.full((1, 2, 3, 3), 0.5)})
    maps.step(0, heads, -torch.ones(1, 2, 3, 4))
    assert not maps.found[0].any()
    maps.step(0, heads, torch.ones(1, 2, 3, 4))
    assert (maps.found[0] == 2).all()


def test_relevance_begins_as_the_gradient_of_the_target():
    model, inputs = model_of("vit"), inputs_of("vit", 1)
    a, b, both, times = (
        heedmap.explain(model, inputs, target, method="lrp:orig")["pixel_values"]
        for target in (logit(3), logit(1), logit(3) - logit(1), 7 * logit(3))
    )
    assert off(both, a - b) <= 1e-9, "the rules that do not rescale are linear"
    assert off(times, 7 * a) <= 1e-9


# ------------------------------------------------------------------------------------------- any form, any model


@pytest.mark.parametrize("method", ALL_THREE)
@pytest.mark.parametrize("name", ["vit", "bert", "llama", "t5", "detr"])
def test_attention_in_parts_as_fused(method, name):
    eager = copy.deepcopy(model_of(name))
    eager.set_attn_implementation("eager")
    torch.manual_seed(0)
    parts, fused = heedmap.explain(eager, inputs_of(name), asked(name), method=method), explained(name, method)
    assert parts.wiring.calls[0].seam != fused.wiring.calls[0].seam
    for stream in fused.streams:
        assert off(parts[stream], fused[stream]) <= 1e-4, (
            "1e-9 is added to scaled scores in one, to others in the other"
        )


class Written(nn.Module):
    """Attention by einsum, weights first or last; sums in place or not."""

    def __init__(self, weights_last: bool = False, in_place: bool = False):
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 5)
        self.weights_last, self.in_place = weights_last, in_place

    def forward(self, x):
        for _ in range(2):
            q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 4).unbind(2)
            weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(2).softmax(-1)
            if self.weights_last:
                y = torch.einsum("bkhd,bhqk->bqhd", v, weights)
            else:
                y = torch.einsum("bhqk,bkhd->bqhd", weights, v)
            y = self.out(y.reshape(x.shape))
            if self.in_place:
                y += x
                x = y.tanh_()
            else:
                x = (y + x).tanh()
        return self.head(x.mean(1))


class Plain(Written):
    def forward(self, x):
        for _ in range(2):
            q, k, v = (each.transpose(1, 2) for each in self.qkv(x).view(*x.shape[:2], 3, 4, 4).unbind(2))
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            x = (self.out(y.transpose(1, 2).reshape(x.shape)) + x).tanh()
        return self.head(x.mean(1))


def built(kind: type[nn.Module] = Written, **options) -> nn.Module:
    torch.manual_seed(2)
    return kind(**options).double().eval()


def drawn(batch: int = 2, tokens: int = 6) -> Tensor:
    return torch.randn(batch, tokens, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("method", ALL_THREE)
@pytest.mark.parametrize("options", [{}, {"weights_last": True}, {"in_place": True}], ids=str)
def test_any_way_of_writing_gives_the_same(method, options):
    true = heedmap.explain(built(Plain), drawn(), logit(1), method=method)["x"]
    assert off(heedmap.explain(built(**options), drawn(), logit(1), method=method)["x"], true) <= 1e-5


@pytest.mark.parametrize("method", ALL_THREE)
@pytest.mark.parametrize("name", ["nn-encoder-unmasked", "nn-encoder-time-first", "hand-one-head"])
def test_as_many_tokens_as_examples(method, name):
    model, x = model_of(name), inputs_of(name)["x"][:, :3]
    together = heedmap.explain(model, {"x": x}, logit(1), method=method)["x"]
    alone = [heedmap.explain(model, {"x": x[i : i + 1]}, logit(1), method=method)["x"] for i in range(3)]
    assert off(together, torch.cat(alone)) <= 1e-9


@pytest.mark.parametrize("method", ALL_THREE)
def test_weights_put_in_place_of_a_calls_own(method):
    model, inputs = model_of("vit"), inputs_of("vit")
    own = heedmap.weights(model, inputs)
    same, other = ({1: own[1]}, {1: own[1].flip(-1)})
    plain = explained("vit", method)["pixel_values"]
    if method == "partial-lrp":  # in the others, constants hand their half to no queries and keys
        assert off(explained("vit", method, edits=same)["pixel_values"], plain) <= 1e-9
    assert off(explained("vit", method, edits=other)["pixel_values"], plain) > 0.01


# ------------------------------------------------------------------------------------------- what is refused


class Sorting(Written):
    def forward(self, x):
        return super().forward(x).cumsum(-1)


class Hidden(Written):
    """Changes what a view was made of, and then uses the view."""

    def forward(self, x):
        x = self.out(x)
        view = x[:, :, :]
        x += 1
        return super().forward(view)


def test_an_operation_without_a_rule_is_named():
    with pytest.raises(UnsupportedError, match=r"arrives at cumsum in Sorting, .* use heed or gae here"):
        heedmap.explain(built(Sorting), drawn(), logit(1), method="lrp")


def test_what_is_changed_behind_its_name_is_refused():
    with pytest.raises(HeedmapError, match="changed in place through a view"):
        heedmap.explain(built(Hidden), drawn(), logit(1), method="lrp")


def test_a_declared_stream_is_refused_by_the_one_that_needs_its_layout():
    wiring = {0: {"reading": "mine", "read": "mine"}}
    with pytest.raises(UnsupportedError, match=r"declared stream 'mine'.*t-attr"):
        explained("vit", "lrp", wiring=wiring)
    assert off(explained("vit", "t-attr", wiring=wiring)["mine"], explained("vit", "t-attr")["pixel_values"]) <= 1e-12


def test_a_target_that_reads_two_tensors_of_one_line_is_refused():
    with pytest.raises(UnsupportedError, match="one is made from the other"):
        heedmap.explain(
            model_of("clip"),
            inputs_of("clip", 1),
            lambda output: output.logits_per_image[:, 0] + output.logits_per_text[:, 0],
            method="lrp",
        )


@pytest.mark.parametrize(
    ("method", "option"), [("lrp", {"rules": "alpha"}), ("partial-lrp", {"rules": 1}), ("t-attr", {"start": -1})]
)
def test_odd_options_are_refused(method, option):
    with pytest.raises(InputError, match=next(iter(option))):
        heedmap.METHODS[method].run(model_of("vit"), inputs_of("vit"), [logit(1)], **option)


@pytest.mark.parametrize("method", ALL_THREE)
def test_the_model_is_as_it_was(method):
    from torch.overrides import _get_current_function_mode_stack

    model = copy.deepcopy(model_of("vit"))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    heedmap.explain(model, inputs_of("vit"), logit(1), method=method)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(each.grad is None and each.requires_grad for each in model.parameters())
    assert _get_current_function_mode_stack() == []


@pytest.mark.parametrize("method", ALL_THREE)
def test_a_model_in_half_precision_is_gone_through_in_float32(method):
    model, inputs = copy.deepcopy(model_of("bert")).to(torch.bfloat16), BY_NAME["bert"].inputs(2)
    e = heedmap.explain(model, inputs, logit(1), method=method)
    assert e["input_ids"].dtype == torch.float32
    assert e["input_ids"].isfinite().all()
    if method == "lrp":
        assert torch.allclose(e["input_ids"].sum(1), torch.ones(2), atol=1e-3), "the total is kept"
