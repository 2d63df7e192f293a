"""Weights that stand in place of a call's own: in every seam, exactly, and known to be no longer the model's."""

import math

import pytest
import torch
import torch.nn.functional as F
from builders import BY_NAME, FAMILIES
from runs import eager_model_of, lifted, model_of
from torch import Tensor, nn

import heedmap
from heedmap import logit
from heedmap.capture import Recording, record
from heedmap.errors import InputError

NAMES = [family.name for family in FAMILIES]
EAGER = [family.name for family in FAMILIES if family.eager and family.name != "llama-padded"]  # its output has NaN


def numbers(output) -> list[Tensor]:
    """All floating tensors of an output."""
    values = [output] if isinstance(output, Tensor) else list(output.values())
    return [each.detach() for each in values if isinstance(each, Tensor) and each.is_floating_point()]


def ran(model, inputs, edits=None):
    torch.manual_seed(0)
    with record(model, inputs, edits=edits) as recording:
        return numbers(recording.output), len(recording.calls)


def unchanged(model, inputs):
    """Every call edited with the weights that it forms itself."""
    torch.manual_seed(0)
    own = heedmap.weights(model, inputs)
    plain, calls = ran(model, inputs)
    edited, _ = ran(model, inputs, dict(enumerate(own)))
    assert len(own) == calls
    for before, after in zip(plain, edited, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_its_own_weights_leave_a_model_as_it_is(name):
    unchanged(model_of(name), lifted(BY_NAME[name].inputs(2), torch.float64))


@pytest.mark.parametrize("name", EAGER)
def test_its_own_weights_leave_an_eager_model_as_it_is(name):
    unchanged(eager_model_of(name).double(), lifted(BY_NAME[name].inputs(2), torch.float64))
    eager_model_of(name).float()


# ------------------------------------------------------------------------------------ against equations written by hand

TOKENS, CHANNELS, HEADS, CLASSES, DEPTH = 7, 12, 3, 5, 3


class Block(nn.Module):
    def __init__(self, seam: str) -> None:
        super().__init__()
        self.seam = seam
        self.q, self.k, self.v, self.o, self.mlp = (nn.Linear(CHANNELS, CHANNELS) for _ in range(5))
        self.before, self.after = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        x = x + (self.fused(y) if self.seam == "mha" else self.o(self.attend(y)))
        return x + F.gelu(self.mlp(self.after(x)))

    def attend(self, y: Tensor) -> Tensor:
        q, k, v = (f(y).unflatten(-1, (HEADS, -1)) for f in (self.q, self.k, self.v))
        if self.seam == "einsum":
            weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(math.sqrt(q.shape[-1])).softmax(-1)
            return torch.einsum("bkhd,bhqk->bqhd", v, weights).flatten(2)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        if self.seam == "sdpa":
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.seam == "bmm":  # heads folded into the batch
            q, k, v = (each.flatten(0, 1) for each in (q, k, v))
            folded = torch.bmm(torch.bmm(q, k.mT).div(math.sqrt(q.shape[-1])).softmax(-1), v)
            return folded.unflatten(0, (-1, HEADS)).transpose(1, 2).flatten(2)
        return ((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2).flatten(2)

    def fused(self, y: Tensor) -> Tensor:
        packed = torch.cat([f.weight for f in (self.q, self.k, self.v)])
        bias = torch.cat([f.bias for f in (self.q, self.k, self.v)])
        y = y.transpose(0, 1)
        out, _ = F.multi_head_attention_forward(
            y, y, y, CHANNELS, HEADS, packed, bias, None, None, False, 0.0, self.o.weight, self.o.bias,
            training=False, need_weights=False,
        )  # fmt: skip
        return out.transpose(0, 1)


class Stack(nn.Module):
    def __init__(self, seam: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(seam) for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CLASSES)
        self.eval().double()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def by_hand(model: Stack, x: Tensor, weights: list[Tensor], label: int) -> tuple[Tensor, Tensor]:
    """The value, and the row of the rollout of gradient * weights; weights are leaves, and hang on nothing."""
    leaves = [each.clone().requires_grad_() for each in weights]
    for block, leaf in zip(model.blocks, leaves, strict=True):
        v = block.v(block.before(x)).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        x = x + block.o((leaf @ v).transpose(1, 2).flatten(2))
        x = x + F.gelu(block.mlp(block.after(x)))
    value = model.head(model.norm(x)[:, 0])[:, label]
    identity = torch.eye(TOKENS, dtype=torch.float64)
    relevance = identity
    for leaf, gradient in zip(leaves, torch.autograd.grad(value.sum(), leaves), strict=True):
        relevance = (identity + (gradient * leaf).mean(1)) @ relevance
    return value.detach(), (relevance - identity)[:, 0].detach()


def stack(seam: str) -> tuple[Stack, Tensor]:
    torch.manual_seed(1)
    return Stack(seam), torch.randn(2, TOKENS, CHANNELS, dtype=torch.float64)


def random_weights() -> list[Tensor]:
    """No rows of probabilities: they sum to anything, and some are negative."""
    return list(torch.randn(DEPTH, 2, HEADS, TOKENS, TOKENS, dtype=torch.float64))


SEAMS = ("sdpa", "matmul", "bmm", "einsum", "mha")


@pytest.mark.parametrize("verify", ["always", False])
@pytest.mark.parametrize("seam", SEAMS)
def test_an_edited_model_is_explained_exactly(seam, verify):
    model, x = stack(seam)
    weights = random_weights()
    value, row = by_hand(model, x, weights, 3)
    e = heedmap.explain(model, (x,), logit(3), edits=dict(enumerate(weights)), verify=verify)
    torch.testing.assert_close(e.value, value, rtol=0, atol=1e-9)
    torch.testing.assert_close(e["x"], row, rtol=0, atol=1e-9 * float(row.abs().max()))


@pytest.mark.parametrize("seam", SEAMS)
def test_the_other_calls_keep_their_weights(seam):
    """One call edited: the same as writing its weights into the model's own forward pass."""
    model, x = stack(seam)
    edit = random_weights()[1]
    e = heedmap.explain(model, (x,), logit(3), edits={1: edit}, verify="always")
    own = heedmap.weights(model, (x,))
    block = model.blocks[1]
    block.seam, block.attend = (
        "edited",
        lambda y: (edit @ block.v(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)).transpose(1, 2).flatten(2),
    )
    torch.testing.assert_close(e.value, model(x)[:, 3].detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(own[0].sum(-1), torch.ones(2, HEADS, TOKENS, dtype=torch.float64))


def test_gradients_of_edits_are_there_for_whoever_asks():
    model, x = stack("sdpa")
    leaf = random_weights()[2].requires_grad_()
    with record(model, (x,), edits={2: leaf}) as recording:
        (gradient,) = torch.autograd.grad(recording.output[:, 0].sum(), leaf)
    assert gradient.abs().max() > 0
    heedmap.explain(model, (x,), 0, edits={2: leaf})
    assert leaf.grad is None


# --------------------------------------------------------------------------------------------------- what is refused


def test_an_edit_of_another_shape_is_refused():
    model, x = stack("sdpa")
    with pytest.raises(InputError, match=r"edit of call 1 \(blocks.1\).*\(2, 3, 7, 7\).*expected \(batch, head, query"):
        heedmap.explain(model, (x,), 0, edits={1: torch.zeros(2, HEADS, TOKENS, TOKENS - 1)})


def test_an_edit_of_a_call_that_is_not_is_refused():
    model, x = stack("matmul")
    with pytest.raises(InputError, match=r"edits names 9, and Stack attends 3 times.*0 to 2"):
        heedmap.explain(model, (x,), 0, edits={9: torch.zeros(2, HEADS, TOKENS, TOKENS)})


# ------------------------------------------------------------------------------------- trust is not carried across


@pytest.mark.parametrize("edited_first", [True, False])
def test_edited_and_plain_are_probed_each_by_itself(monkeypatch, edited_first):
    probes = []
    pull = Recording.pull
    monkeypatch.setattr(Recording, "pull", lambda self, *args: probes.append(1) or pull(self, *args))
    model, x = stack("sdpa")
    some, all_of_them = {1: random_weights()[1]}, dict(enumerate(random_weights()))
    runs = [None, some, all_of_them]
    for edits in reversed(runs) if edited_first else runs:
        probes.clear()
        heedmap.explain(model, (x,), 0, edits=edits)
        assert probes, "met for the first time"
        probes.clear()
        heedmap.explain(model, (x,), 0, edits=edits and {i: 2 * weights for i, weights in edits.items()})
        assert not probes, "the same calls are edited: it is trusted"


def test_a_model_whose_edited_tokens_are_mixed_is_still_refused():
    model, x = stack("sdpa")
    model.blocks[1].register_forward_hook(lambda module, given, output: output + output.roll(1, 1))
    with pytest.raises(heedmap.errors.WiringError):
        heedmap.explain(model, (x,), 0, edits=dict(enumerate(random_weights())))
