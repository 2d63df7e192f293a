"""Grad-CAM on attention, Grad-CAM and LayerCAM on the features of tokens: each restated by hand."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from builders import BY_NAME, FAMILIES
from dense import share_of_rows
from readings import gradcam_attention, heard, last_steps
from runs import dense_run, lifted, model_of
from torch import Tensor, nn

import heedmap
from heedmap import logit
from heedmap.errors import InputError, UnsupportedError
from heedmap.methods.gradcam import _map as gradcam_map
from heedmap.methods.gradcam_attention import _row
from heedmap.methods.layercam import _map as layercam_map

FEATURES = {  # the module whose output, or input, the answer's stream last reads; and the tokens of its stream
    ("vit", 10): ("vit.layers.1.layernorm_before", "output"),
    ("dinov2", 10): ("dinov2.encoder.layer.1.norm1", "output"),
    ("bert", 7): ("bert.encoder.layer.0", "output"),
    ("gpt2", 7): ("transformer.h.1.ln_1", "output"),
    ("detr", 6): ("model.encoder", "output"),
    ("detr", 5): ("model.decoder.layers.0", "output"),
    ("lxmert", 5): ("lxmert.encoder.x_layers.0", "second output"),
    ("nn-encoder", 6): ("encoder.layers.0", "output"),
    ("nn-encoder-time-first", 6): ("encoder.layers.0", "output, tokens first"),
    ("hand-one-head", 6): ("layers.2.0", "input"),
}
CAMS = ["gradcam", "layercam"]


def explained(name: str, method: str, batch: int = 3) -> heedmap.Explanation:
    family = BY_NAME[name]
    torch.manual_seed(0)
    inputs = lifted(family.inputs(batch), torch.float64)
    return heedmap.explain(model_of(name), inputs, family.ask, method=method, verify="always")


def same(found: Tensor, true: np.ndarray, tolerance: float = 1e-9) -> bool:
    """NaN where the true one is, and else equal relative to the largest of an example."""
    found, silent = found.numpy(), np.isnan(true)
    scale = np.nanmax(np.abs(true), axis=-1, keepdims=True)
    near = np.abs(found - true) <= tolerance * scale + (scale == 0) * tolerance
    return bool((np.isnan(found) == silent).all() and (near | silent).all())


def stream_of(e: heedmap.Explanation, tokens: int) -> str:
    (stream,) = [stream for stream in e.streams if e[stream].shape[1] == tokens]
    return stream


# ------------------------------------------------------------------------------------------- on attention


@pytest.mark.parametrize("over", ["others", "all"])
@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_on_attention(name, over):
    family, run, e = BY_NAME[name], dense_run(name, 3), explained(name, f"gradcam-attention:{over}")
    reads = [(family.steps[end].reading, share_of_rows(run.row_norms[end])) for end in family.ends]
    hears = heard(run.weights, family.steps, reads)
    for end in family.ends:
        reading, rows = family.steps[end].reading, share_of_rows(run.row_norms[end])
        for stream, index in last_steps(family.steps, reading).items():
            each = zip(run.weights[index], run.gradients[index], rows, hears[reading], strict=True)
            true = np.stack([gradcam_attention(*one, stream == reading, over) for one in each])
            assert same(e[stream_of(e, family.tokens[stream])], true)


def test_a_head_of_one_gradient_weighs_by_it():
    weights, each = torch.rand(2, 3, 4, 4).softmax(-1), torch.tensor([0.5, -2.0, 1.0])
    row, counts = torch.eye(4)[:1].expand(2, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    gradient = each[:, None, None].expand_as(weights)
    true = (each[:, None] * weights[:, :, 0]).mean(1).clamp(min=0)
    assert torch.allclose(_row(weights, gradient, row, counts), true)
    assert torch.allclose(_row(weights, 7 * gradient, row, counts), 7 * true)
    assert not _row(weights, -gradient.abs(), row, counts).any()


# ------------------------------------------------------------------------------------------- on features


@cache
def by_hand(name: str, path: str, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and their gradient, (batch, token, channel), from the model's own module by name."""
    family, model = BY_NAME[name], copy.deepcopy(model_of(name))
    met: list[Tensor] = []

    def keep(module, given, output):
        found = given if side == "input" else output
        if side.startswith("second"):
            found = found[1:]
        while not torch.is_tensor(found):
            found = found[0]
        met.append(found)

    model.get_submodule(path).register_forward_hook(keep)
    inputs = {key: x.requires_grad_() if x.is_floating_point() else x
              for key, x in lifted(family.inputs(3), torch.float64).items()}  # fmt: skip
    (gradient,) = torch.autograd.grad(family.ask(model(**inputs)).sum(), met[:1])
    pair = [met[0].detach(), gradient]
    return tuple((x.transpose(0, 1) if side.endswith("first") else x).numpy() for x in pair)


def cam(name: str, tokens: int, method: str) -> np.ndarray:
    family, run = BY_NAME[name], dense_run(name, 3)
    features, gradient = by_hand(name, *FEATURES[name, tokens])
    reading, rows = family.steps[family.ends[-1]].reading, share_of_rows(run.row_norms[family.ends[-1]])
    (stream,) = [each for each, n in family.tokens.items() if n == tokens]
    weights = run.weights[last_steps(family.steps, reading)[stream]]
    maps = []
    for f, g, a, row in zip(features, gradient, weights, rows, strict=True):
        counts = (a > 0).any((0, 1))
        if stream == reading and (counts & (row == 0)).any():
            counts &= row == 0
        pooled = g[counts].mean(0) if method == "gradcam" else np.maximum(g, 0)
        silent = np.where((a > 0).any((0, 1)), np.nan, 0)  # a mask hides it, or it is the answer's own
        maps.append(np.where(counts, np.maximum((pooled * f).sum(-1), 0), silent))
    return np.stack(maps)


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize(("name", "tokens"), FEATURES)
def test_on_the_features_of_the_named_module(name, tokens, method):
    e = explained(name, method)
    true = cam(name, tokens, method)
    assert np.nansum(true) > 0
    assert same(e[stream_of(e, tokens)], true)
    assert not any(start.any() for start in e.starts.values())


def test_cls_gets_no_number():
    e, every = explained("vit", "gradcam"), explained("vit", "gradcam-attention:all")
    assert e["pixel_values"].isnan().sum(1).tolist() == [1, 1, 1]
    assert e["pixel_values"][:, 0].isnan().all()
    assert not every["pixel_values"].isnan().any()


def test_where_the_answer_reads_all_tokens_all_count():
    assert not explained("hand-one-head", "layercam")["x"].isnan().any()


@pytest.mark.parametrize("method", ["gradcam-attention", "gradcam", "layercam"])
@pytest.mark.parametrize("name", ["vit", "bert", "lxmert", "gpt2"])
def test_an_example_is_the_same_alone(name, method):
    family, together = BY_NAME[name], explained(name, method)
    for i in range(3):
        inputs = {key: x[i : i + 1] for key, x in lifted(family.inputs(3), torch.float64).items()}
        last = family.ask.last[i:] if family.ask.last else None
        ask = dataclasses.replace(family.ask, index=family.ask.index[i:], last=last)
        alone = heedmap.explain(model_of(name), inputs, ask, method=method)
        pairs = [(alone[stream][0], together[stream][i]) for stream in together.streams]
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("method", ["gradcam-attention", "gradcam", "layercam"])
def test_several_targets_are_as_each_by_itself(method):
    model, inputs = model_of("detr"), lifted(BY_NAME["detr"].inputs(2), torch.float64)
    targets = [logit(1, query=2), logit(0, query=4)]
    for e, target in zip(heedmap.explain_each(model, inputs, targets, method=method), targets, strict=True):
        alone = heedmap.explain(model, inputs, target, method=method)
        assert all(torch.allclose(e[s], alone[s], rtol=1e-12, equal_nan=True) for s in e.streams)


def test_laws_of_the_two_maps():
    features, gradient = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    counts = torch.tensor([[False, True, True, True, True]]).expand(2, 5)
    constant = gradient[:, :1].expand_as(gradient)
    elementwise = (constant * features).sum(-1).clamp(min=0)  # ODAM's form
    assert torch.allclose(gradcam_map(features, constant, counts), elementwise, atol=1e-6)
    assert not layercam_map(features, -gradient.abs(), counts).any()
    positive = (gradient.abs() * features.abs()).sum(-1)
    assert torch.allclose(layercam_map(features.abs(), gradient.abs(), counts), positive)


class Bare(nn.Module):
    """What is read passes through no linear map."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(nn.functional.scaled_dot_product_attention(x, x, x)[:, 0])


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_what_no_linear_map_made_is_refused(method):
    with pytest.raises(UnsupportedError, match=rf"not a linear map of the tokens .*\. {method} takes models"):
        heedmap.explain(Bare().eval(), torch.randn(2, 6, 8), logit(1), method=method)


def test_a_wrong_word_is_said():
    from heedmap.methods.gradcam_attention import gradcam_attention

    with pytest.raises(InputError, match="over is 'patches'"):
        gradcam_attention(model_of("vit"), lifted(BY_NAME["vit"].inputs(1), torch.float64), [logit(1)], over="patches")
