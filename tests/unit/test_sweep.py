"""The sweep tells equal from different, and one class cannot end it; its oracle agrees with the papers' own."""

import os
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import BY_NAME
from dense import record, walk
from torch import nn
from transformers import CONFIG_MAPPING

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def sweep(part):
    return import_module(f"sweep.{part}")


def test_a_page_says_what_became_of_each_class(tmp_path, capsys):
    page = tmp_path / "page.md"
    names = ["BertForTokenClassification", "T5Model", "SwinModel", "DiffLlamaModel", "RTDetrModel", "ResNetModel"]
    tried = sweep("__main__").main(["--only", *names, "--workers", "1", "--out", str(page)])
    assert {each.name: each.status for each in tried} == {
        "BertForTokenClassification": "equal",
        "T5Model": "equal",
        "SwinModel": "moved",  # in windows, rolled and merged
        "DiffLlamaModel": "refused",
        "RTDetrModel": "refused",  # convolutions mix what attends before them
        "ResNetModel": "no attention",
    }
    t5 = next(each for each in tried if each.name == "T5Model")
    assert (t5.calls, t5.streams) == (6, 2)
    assert 0 < t5.difference < 1e-9
    assert t5.short > 1e-3, "the oracle without its first call is another map"
    text = page.read_text()
    assert "**3 of 6 model classes are explained and equal to the oracle**" in text
    assert "| t5 | T5Model | equal | 6 | 2 |" in text
    assert "### Two states added up: 1\n" in text
    assert "* DiffLlamaModel: explained with `wiring=` of 1 call\n" in text
    assert "; 1 of these were held against the oracle that begins there too, 0 differ." in text
    assert "* RTDetrModel: explained with `wiring=` of 1 call, equal to the oracle\n" in text
    assert "6/6 " in capsys.readouterr().out


def test_a_name_that_fits_nothing_is_refused():
    with pytest.raises(SystemExit, match="--only 'Bret' fits no model class and no model type"):
        sweep("__main__").main(["--only", "bert", "Bret"])


@pytest.mark.parametrize("name", ["t5", "lxmert", "detr", "gpt2"])
def test_the_oracle_agrees_with_the_equations_of_a_wiring_declared_by_hand(name):
    """tests/oracle is told which stream reads which; the sweep's oracle finds it out, token by token."""
    family = BY_NAME[name]
    model, inputs = family.model(), family.inputs(1)
    true = walk(record(model, inputs, family.ask), family.steps, family.tokens, family.ends)
    double = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    found = sweep("oracle").truth(model.double(), double, family.ask)
    assert found.calls == len(family.steps)
    found = found.told
    assert [len(told.flowed) for told in found] == list(family.tokens.values())
    for told, rows in zip(found, true.values(), strict=True):
        assert np.abs(told.flowed.numpy() - rows.flowed[0]).max() <= 1e-9 * np.abs(rows.flowed).max()


def test_a_map_that_is_wrong_in_one_entry_is_told():
    trying, oracle = sweep("comparing"), sweep("oracle")
    true = [oracle.Told(0, "reading", torch.tensor([1.0, -2.0, 0.5])), oracle.Told(1, "read", torch.tensor([0.25]))]
    named = {(0, "reading"): "words", (1, "read"): "pixels", (1, "reading"): "words@0"}
    flowed = {"words": torch.tensor([1.0, -2.0, 0.5]), "pixels": torch.tensor([0.25])}
    assert trying.apart(flowed, true, named) == 0.0
    wrong = {**flowed, "words": torch.tensor([1.0, -2.0, 0.5 + 1e-4])}
    assert trying.apart(wrong, true, named) == pytest.approx(5e-5, rel=1e-2)
    assert trying.apart({"words": flowed["words"]}, true, named) == 0.125, "a stream that was not reached"
    assert trying.apart({**flowed, "more": torch.ones(2)}, true, named) == 0.5, "a stream that nothing flowed from"
    assert trying.apart({**flowed, "words": torch.ones(4)}, true, named) == float("inf")
    assert trying.apart(flowed, true, {**named, (1, "read"): "words"}) == float("inf"), "two sources of one name"
    assert trying.apart({**flowed, "pixels": torch.tensor([float("nan")])}, true, named) == float("inf")


class Mixed(nn.Module):
    """Two attention layers, and something between them."""

    def __init__(self, between):
        super().__init__()
        self.embed, self.between = nn.Embedding(9, 8), between
        self.layers = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.layers[0](x, x, x)[0]
        x = self.between(x)
        return x + self.layers[1](x, x, x)[0]


IDS = torch.tensor([[3, 1, 4, 1, 5, 2]])


def mixed(between):
    torch.manual_seed(3)
    return Mixed(between).double().eval()


def told(between):
    (one,) = sweep("oracle").truth(mixed(between), {"ids": IDS}, lambda output: output[:, 0].sum(-1) ** 3, True).told
    return one


def test_tokens_that_move_are_followed_and_tokens_that_mix_are_not_compared():
    plain, rolled = (told(between) for between in (nn.Identity(), lambda x: x.roll(1, 1)))
    assert not torch.allclose(plain.flowed, rolled.flowed)
    assert plain.places == rolled.places == [("ids", i, i) for i in range(6)]
    for mix in (lambda x: x + x.roll(1, 1), lambda x: x.unfold(1, 2, 1).mean(-1)):
        with pytest.raises(sweep("oracle").NotComparedError, match="queries of call 1 are mixed from several tokens"):
            told(mix)


def attended(layer, x):
    """The weights of a layer, and what its tokens take by them."""
    projected = nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias)
    q, k, v = (each.unflatten(-1, (2, 4)).transpose(1, 2) for each in projected.chunk(3, -1))
    weights = (q @ k.mT / 2).softmax(-1)
    return weights, (weights @ v).transpose(1, 2).flatten(2)


def test_tokens_that_become_one_are_weighed_by_the_gradient_at_each():
    """R of a pair is the mean of theirs by the size of the target's gradient at what each took from the first call."""
    model = mixed(lambda x: x.unflatten(1, (3, 2)).mean(2))
    x = model.embed(IDS)
    a, took = attended(model.layers[0], x)
    y = model.between(x + model.layers[0].out_proj(took))
    b, read = attended(model.layers[1], y)
    output = y + model.layers[1].out_proj(read)
    gradient, by_a, by_b = torch.autograd.grad(output[:, 0].sum(-1) ** 3, [took, a, b])
    one, two = ((by * weights).mean(1)[0].detach().numpy() for by, weights in ((by_a, a), (by_b, b)))
    size = np.linalg.norm(gradient[0].numpy(), axis=-1).reshape(3, 2)
    merge = np.zeros((3, 6))
    for pair, share in enumerate(size / size.sum(1, keepdims=True)):
        merge[pair, 2 * pair : 2 * pair + 2] = share
    true = ((np.eye(3) + two) @ merge @ (np.eye(6) + one) - merge)[0]
    np.testing.assert_allclose(told(model.between).flowed.numpy(), true, rtol=0, atol=1e-9 * np.abs(true).max())


# x and y in a grid of 2 x 3 tokens, and how near it each token is
POINTS = {
    (1 / 2, 3 / 4): [0, 0, 0, 0, 1, 0],  # on the middle of a token
    (1 / 3, 1 / 2): [1 / 4, 1 / 4, 0, 1 / 4, 1 / 4, 0],
    (1, 3 / 8): [0, 0, 3 / 8, 0, 0, 1 / 8],  # on the border: half of it lies beyond
    (2, 1 / 4): [0] * 6,
}


def points_of(value, value_spatial_shapes, sampling_locations, attention_weights, mode="bilinear"):
    """As models write it, of one level."""
    grid = value.flatten(2).mT.unflatten(1, (2, 4)).flatten(0, 1).unflatten(2, value_spatial_shapes[0])
    places = 2 * sampling_locations[:, :, :, 0].transpose(1, 2).flatten(0, 1) - 1
    found = nn.functional.grid_sample(grid, places, mode=mode, padding_mode="zeros", align_corners=False)
    return (found * attention_weights.transpose(1, 2).reshape(2, 1, 2, 4)).sum(-1).reshape(1, 8, 2).mT


class Pointing(nn.Module):
    """Two queries that take from four points of a grid."""

    def __init__(self, mode="bilinear"):
        super().__init__()
        self.mode, self.lay, self.weigh = mode, nn.Linear(5, 8), nn.Linear(8, 8)
        self.queries = nn.Parameter(torch.randn(1, 2, 8))

    def forward(self, pixels):
        value = self.lay(pixels).unflatten(-1, (2, 4))
        weights = self.weigh(self.queries).view(1, 2, 2, 4).softmax(-1)
        places = torch.tensor(list(POINTS), dtype=torch.float64).expand(1, 2, 2, 1, 4, 2)
        return self.queries + points_of(value, [(2, 3)], places, weights.view(1, 2, 2, 1, 4), self.mode)


def pointing(mode="bilinear"):
    torch.manual_seed(3)
    model, pixels = Pointing(mode).double().eval(), {"pixels": torch.randn(1, 6, 5).double()}
    return model, pixels, lambda output: output[:, 0].sum(-1) ** 3


def test_points_between_tokens_are_shared_out_among_the_tokens_around():
    """The gradient of a point's weight is what lies there times the output's; the border's tokens share it whole."""
    model, inputs, ask = pointing()
    found = sweep("oracle").truth(model, inputs, ask)
    weights = model.weigh(model.queries).view(2, 2, 4).softmax(-1)[0].detach().numpy()  # head, point
    value = model.lay(inputs["pixels"]).view(6, 2, 4).detach().numpy()
    near = np.array(list(POINTS.values()))
    by_output = 3 * model(**inputs)[0, 0].sum().item() ** 2  # the same for each channel
    gradient = np.einsum("pt,thc->hp", near, value) * by_output
    share = near / np.maximum(near.sum(1, keepdims=True), 1e-9)
    true = np.einsum("hp,pt->t", gradient * weights, share) / 2
    assert found.calls == 1
    queries, tokens = found.told
    assert not queries.flowed.any()
    np.testing.assert_allclose(tokens.flowed.numpy(), true, rtol=0, atol=1e-9 * np.abs(true).max())


def test_points_that_are_not_between_tokens_are_not_compared():
    own = points_of
    with pytest.raises(ValueError, match="points_of does not sample between tokens"):
        sweep("oracle").truth(*pointing("nearest"))
    assert points_of is own


class Both(nn.Module):
    """Two streams that read each other by the same scores."""

    def forward(self, one, two):
        scores = torch.bmm(one, two.transpose(1, 2))
        return torch.bmm(scores.softmax(-1), two), torch.bmm(scores.transpose(1, 2).softmax(-1), one)


def test_scores_may_be_read_from_both_ends():
    one, two = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    with sweep("attending").watched(Both(), cut=False) as calls:
        Both()(one, two)
    assert [call.queries is each for call, each in zip(calls, (one, two), strict=True)] == [True, False]
    assert torch.equal(calls[1].queries, two)


class Parted(nn.Module):
    """Attention of its part answers otherwise when it is written out."""

    def __init__(self):
        super().__init__()
        self.config, self.part = SimpleNamespace(_attn_implementation="eager"), nn.Module()
        self.part.config = SimpleNamespace(_attn_implementation="sdpa")

    def set_attn_implementation(self, name):
        self.config._attn_implementation = self.part.config._attn_implementation = name

    def forward(self):
        return torch.tensor(1.0 if self.part.config._attn_implementation == "sdpa" else 2.0)


def test_each_part_keeps_the_attention_it_had_where_another_answers_otherwise():
    trying = sweep("trying")
    built = trying.Built(Parted(), {}, lambda output: output, torch.float32)
    trying.eager(built)
    assert trying.seeded(built) == 1


def test_moved_tokens_are_held_against_each_other_in_the_order_of_their_places():
    in_order, oracle = sweep("comparing").in_order, sweep("oracle")
    patches = [("pixels", 8, 15), None, ("pixels", 0, 7), ("pixels", 16, 23)]
    true = [oracle.Told(0, "reading", torch.tensor([2.0, 9.0, -1.0, 4.0]), patches)]
    true.append(oracle.Told(2, "reading", torch.tensor([0.5, 0.0]), [("ids", 1, 1), ("ids", 3, 3)]))
    words = {"ids": torch.tensor([0.0, 0.5, 0.0, 0.0])}
    assert in_order({"pixels": torch.tensor([-1.0, 2.0, 4.0]), **words}, true) == 0.0, "a learned one is nobody's"
    assert in_order({"pixels": torch.tensor([9.0, -1.0, 2.0, 4.0]), **words}, true) == 0.0, "or a token of the stream"
    assert in_order({"pixels (rearranged)": torch.tensor([2.0, 9.0, -1.0, 4.0]), **words}, true) == 0.0
    assert in_order({"pixels": torch.tensor([2.0, -1.0, 4.0]), **words}, true) == pytest.approx(3 / 9)
    assert in_order({"pixels": torch.tensor([-1.0, 2.0, 4.1]), **words}, true) == pytest.approx(0.1 / 9)
    assert in_order({"pixels": torch.tensor([-1.0, 2.0]), **words}, true) == float("inf")
    assert in_order({"pixels": torch.tensor([-1.0, 2.0, 4.0])}, true) == pytest.approx(0.5 / 9), "words that have none"
    halves = torch.tensor([-0.5, -0.5, 1.0, 1.0, 2.0, 2.0])
    assert in_order({"pixels": halves, **words}, true) == 0.0, "merged before any attention"


def test_each_refusal_is_in_a_group_that_says_what_to_declare():
    refusals, tried = sweep("refusals"), sweep("trying").Tried
    known = [name for one in refusals.GROUPS for name in one.types.split()]
    assert len(known) == len(set(known))
    assert set(known) <= set(CONFIG_MAPPING)

    def title(model_type, why, then=""):
        return refusals.group(tried("Any", model_type, "refused", why, then=then)).title

    assert title("wav2vec2", "Tokens are moved or mixed") == "A convolution over neighbouring tokens"
    assert title("nobody", "Call 1 is spliced", "9 of the 9 tokens are mixed with others") == title("wav2vec2", "")
    assert title("nobody", "a model that nobody has met") == "Other"
    assert title("wav2vec2", "The target does not depend on any attention call.") == "The number asked for"


def test_what_is_declared_is_what_the_messages_ask_for():
    from heedmap.errors import ReadoutError, WiringError

    asked = []

    def explain(**given):
        asked.append(given)
        if len(asked) == 1:
            raise ReadoutError("Declare the rows that speak: readout=heedmap.Readout('from 2 on', rows=...).")
        return Found()

    class Found:
        streams = ("words",)

        def __getitem__(self, stream):
            return torch.tensor([0.0, float(len(asked) < 4)])

    error = WiringError('heedmap expected one state; declare it: wiring={2: {"reading": "stream", "read": "stream"}}.')
    assert sweep("declaring").declared(explain, error)[0] == "`wiring=` of 1 call and `readout=`"
    assert [sorted(each) for each in asked] == [["wiring"], ["readout", "wiring"]]
    assert asked[1]["wiring"] == {2: {"reading": "from 2 on", "read": "from 2 on"}}
    assert sweep("declaring").declared(explain, WiringError("nothing to declare")) == ("", None)
    asked += [{}, {}]
    assert sweep("declaring").declared(explain, error) == ("", None), "nothing flows from what was declared"


def test_neither_a_crash_nor_a_loop_ends_the_sweep():
    pool, found = sweep("pool"), sweep("finding").Found
    trying = sweep("trying")

    def attempted(each):
        if each.name == "Crash":
            os._exit(3)
        if each.name == "Loop":
            time.sleep(60)
        return trying.Tried(each.name, each.model_type, "equal")

    todo = [found(name, "none", "") for name in ("Crash", "Loop", "Fine")]
    ended = {each.name: (each.status, each.why) for each in pool.results(todo, 2, 1.0, attempted)}
    assert ended == {
        "Crash": ("not built", "ended by exit 3"),
        "Loop": ("not built", "not done in 1 seconds"),
        "Fine": ("equal", ""),
    }


def test_every_class_is_named_once():
    names = [each.name for each in sweep("finding").classes()]
    assert len(names) == len(set(names)) > 500
    assert {"ViTForImageClassification", "LlamaForCausalLM", "DetrForObjectDetection"} <= set(names)
