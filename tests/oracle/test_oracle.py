"""The oracle is itself checked: against sums done by hand, against laws, and against ways of being wrong."""

import numpy as np
import pytest
import torch
from dense import (
    Record,
    Step,
    attention_map,
    beginning,
    dense_attention,
    forward,
    noised,
    record,
    share_of_rows,
    walk,
)

A = np.array([[[[0.25, 0.75], [0.5, 0.5]], [[1.0, 0.0], [0.2, 0.8]]]])  # batch 1, heads 2, 2 x 2
G = np.array([[[[4.0, -4.0], [2.0, 0.0]], [[-1.0, 9.0], [5.0, -5.0]]]])
SELF = Step("x", "x")


def made(maps, norms, value=(0.0,)):
    """A record of one head whose gradient is 1, so that its maps are the given ones."""
    maps = [np.asarray(m, float) for m in maps]
    weights = [m[:, None] for m in maps]
    return Record(weights, [np.ones_like(w) for w in weights], [np.asarray(n, float) for n in norms], np.array(value))


def random_maps(rng, steps, tokens, batch=2):
    return [rng.normal(size=(batch, tokens[s.reading], tokens[s.read])) for s in steps]


# ------------------------------------------------------------------------------------------- the equations


def test_corrections_by_hand():
    # head 1: [[1, -3], [1, 0]]; head 2: [[-1, 0], [1, -4]]
    assert np.array_equal(attention_map(A, G, "complete"), [[[0.0, -1.5], [1.0, -2.0]]])
    assert np.array_equal(attention_map(A, G, "positive"), [[[0.5, 0.0], [1.0, 0.0]]])
    assert np.array_equal(attention_map(A, G, "absolute"), [[[1.0, 1.5], [1.0, 2.0]]])


def test_two_layers_by_hand():
    first, second = [[[0.0, -1.5], [1.0, -2.0]]], [[[0.5, 0.0], [1.0, 2.0]]]
    # (I + second)(I + first) = [[1.5, 0], [1, 3]] [[1, -1.5], [1, -1]] = [[1.5, -2.25], [4, -4.5]]
    rows = walk(made([first, second], [[[0, 0]], [[3, 0]]]), [SELF, SELF], {"x": 2})["x"]
    assert np.array_equal(rows.row, [[1.5, -2.25]])
    assert np.array_equal(rows.start, [[1.0, 0.0]])
    assert np.array_equal(rows.flowed, [[0.5, -2.25]])
    both = walk(made([first, second], [[[0, 0]], [[3, 1]]]), [SELF, SELF], {"x": 2})["x"]
    assert np.allclose(both.row, [[0.75 * 1.5 + 0.25 * 4, 0.75 * -2.25 + 0.25 * -4.5]])
    assert np.allclose(both.start, [[0.75, 0.25]])


def test_cross_attention_by_hand():
    # text reads image once: R_text[image] = map @ I, R_text[text] = I
    cross = [[[1.0, -2.0, 3.0], [0.0, 5.0, 0.0]]]
    rows = walk(made([cross], [[[0, 2]]]), [Step("text", "image")], {"text": 2, "image": 3})
    assert np.array_equal(rows["image"].flowed, [[0.0, 5.0, 0.0]])
    assert np.array_equal(rows["text"].row, [[0.0, 1.0]])
    assert not rows["text"].flowed.any()


def test_gradient_one_is_the_rollout():
    rng = np.random.default_rng(0)
    weights = [rng.random((2, 3, 5, 5)) for _ in range(4)]
    ones = [np.ones_like(w) for w in weights]
    norms = [np.eye(5)[[0, 0]]] * 4
    result = walk(Record(weights, ones, norms, np.zeros(2)), [SELF] * 4, {"x": 5})["x"]
    for example in range(2):
        rollout = np.eye(5)
        for w in weights:
            rollout = (np.eye(5) + w[example].mean(axis=0)) @ rollout
        assert np.allclose(result.row[example], rollout[0])


def test_complete_with_gradients_above_zero_is_positive_and_absolute():
    rng = np.random.default_rng(1)
    weights = [rng.random((1, 2, 4, 4)) for _ in range(3)]
    for sign, same in ((1.0, True), (-1.0, False)):
        run = Record(weights, [sign * rng.random(w.shape) for w in weights], [np.ones((1, 4))] * 3, np.zeros(1))
        maps = [walk(run, [SELF] * 3, {"x": 4}, correction=c)["x"].row for c in ("complete", "positive", "absolute")]
        assert np.allclose(maps[0], maps[1]) is same
        assert np.allclose(maps[0], maps[2]) is same


def test_absolute_is_at_least_complete_entry_by_entry():
    assert (attention_map(A, G, "absolute") >= np.abs(attention_map(A, G, "complete"))).all()


def test_steps_together_read_the_old_states():
    tokens = {"text": 2, "image": 3}
    cross = [Step("text", "image"), Step("image", "text", together=True)]
    rng = np.random.default_rng(2)
    maps = random_maps(rng, cross, tokens)
    together = forward(maps, cross, tokens)[-1]
    assert np.array_equal(together["image"]["image"], beginning(2, tokens)["image"]["image"])
    assert np.allclose(together["image"]["text"], maps[1])
    sequential = forward(maps, [cross[0], Step("image", "text")], tokens)[-1]
    assert np.allclose(sequential["image"]["image"], np.eye(3) + maps[1] @ maps[0])
    assert not np.allclose(together["image"]["image"], sequential["image"]["image"])


def test_sources_stay_independent():
    """Linearly distinguished: merging two streams into one block matrix gives the same relevance."""
    tokens = {"text": 2, "image": 3}
    steps = [
        Step("text", "text"),
        Step("image", "image"),
        Step("text", "image"),
        Step("image", "text", together=True),
    ]
    maps = random_maps(np.random.default_rng(3), steps, tokens)
    after = forward(maps, steps, tokens)[-1]
    where = {"text": slice(0, 2), "image": slice(2, 5)}
    for example in range(2):
        block = np.eye(5)
        for group in ([0], [1], [2, 3]):
            update = np.eye(5)
            for k in group:
                update[where[steps[k].reading], where[steps[k].read]] += maps[k][example]
            block = update @ block
        for stream, rows in where.items():
            for source, columns in where.items():
                assert np.allclose(after[stream][source][example], block[rows, columns])


def test_noise_link_by_hand():
    state = {"x": np.array([[[1.5, 1.5], [0.0, 1.0]]]), "y": np.zeros((1, 2, 3))}
    assert np.array_equal(noised(state, "x")["x"], [[[1.25, 0.75], [0.0, 1.0]]])  # row 2 added nothing: it stays
    with pytest.raises(ValueError, match="nothing but itself"):
        noised(state | {"y": np.ones((1, 2, 3))}, "x")


def test_noise_link_sits_at_its_state():
    rng = np.random.default_rng(4)
    maps = [rng.random((1, 3, 3)) for _ in range(3)]
    run = made(maps, [np.eye(3)[[0]]] * 3)
    after = {k: walk(run, [SELF] * 3, {"x": 3}, noise=k)["x"].row for k in (None, ("x", 0), ("x", 1), ("x", 2))}
    e = (np.eye(3) + maps[1][0]) @ (np.eye(3) + maps[0][0]) - np.eye(3)
    expected = (np.eye(3) + maps[2][0]) @ (e / e.sum(axis=1, keepdims=True) + np.eye(3))
    assert np.allclose(after["x", 1], expected[0])
    assert all(not np.allclose(after[k], after["x", 1]) for k in (None, ("x", 0), ("x", 2)))


def test_a_start_half_way_ignores_what_comes_later():
    rng = np.random.default_rng(5)
    steps = [Step("text", "text"), Step("image", "image"), Step("text", "image"), Step("text", "text")]
    tokens = {"text": 2, "image": 3}
    maps = random_maps(rng, steps, tokens)
    run = made(maps, [np.ones((2, m.shape[1])) for m in maps], (0.0, 0.0))
    cls = walk(run, steps, tokens, start=("text", 0, np.array([1.0, 0.0])))
    assert np.allclose(cls["text"].flowed, maps[0][:, 0])
    assert not cls["image"].row.any()
    total = walk(run, steps, tokens, start=("image", 1, np.ones(3)))["image"]
    assert np.allclose(total.row, (np.eye(3) + maps[1]).sum(axis=1))
    assert np.allclose(total.flowed, maps[1].sum(axis=1))


def test_two_ends_begin_two_walks():
    steps, tokens = [Step("text", "text"), Step("image", "image")], {"text": 2, "image": 3}
    maps = random_maps(np.random.default_rng(6), steps, tokens, batch=1)
    rows = walk(made(maps, [[[0, 1]], [[1, 0, 0]]]), steps, tokens, ends=(0, 1))
    assert np.allclose(rows["text"].flowed, maps[0][:, 1])
    assert np.allclose(rows["image"].flowed, maps[1][:, 0])
    assert rows["text"].start.sum() == rows["image"].start.sum() == 1


def test_rows_weigh_by_their_gradient():
    assert np.array_equal(share_of_rows(np.array([[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]])), [[0.75, 0, 0.25], [0, 1, 0]])


def test_steps_and_calls_must_agree():
    with pytest.raises(ValueError, match="2 calls were recorded, 1 steps are declared"):
        forward([np.zeros((1, 2, 2))] * 2, [SELF], {"x": 2})


# ------------------------------------------------------------------------------------------- the recording


def heads(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("mask", [None, "bool", "additive", "causal"])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_dense_attention_is_torchs(mask, scale):
    q, k, v = heads(2, 4, 5, 8), heads(2, 4, 5, 8), heads(2, 4, 5, 8)
    kind = {"bool": torch.rand(2, 1, 5, 5) > 0.4, "additive": heads(2, 1, 5, 5)}.get(mask)
    if mask == "bool":
        kind[:, :, 2] = False
    options = {"attn_mask": kind, "is_causal": mask == "causal", "scale": scale}
    weights, output = dense_attention(q, k, v, **options)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
    assert torch.allclose(output, expected, atol=1e-12)
    total = weights.sum(-1)
    alive = torch.ones(2, 1, 5, dtype=torch.bool) if mask != "bool" else kind.any(-1)
    assert torch.allclose(total, alive.expand(2, 4, 5).double())
    assert (mask == "bool") == (not total[:, :, 2].any())


def test_dense_attention_knows_grouped_heads_and_unequal_lengths():
    q, k, v = heads(2, 4, 3, 8), heads(2, 2, 6, 8), heads(2, 2, 6, 8)
    for causal in (False, True):
        weights, output = dense_attention(q, k, v, is_causal=causal, enable_gqa=True)
        sdpa = torch.nn.functional.scaled_dot_product_attention
        assert torch.allclose(output, sdpa(q, k, v, is_causal=causal, enable_gqa=True), atol=1e-12)
        assert weights.shape == (2, 4, 3, 6)


def test_a_masked_row_has_a_finite_gradient():
    q, k, v = (heads(1, 1, 2, 4).requires_grad_() for _ in range(3))
    mask = torch.tensor([[True, True], [False, False]])
    weights, output = dense_attention(q, k, v, attn_mask=mask)
    for gradient in torch.autograd.grad(output.sum(), (q, k, v, weights)):
        assert gradient.isfinite().all()
    assert not weights[0, 0, 1].any()


class Plain(torch.nn.Module):
    def __init__(self, form):
        super().__init__()
        self.qkv, self.form = torch.nn.Linear(4, 12), form

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.form == "fused":
            return x + torch.nn.functional.scaled_dot_product_attention(q, k, v)
        scores = q @ k.transpose(-1, -2) / 2
        weights = {
            "method": lambda: scores.softmax(-1),
            "module": lambda: torch.nn.Softmax(-1)(scores),
            "function": lambda: torch.softmax(scores, -1),
            "bmm": lambda: torch.nn.functional.softmax(scores, dim=-1),
        }[self.form]()
        return x + (torch.bmm(weights, v) if self.form == "bmm" else weights @ v)


def first(output):
    return output[:, 0].sum(-1)


def test_every_form_records_the_same():
    runs = []
    for form in ("fused", "method", "module", "function", "bmm"):
        torch.manual_seed(1)
        runs.append(record(Plain(form), {"x": torch.randn(3, 5, 4)}, first))
    for run in runs:
        assert len(run.weights) == 1
        assert run.weights[0].shape == run.gradients[0].shape == (3, 1, 5, 5)
        assert np.allclose(run.weights[0], runs[0].weights[0])
        assert np.allclose(run.gradients[0], runs[0].gradients[0])
        assert np.allclose(run.row_norms[0], [[2, 0, 0, 0, 0]] * 3)  # the norm of four ones, in row 0 alone


def test_gradients_are_the_slopes_of_the_target():
    """dA by finite differences: the value of a call whose weights are nudged."""
    torch.manual_seed(2)
    model, x = Plain("method").double(), torch.randn(1, 3, 4, dtype=torch.float64)
    run = record(model, {"x": x}, first)
    v = model.qkv(x).chunk(3, dim=-1)[2]
    weights, step = torch.from_numpy(run.weights[0][0]), 1e-6
    for row in range(3):
        for column in range(3):
            nudge = torch.zeros(1, 3, 3).double()
            nudge[0, row, column] = step
            slope = (first(x + (weights + nudge) @ v) - first(x + weights @ v)) / step
            assert abs(slope.item() - run.gradients[0][0, 0, row, column]) < 1e-6


def test_torch_is_left_as_it_was_also_when_the_model_raises():
    names = [(torch.nn.functional, "scaled_dot_product_attention"), (torch, "matmul"), (torch, "bmm")]
    names += [(torch.Tensor, name) for name in ("matmul", "__matmul__", "bmm")]
    before = [getattr(owner, name) for owner, name in names]
    own = "matmul" in vars(torch.Tensor)
    fast = torch.backends.mha.get_fastpath_enabled()
    inside = []

    class Raises(torch.nn.Module):
        def forward(self, x):
            inside.append((torch.matmul, torch.backends.mha.get_fastpath_enabled()))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        record(Raises(), {"x": torch.randn(1, 3, 4)}, first)
    assert inside[0][0] is not before[1]
    assert inside[0][1] is False
    assert [getattr(owner, name) for owner, name in names] == before
    assert ("matmul" in vars(torch.Tensor)) == own
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_an_eager_run_refuses_the_fused_call():
    with pytest.raises(AssertionError, match="fused"):
        record(Plain("fused"), {"x": torch.randn(1, 3, 4)}, first, eager=True)


def test_the_callers_model_is_untouched():
    model = Plain("fused").requires_grad_(False)
    record(model, {"x": torch.randn(1, 3, 4)}, first)
    assert all(p.dtype == torch.float32 and not p.requires_grad and p.grad is None for p in model.parameters())
