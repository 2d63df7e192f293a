"""Methods that run the model along a path, against their equations restated densely, and the laws they obey."""

from __future__ import annotations

import copy

import numpy as np
import paths
import pytest
import torch
from builders import BY_NAME
from runs import distance, lifted, model_of
from torch import nn

import heedmap
from heedmap import logit
from heedmap.errors import InputError, QuotientError, UnsupportedError
from heedmap.methods import METHODS
from heedmap.methods.bi import bi, by_head, perceived, shares
from heedmap.methods.dix import dix
from heedmap.methods.ig import ig
from heedmap.methods.tam import felt_chain, tam

NAMES = ["tam:upper", "tam:all", "dix:clean", "dix:official", "bi:head-wise", "bi:token-wise", "ig:zero"]
TWO_STREAMS = ["t5", "detr", "lxmert", "whisper"]


def asked(name: str, batch: int = 2, dtype: torch.dtype = torch.float64):
    family = BY_NAME[name]
    return model_of(name, dtype), lifted(family.inputs(batch), dtype), family.ask


def numbers_of(e: heedmap.Explanation) -> list[torch.Tensor]:
    return [*e.relevance.values(), *([] if e.pixels is None else [e.pixels])]


def row(e: heedmap.Explanation) -> np.ndarray:
    (stream,) = e.streams
    return e.row(stream).numpy()


# ------------------------------------------------------------------------------------------- the equations


@pytest.mark.parametrize("name", ["vit", "bert"])
@pytest.mark.parametrize("first", [0, 1])
def test_tam(name, first):
    model, inputs, ask = asked(name)
    (e,) = tam(model, inputs, [ask], first=first, steps=5, verify="always")
    true = paths.tam(model, inputs, ask, 0, first, 5)
    assert true.any()
    assert distance(row(e), true) <= 1e-9


@pytest.mark.parametrize("name", ["vit", "bert"])
@pytest.mark.parametrize("official", [False, True])
def test_dix(name, official):
    model, inputs, ask = asked(name)
    (e,) = dix(model, inputs, [ask], official=official, steps=4, verify="always")
    true = paths.dix(model, inputs, ask, 0, 4, official)
    assert distance(row(e), true) <= 1e-9
    other = paths.dix(model, inputs, ask, 0, 4, not official)
    assert distance(row(e), other) > 1e-3, "what is injected before the last call matters"
    (stream,) = e.streams
    assert np.allclose(row(e).sum(1), 2, atol=1e-12), "two rollouts whose rows sum to 1"
    assert not e.starts[stream][:, 1:].any()
    assert (e[stream] >= -1e-15).all()


@pytest.mark.parametrize("name", ["vit", "bert"])
@pytest.mark.parametrize("by", ["head", "token"])
def test_bi(name, by):
    model, inputs, ask = asked(name)
    theta = paths.thetas(name, model, inputs, ask) if by == "token" else None
    for first in (0, 1):
        (e,) = bi(model, inputs, [ask], by=by, first=first, steps=5, verify="always")
        true = paths.bi(model, inputs, ask, 0, first, 5, theta)
        assert distance(row(e), true) <= 1e-9


def test_ig():
    model, inputs, ask = asked("vit")
    (e,) = ig(model, inputs, [ask], steps=60)
    product, gained = paths.integrated(model, inputs, ask, 60)
    assert distance(e.pixels.flatten(1).numpy(), product.sum(1).reshape(2, -1)) <= 1e-9
    assert np.allclose(e.pixels.sum((1, 2)).numpy(), gained, rtol=0.02)
    assert e.pixels.shape == (2, 12, 12)
    assert e["pixel_values"].isnan().all()
    assert not e.starts["pixel_values"].any()


def test_ig_of_words_and_of_several_inputs_sums_to_what_was_gained():
    """The path of all inputs together, to its end where every vector is 0."""
    for name, words in (("bert", "bert.embeddings.word_embeddings"), ("lxmert", "lxmert.embeddings.word_embeddings")):
        model, inputs, ask = asked(name)
        (e,) = ig(model, inputs, [ask], steps=60)
        nothing = copy.deepcopy(model)
        nothing.get_submodule(words).register_forward_hook(lambda _, given, output: output * 0)
        with torch.no_grad():
            gained = ask(model(**inputs)) - ask(nothing(**inputs | {
                key: x * 0 for key, x in inputs.items() if key == "visual_feats"
            }))  # fmt: skip
        found = sum(e[stream].sum(1) for stream in e.streams)
        assert torch.allclose(found, gained, rtol=0.02), name
        assert set(e.streams) == set(inputs) & {"input_ids", "visual_feats"}
        padded = inputs["attention_mask"] == 0
        assert not e["input_ids"][padded].any()


class Plain(nn.Module):
    """One head of attention whose weights do not hang on what is read: everything is linear in x."""

    def __init__(self):
        super().__init__()
        self.value, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 5)

    def forward(self, x):
        weights = torch.zeros_like(x[:, :, :1] @ x[:, :, :1].mT).softmax(-1)
        return self.head((weights @ self.value(x))[:, 0])


def test_ig_of_a_linear_model_is_input_times_gradient_at_any_number_of_steps():
    torch.manual_seed(1)
    model, x = Plain().double().eval(), torch.randn(2, 3, 4, dtype=torch.float64)
    slope = (model.head.weight[2] @ model.value.weight / 3).detach()
    for steps in (1, 7):
        (e,) = ig(model, {"x": x}, [logit(2)], steps=steps)
        assert torch.allclose(e["x"], (x * slope).sum(-1), atol=1e-12)


@pytest.mark.parametrize("steps", [3, 20])
def test_ig_as_captum_has_it(steps):
    attr = pytest.importorskip("captum.attr", reason="captum is no dependency")
    model, inputs, ask = asked("vit")
    theirs = attr.IntegratedGradients(lambda x: ask.times * model(pixel_values=x).logits).attribute(
        inputs["pixel_values"], target=torch.tensor(ask.index[:2]), n_steps=steps, method="riemann_middle"
    )
    (e,) = ig(model, inputs, [ask], steps=steps)
    assert torch.allclose(e.pixels, theirs.sum(1), atol=1e-5), "its points of the path are rounded to float32"


# ------------------------------------------------------------------------------------------- laws of the parts


def stochastic(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).softmax(-1)


FIRST = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)


def test_tams_chain_sums_to_a_power_of_two_and_of_identities_is_the_raw_row():
    maps, ones = [stochastic(1, 6, 6) for _ in range(4)], torch.ones(1, 6, 6, dtype=torch.float64)
    assert torch.allclose(felt_chain(maps, ones, FIRST).sum(), torch.tensor(2.0**3, dtype=torch.float64))
    eye = torch.eye(6, dtype=torch.float64)[None]
    assert torch.allclose(felt_chain([eye, eye, maps[-1]], ones, FIRST), 4 * maps[-1][:, 0])
    assert not felt_chain(maps, 0 * ones, FIRST).any()


def test_bis_heads_share_one_and_equal_heads_are_the_map():
    weights, gradient = stochastic(2, 3, 6, 6), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    assert torch.allclose(by_head(weights, gradient).sum(-1), torch.ones(2, 6, dtype=torch.float64))
    same = weights[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(by_head(same, gradient), same[:, 0])
    assert not by_head(weights, 0 * gradient).any()


def test_bis_perception_is_the_product_of_i_plus_p():
    maps, ones = [stochastic(1, 6, 6) for _ in range(3)], torch.ones(1, 6, 6, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64)
    product = (eye + maps[2]) @ (eye + maps[1]) @ (eye + maps[0])
    flowed, began = perceived(maps, ones, FIRST)
    assert torch.allclose(flowed + began, product[:, 0])
    assert torch.equal(began, FIRST)


def test_dix_at_the_end_of_its_path_is_the_model_as_it_stands():
    model, inputs, ask = asked("vit")
    clean = paths.run(model, inputs, ask)
    e = heedmap.explain(model, inputs, ask, edits={1: heedmap.weights(model, inputs)[1]})
    assert np.allclose(e.value.numpy(), clean.value)
    # with one step the path is its two ends: nothing, and the model as it stands
    (found,) = dix(model, inputs, [ask], steps=1)
    assert distance(row(found), paths.dix(model, inputs, ask, 0, 1)) <= 1e-9


# ------------------------------------------------------------------------------------------- as all methods


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("name", ["vit", "bert", "clip", "hand-fused"])
def test_in_a_batch_as_alone_and_the_same_at_any_batch_size(method, name):
    """Also where every example is asked something else, padding differs, and several runs stand in one batch."""
    variant = METHODS[method.partition(":")[0]]
    options = dict(variant.variants[method.partition(":")[2]], steps=4)
    model, inputs, ask = asked(name, 2)
    target = logit(list(ask.index[:2])) if name != "clip" else ask
    (together,) = variant.run(model, inputs, [target], batch_size=5, **options)
    for size in (1, 64):
        (again,) = variant.run(model, inputs, [target], batch_size=size, **options)
        for a, b in zip(numbers_of(again), numbers_of(together), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
    if name == "clip":
        return  # one picture and several texts are no batch of one
    for i in range(2):
        alone = {key: x[i : i + 1] for key, x in inputs.items()}
        (e,) = variant.run(model, alone, [logit(ask.index[i])], **options)
        for a, b in zip(numbers_of(e), numbers_of(together), strict=True):
            assert torch.allclose(a[0], b[i], rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("method", NAMES)
def test_a_second_run_is_bit_equal_a_float32_model_is_near_and_the_model_untouched(method):
    model, inputs, ask = asked("vit")
    before = {key: x.clone() for key, x in model.state_dict().items()}
    a, b = (numbers_of(heedmap.explain(model, inputs, ask, method=method)) for _ in range(2))
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True))
    single, small, _ = asked("vit", dtype=torch.float32)
    near = numbers_of(heedmap.explain(single, small, ask, method=method))
    for x, y in zip(near, a, strict=True):
        assert x.dtype == torch.float32
        assert torch.allclose(x.double(), y, rtol=1e-4, atol=1e-5 * y.nan_to_num().abs().max().item(), equal_nan=True)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(x.requires_grad for x in (*a, *b))


@pytest.mark.parametrize("method", [name for name in NAMES if not name.startswith("ig")])
@pytest.mark.parametrize("name", TWO_STREAMS)
def test_models_whose_streams_read_one_another_are_refused(method, name):
    model, inputs, ask = asked(name, 1)
    with pytest.raises(UnsupportedError, match=r"reads .*takes models in which every stream reads itself alone"):
        heedmap.explain(model, inputs, ask, method=method)


@pytest.mark.parametrize("method", ["tam:all", "dix:clean", "bi:head-wise", "bi:token-wise"])
def test_edited_weights_are_kept_on_every_run(method):
    """The model with its own weights put in place of themselves is the model; with others it is another."""
    model, inputs, ask = asked("vit")
    own = heedmap.weights(model, inputs)
    plain = heedmap.explain(model, inputs, ask, method=method)["pixel_values"]
    if method == "dix:clean":  # its path does not scale the inputs, so the first call's weights stay what they are
        same = heedmap.explain(model, inputs, ask, method=method, edits={0: own[0]})["pixel_values"]
        assert torch.allclose(same, plain, rtol=1e-9)
    other = heedmap.explain(model, inputs, ask, method=method, edits={0: own[0].flip(-1)})["pixel_values"]
    assert not torch.allclose(other, plain, rtol=1e-2)


def test_a_callable_is_asked_of_every_run():
    """It is given outputs of as many examples as it was written for."""
    model, inputs, _ = asked("vit")

    def target(output):
        assert len(output.logits) == 2
        return output.logits[[0, 1], [3, 1]]

    for method in NAMES:
        called, written = (heedmap.explain(model, inputs, t, method=method) for t in (target, logit([3, 1])))
        for a, b in zip(numbers_of(called), numbers_of(written), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, equal_nan=True)


def test_a_quotient_that_turns_round_on_the_way_is_refused_and_says_where():
    model, inputs, _ = asked("vit", 1)
    model = copy.deepcopy(model)
    with torch.no_grad():
        gained = (model(**inputs).logits - model(pixel_values=inputs["pixel_values"] * 0).logits)[0]
        best = int(gained.argmax())
        other = (best + 1) % len(gained)
        model.classifier.bias += 50
        assert heedmap.explain(model, inputs, logit(other) / logit(best), method="tam").value > 0
        model.classifier.bias[best] -= model(**inputs).logits[0, best] - gained[best] / 2
    heedmap.explain(model, inputs, logit(other) / logit(best))
    with pytest.raises(QuotientError, match="On an input that this method makes of yours: The quotient"):
        heedmap.explain(model, inputs, logit(other) / logit(best), method="tam")


def test_progress_is_told_to_its_end():
    model, inputs, ask = asked("vit")
    told = {tam: 5, bi: 5, ig: 5, dix: 12}
    for method, runs in told.items():
        heard = []
        method(model, inputs, [ask], steps=5, batch_size=4, progress=lambda done, all, to=heard: to.append((done, all)))
        assert heard[-1] == (runs, runs)
        assert [done for done, _ in heard] == sorted(done for done, _ in heard)
        assert len(heard) > 1


class Looked(nn.Module):
    """Words that are looked up by an index, not by an embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Parameter(torch.randn(9, 8)), nn.Linear(8, 5)

    def forward(self, input_ids):
        x = self.words[input_ids][:, None]
        return self.head(x + nn.functional.scaled_dot_product_attention(x, x, x))[:, 0, 0]


@pytest.mark.parametrize("method", ["tam", "bi", "ig"])
def test_ids_that_no_path_leads_to_are_refused(method):
    ids = torch.tensor([[3, 1, 4], [1, 5, 2]])
    with pytest.raises(UnsupportedError, match="'input_ids' is neither floating numbers nor ids that the model embeds"):
        heedmap.explain(Looked().eval(), {"input_ids": ids}, logit(3), method=method, verify=False)


class Doubling(nn.Module):
    """What is looked up for its words is doubled, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.words, self.layer = nn.Embedding(9, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.in_place = in_place

    def forward(self, input_ids):
        x = self.words(input_ids)
        if self.in_place:
            x *= 2
        else:
            x = 2 * x
        return self.layer(x)[:, 0]


def test_ig_of_words_that_are_changed_in_place():
    found = []
    for in_place in (True, False):
        torch.manual_seed(2)
        model = Doubling(in_place).eval()
        found.append(heedmap.explain(model, {"input_ids": torch.tensor([[4, 1, 6]])}, logit(3), method="ig"))
    a, b = found
    assert a["input_ids"].all()
    torch.testing.assert_close(a["input_ids"], b["input_ids"])


class Unprojected(nn.Module):
    """Heads that go on as they are."""

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        return self.head(x + nn.functional.scaled_dot_product_attention(q, k, v)[:, 0])[:, 0]


class Gated(Unprojected):
    """Heads that are projected, and added to something else than what was read."""

    def __init__(self):
        super().__init__()
        self.out, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.head(self.out(heads) + self.other(x) + x)[:, 0]


@pytest.mark.parametrize(
    ("build", "why"), [(Unprojected, "no linear map takes the heads alone"), (Gated, "not added to what its values")]
)
def test_token_wise_refuses_blocks_of_another_make(build, why):
    model, x = build().eval(), torch.randn(2, 4, 8)
    with pytest.raises(UnsupportedError, match=rf"{why}.*Use bi:head-wise"):
        heedmap.explain(model, {"x": x}, logit(1), method="bi:token-wise", verify=False)
    assert heedmap.explain(model, {"x": x}, logit(1), method="bi:head-wise", verify=False)["x"].shape == (2, 4)


def test_theta_of_torchs_own_layers_where_tokens_stand_before_examples():
    family = BY_NAME["nn-encoder-time-first"]
    first, second = (model_of(name) for name in ("nn-encoder-time-first", "nn-encoder"))
    inputs = lifted(family.inputs(3), torch.float64)
    wired = heedmap.wiring(first, inputs)
    a, b = (shares(model, inputs, wired.calls, [3, 3], None) for model in (first, second))
    for index in a:
        assert a[index].shape == (3, 6)
        assert torch.allclose(a[index], b[index], rtol=1e-9)


@pytest.mark.parametrize(
    ("run", "options", "says"),
    [
        (tam, {"first": 2}, r"first is 2\. heedmap expected one of the stream's calls, 0 to 1"),
        (tam, {"steps": 1}, "steps is 1"),
        (bi, {"by": "heads"}, "by is 'heads'"),
        (bi, {"batch_size": 0}, "batch_size is 0"),
        (dix, {"steps": 0}, "steps is 0"),
        (ig, {"steps": 0}, "steps is 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(run, options, says):
    model, inputs, ask = asked("vit", 1)
    with pytest.raises(InputError, match=says):
        run(model, inputs, [ask], **options)
