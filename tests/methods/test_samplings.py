"""ViT-CX, TIS and Grad-ECLIP against their equations restated densely, and the laws they obey."""

from __future__ import annotations

import numpy as np
import pytest
import samplings
import torch
import transformers as hf
from builders import BY_NAME, settle
from paths import run as dense_run
from runs import distance, lifted, model_of
from torch import nn

import heedmap
from heedmap import logit
from heedmap.errors import InputError, UnsupportedError
from heedmap.methods.dense import changed
from heedmap.methods.grad_eclip import grad_eclip, heat
from heedmap.methods.tis import averaged, kmeans, sampled, tis
from heedmap.methods.vit_cx import grouped, spanned, vit_cx, weighed
from heedmap.records import Heads

NAMES = ["vit-cx", "tis", "tis:noise", "grad-eclip:one-head", "grad-eclip:official", "grad-eclip:multi-head"]
IMAGE = "pixel_values"


def asked(name: str = "vit", batch: int = 2, dtype: torch.dtype = torch.float64):
    family = BY_NAME[name]
    return model_of(name, dtype), lifted(family.inputs(batch), dtype), family.ask


def numbers_of(e: heedmap.Explanation) -> list[torch.Tensor]:
    return [*e.relevance.values(), *([] if e.pixels is None else [e.pixels])]


# ------------------------------------------------------------------------------------------- the equations


def test_vit_cx():
    model, inputs, _ = asked()
    (e,) = vit_cx(model, inputs, [logit([3, 1])], threshold=0.15, spread=0.2, seed=4, verify="always")
    for i, index in enumerate((3, 1)):
        true = samplings.vit_cx(model, inputs[IMAGE][i : i + 1], index, 3, 0.15, 0.2, 4)
        assert distance(e.pixels[i].flatten()[None].numpy(), true.reshape(1, -1)) <= 1e-9
    assert e[IMAGE].isnan().all()
    (other,) = vit_cx(model, inputs, [logit([3, 1])], threshold=0.15, spread=0.2, seed=5)
    assert not torch.allclose(other.pixels, e.pixels, rtol=1e-6), "the noise is of its seed"


def test_tis():
    model, inputs, _ = asked()
    (e,) = tis(model, inputs, [logit([3, 1])], masks=12, seed=2, verify="always")
    assert e[IMAGE][:, 0].isnan().all(), "[CLS] always stays, so nothing is known of it"
    for i, index in enumerate((3, 1)):
        true = samplings.tis(model, inputs[IMAGE][i : i + 1], index, 12, 0.5, 2)
        assert np.allclose(e[IMAGE][i, 1:].numpy(), true, rtol=1e-9, equal_nan=True)
    assert e.pixels is None


@pytest.mark.parametrize("form", ["one-head", "official", "multi-head"])
def test_grad_eclip(form):
    model, inputs, ask = asked()
    (e,) = grad_eclip(model, inputs, [ask], form=form, verify="always")
    true = samplings.grad_eclip(model, inputs, ask, form)
    assert true.any(1).all()
    assert distance(e[IMAGE][:, 1:].numpy(), true) <= 1e-9
    assert e[IMAGE][:, 0].isnan().all()
    assert torch.allclose(e.value, ask(model(**inputs))), "the value is the model's own"


# ------------------------------------------------------------------------------------------- laws of the parts


class Constant(nn.Module):
    """A ViT that always says the same, whatever it sees."""

    def __init__(self):
        super().__init__()
        self.vit = model_of("vit").vit
        self.config, self.base_model_prefix = model_of("vit").config, "vit"

    def forward(self, pixel_values):
        state = self.vit(pixel_values).last_hidden_state[:, 0, :5]
        return state - state + torch.arange(5.0, dtype=state.dtype)


def test_of_a_model_that_always_says_the_same():
    inputs = lifted(BY_NAME["vit"].inputs(2), torch.float64)
    p0 = torch.arange(5.0, dtype=torch.float64).softmax(0)[3]
    (e,) = vit_cx(Constant().eval(), inputs, [logit(3)], verify=False)
    for pixels, masks in zip(e.pixels, e.metadata["masks"].split(", "), strict=True):
        assert torch.allclose(pixels, p0 / int(masks), rtol=1e-9)
    (e,) = tis(Constant().eval(), inputs, [logit(3)], masks=50, verify=False)
    scored = e[IMAGE][:, 1:]
    assert torch.allclose(scored[~scored.isnan()], p0)


def test_vit_cx_weighs_every_pixel_by_shares_of_one_and_keeps_a_dead_channel_out():
    maps = torch.rand(7, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    maps = spanned(torch.cat([maps, maps[:2] * 2 + 1, torch.full((1, 4, 4), 3.0)]))
    masks = grouped(maps, 1e-6)
    assert len(masks) == 8, "two channels are like two others, and one is by itself"
    assert not masks[-1].any()
    ones = torch.ones(1, len(masks), dtype=torch.float64)
    assert torch.allclose(weighed([masks], ones), torch.full((1, 4, 4), 1 / 8, dtype=torch.float64))
    assert len(grouped(maps[:1], 0.1)) == 1


def test_tis_masks_are_of_one_size_and_a_patch_that_none_keeps_is_not_scored():
    points = torch.rand(300, 9, generator=torch.Generator().manual_seed(1))
    for keep, count in ((0.5, 4), (0.34, 3)):
        assert (sampled(points, 40, keep, 0).sum(1) == count).all()
    masks = torch.tensor([[[True, True, False], [True, False, False]]])
    found = averaged(masks, torch.tensor([[0.25, 0.75]]))
    assert torch.equal(found[0, :2], torch.tensor([0.5, 0.25]))
    assert found[0, 2].isnan()


def test_k_means_finds_clouds_that_lie_apart():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    points = (centres[:, None] + torch.randn(3, 40, 2, generator=generator)).flatten(0, 1)
    begun = [torch.randperm(120, generator=torch.Generator().manual_seed(seed))[:3] // 40 for seed in range(20)]
    seed = next(seed for seed, clouds in enumerate(begun) if len(clouds.unique()) == 3)
    found = {tuple(mean.round().tolist()) for mean in kmeans(points, 3, torch.Generator().manual_seed(seed))}
    assert found == {tuple(cloud.mean(0).round().tolist()) for cloud in points.unflatten(0, (3, 40))}
    for seed in range(3):
        means = kmeans(points, 5, torch.Generator().manual_seed(seed))
        assert np.allclose(means.numpy(), samplings.lloyd(points.numpy(), 5, seed), atol=1e-4)
    assert torch.equal(*(kmeans(points, 9, torch.Generator().manual_seed(5)) for _ in range(2)))
    assert len(kmeans(points, 1000, generator)) == 120


def test_grad_eclips_values_are_what_the_output_is_made_of():
    """With L = 1, the sum over all tokens of A_0j (g v_j) is g o_0; and a target twice as large is twice as hot."""
    model, inputs, ask = asked()
    clean = dense_run(model, inputs, ask)
    g, v, a = (torch.tensor(each[-1]) for each in (clean.of_outputs, clean.values, clean.weights))
    told = changed(Heads(v, weights=a), g)[:, :, 0]
    output = torch.einsum("bhj,bhjd->bhd", a[:, :, 0], v)
    assert torch.allclose((a[:, :, 0] * told).sum((1, 2)), (g[:, :, 0] * output).sum((1, 2)))
    row = torch.zeros(2, 10, dtype=torch.float64)
    row[:, 0] = 1
    assert torch.allclose(heat(Heads(v, weights=a), g, None, row)[:, 1:], told.sum(1)[:, 1:].clamp(min=0))
    for form in ("one-head", "multi-head"):
        once, twice = (grad_eclip(model, inputs, [t], form=form)[0][IMAGE] for t in (logit(3), 2 * logit(3)))
        assert torch.allclose(2 * once[:, 1:], twice[:, 1:])
        (plain,) = grad_eclip(model, inputs, [logit(3)], form=form, similarity=False)
        assert (plain[IMAGE][:, 1:] >= once[:, 1:] - 1e-12).all(), "L is at most 1"


def test_one_head_of_a_model_with_one_head_is_the_model():
    config = hf.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=1, intermediate_size=48,
                          image_size=12, patch_size=4, num_labels=5, hidden_dropout_prob=0.0)  # fmt: skip
    model = hf.ViTForImageClassification(config).double().eval()
    settle(model)
    inputs = lifted(BY_NAME["vit"].inputs(2), torch.float64)
    one, many = (grad_eclip(model, inputs, [logit(3)], form=form)[0][IMAGE] for form in ("one-head", "multi-head"))
    assert torch.allclose(one[:, 1:], many[:, 1:], rtol=1e-9)


def test_both_towers_of_clip_are_scored_and_padding_gets_nothing():
    model, inputs, ask = asked("clip")
    e = heedmap.explain(model, inputs, ask, method="grad-eclip")
    assert set(e.streams) == {"pixel_values", "input_ids"}
    ends = inputs["attention_mask"].sum(1) - 1
    for i, end in enumerate(ends.tolist()):
        words = e["input_ids"][i]
        assert words[end].isnan()
        assert words[:end].isfinite().all()
        assert words[:end].any()
        assert not words[end + 1 :].any()


# ------------------------------------------------------------------------------------------- as all methods


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("name", ["vit", "dinov2", "deit"])
def test_in_a_batch_as_alone(method, name):
    model, inputs, ask = asked(name, 2)
    together = heedmap.explain(model, inputs, logit(list(ask.index[:2])), method=method)
    for i in range(2):
        alone = heedmap.explain(model, {IMAGE: inputs[IMAGE][i : i + 1]}, logit(ask.index[i]), method=method)
        for a, b in zip(numbers_of(alone), numbers_of(together), strict=True):
            assert torch.allclose(a[0], b[i], rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("run", [vit_cx, tis])
def test_the_same_at_any_batch_size_and_progress_to_its_end(run):
    model, inputs, ask = asked("vit", 2)
    (expected,) = run(model, inputs, [ask])
    for size in (1, 6, 999):
        heard = []
        told = {"batch_size": size, "progress": lambda done, all, to=heard: to.append((done, all))}
        (e,) = run(model, inputs, [ask], **told)
        for a, b in zip(numbers_of(e), numbers_of(expected), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, equal_nan=True)
        assert heard[-1][0] == heard[-1][1]
        assert (len(heard) == 1) == (size == 999)


@pytest.mark.parametrize("method", NAMES)
def test_a_second_run_is_bit_equal_and_the_model_untouched(method):
    model, inputs, ask = asked(dtype=torch.float32)
    before, drawn = {key: x.clone() for key, x in model.state_dict().items()}, torch.get_rng_state()
    a, b = (numbers_of(heedmap.explain(model, inputs, ask, method=method)) for _ in range(2))
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True))
    assert any(x.nan_to_num().any() for x in a)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(x.requires_grad for x in a)


@pytest.mark.parametrize("method", ["vit-cx", "tis", "tis:noise"])
@pytest.mark.parametrize("name", ["bert", "detr", "clip", "lxmert", "vilt", "siglip-classifier"])
def test_what_is_no_picture_read_patch_by_patch_is_refused(method, name):
    model, inputs, ask = asked(name, 1)
    with pytest.raises(UnsupportedError, match="takes models that read the patches of one picture, in one stream"):
        heedmap.explain(model, inputs, ask, method=method)


def test_a_model_that_knows_places_otherwise_takes_noise_only():
    model, inputs, ask = asked("beit", 1)
    with pytest.raises(UnsupportedError, match=r"No token can be dropped from Beit.*Use tis:noise here"):
        heedmap.explain(model, inputs, ask, method="tis:drop")
    assert heedmap.explain(model, inputs, ask, method="tis:noise")[IMAGE][:, 1:].isfinite().all()


@pytest.mark.parametrize("name", ["t5", "detr", "lxmert", "hand-one-head"])
def test_grad_eclip_is_refused_where_the_last_attention_is_another(name):
    model, inputs, ask = asked(name, 1)
    with pytest.raises(UnsupportedError, match="grad-eclip takes models whose last attention is torch's fused one"):
        heedmap.explain(model, inputs, ask, method="grad-eclip")


def test_a_difference_is_one_of_probabilities_and_a_callable_its_own():
    model, inputs, _ = asked()
    a, b, both = (tis(model, inputs, [t], masks=9)[0][IMAGE][:, 1:] for t in (logit(3), logit(1), logit(3) - logit(1)))
    assert torch.allclose(both, a - b, equal_nan=True)
    (called,) = tis(model, inputs, [lambda output: output.logits.softmax(-1)[:, 3]], masks=9)
    assert torch.allclose(called[IMAGE][:, 1:], a, equal_nan=True)


@pytest.mark.parametrize(
    ("run", "options", "says"),
    [
        (vit_cx, {"threshold": 0}, "threshold is 0"),
        (tis, {"keep": 1.0}, r"keep 1\.0"),
        (tis, {"keep": 0.1}, r"of 9 patches none would stay"),
        (tis, {"form": "hide"}, "form is 'hide'"),
        (tis, {"batch_size": 1.5}, r"batch_size is 1\.5"),
        (grad_eclip, {"form": "two"}, "form is 'two'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(run, options, says):
    model, inputs, ask = asked("vit", 1)
    with pytest.raises(InputError, match=says):
        run(model, inputs, [ask], **options)
