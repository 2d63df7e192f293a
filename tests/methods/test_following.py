"""Methods on tokens that are moved between calls: moving them is no news, and what is moved is what it was."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import heedmap
from heedmap import logit
from heedmap.errors import InputError, LabelError, MixedTokensError, UnsupportedError, WiringError
from heedmap.methods import OURS

FOLLOWING = [name for name, method in OURS.items() if method.follows]
OTHERS = [name for name in OURS if name not in FOLLOWING]
OF_THE_LAST = ["raw", "gradcam-attention", "gradcam", "layercam", "grad-eclip", "partial-lrp"]
FEW = {"dix": {"steps": 2}, "ig": {"steps": 3}, "tam": {"steps": 2}, "bi": {"steps": 2}}
WIDTH, TOKENS = 8, 6


def layer() -> nn.Module:
    made = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=True)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


class Turning(nn.Module):
    """Three layers; between them tokens change places, and the answer is read where the first one stands then."""

    def __init__(self, orders):
        super().__init__()
        self.enter = nn.Linear(4, WIDTH)
        self.layers = nn.ModuleList(layer() for _ in range(3))
        self.head = nn.Linear(WIDTH, 5)
        self.orders = orders

    def forward(self, x):
        x, first = self.enter(x), 0
        for step, order in zip(self.layers, self.orders, strict=True):
            if order is not None:
                x, first = x[:, torch.tensor(order)], order.index(first)
            x = step(x)
        return self.head(x[:, first])


STILL = [None, None, None]
TURNED = [None, [1, 2, 3, 4, 5, 0], [3, 0, 2, 5, 4, 1]]


def turning(orders) -> nn.Module:
    torch.manual_seed(1)
    return Turning(orders).double().eval()


def vectors(batch=2, tokens=TOKENS):
    return {"x": torch.randn(batch, tokens, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)}


@pytest.mark.parametrize("method", FOLLOWING)
def test_tokens_that_only_change_places_have_what_they_had(method):
    still, turned = (
        heedmap.explain(turning(orders), vectors(), logit(3), method=method, **FEW.get(method, {}))
        for orders in (STILL, TURNED)
    )
    assert (still.wiring.moved, len(turned.wiring.moved)) == ({}, 2)
    assert turned.streams == still.streams == ("x",)
    assert still["x"].nansum() != 0
    torch.testing.assert_close(turned["x"], still["x"], rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(turned.starts["x"], still.starts["x"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["gradcam", "layercam", "gradcam-attention", "grad-eclip"])
def test_a_token_that_was_dropped_has_nothing_though_the_first_one_is_not_scored(method):
    e = heedmap.explain(turning([None, None, [0, 2, 5]]), vectors(), logit(3), method=method)
    assert e["x"].isnan().tolist() == [[True] + [False] * 5] * 2
    assert not e["x"][:, [1, 3, 4]].any()
    assert e["x"][:, [2, 5]].any()


class Spliced(nn.Module):
    """Patches that read one another, put between words; `answer` is the half that reads them together."""

    def __init__(self):
        super().__init__()
        self.words, self.patches = nn.Embedding(10, WIDTH), nn.Linear(4, WIDTH)
        self.seeing, self.head = layer(), nn.Linear(WIDTH, 5)
        self.layers = nn.ModuleList(layer() for _ in range(2))

    def joined(self, input_ids, patches):
        words, seen = self.words(input_ids), self.seeing(self.patches(patches))
        return words.masked_scatter((input_ids == 3)[..., None].expand_as(words), seen)

    def answer(self, joint):
        for step in self.layers:
            joint = step(joint)
        return self.head(joint[:, -1])

    def forward(self, input_ids, patches):
        return self.answer(self.joined(input_ids, patches))


class Half(nn.Module):
    def __init__(self, whole):
        super().__init__()
        self.whole = whole

    def forward(self, joint):
        return self.whole.answer(joint)


@pytest.fixture(scope="module")
def spliced():
    torch.manual_seed(3)
    model = Spliced().double().eval()
    ids = torch.tensor([[7, 3, 3, 3, 8, 9], [3, 3, 9, 3, 4, 4]])
    return model, {"input_ids": ids, "patches": vectors(tokens=3)["x"]}


@pytest.mark.parametrize("method", OF_THE_LAST)
def test_what_the_last_attention_says_is_said_of_the_patches_that_it_reads(spliced, method):
    model, inputs = spliced
    joint = model.joined(**inputs).detach()
    half = heedmap.explain(Half(model), {"joint": joint}, logit(1), method=method)["joint"]
    e = heedmap.explain(model, inputs, logit(1), method=method)
    here = inputs["input_ids"] == 3
    torch.testing.assert_close(e["patches"].flatten(), half[here], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(e["input_ids"][~here], half[~here], rtol=1e-9, atol=1e-12, equal_nan=True)
    assert not e["input_ids"][here].any()
    assert e["patches"].any()


@pytest.mark.parametrize("method", [name for name in FOLLOWING if name not in ("ig", "inputxgradient", "random")])
def test_tokens_that_went_nowhere_take_nothing(spliced, method):
    """The patches are laid out and read, but no word stands for one."""
    model, inputs = spliced
    inputs = {**inputs, "input_ids": torch.tensor([[7, 1, 2, 0, 8, 9], [4, 5, 9, 6, 4, 4]])}
    words = model.words(inputs["input_ids"]).detach()
    half, e = (
        heedmap.explain(each, given, logit(1), method=method, **FEW.get(method, {}))
        for each, given in ((Half(model), {"joint": words}), (model, inputs))
    )
    assert e.streams == ("input_ids",) or not e["patches"].any()
    torch.testing.assert_close(e["input_ids"], half["joint"], rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(e.starts["input_ids"], half.starts["joint"], rtol=1e-9, atol=1e-12)


def test_relevance_by_rules_passes_through_a_splice(spliced):
    model, inputs = spliced
    e = heedmap.explain(model, inputs, logit(1), method="lrp")
    half = heedmap.explain(Half(model), {"joint": model.joined(**inputs).detach()}, logit(1), method="lrp")["joint"]
    here = inputs["input_ids"] == 3
    torch.testing.assert_close(e["input_ids"][~here], half[~here], rtol=1e-9, atol=1e-12)
    assert not e["input_ids"][here].any()
    assert e["patches"].all()


class Windowed(nn.Module):
    """Two windows, each read by itself; the answer is the mean of all."""

    def __init__(self):
        super().__init__()
        self.enter, self.last, self.head = nn.Linear(4, WIDTH), layer(), nn.Linear(WIDTH, 5)

    def answer(self, x):
        windows = x.reshape(-1, TOKENS // 2, WIDTH)
        return self.head(self.last(windows).reshape(x.shape)).mean(1)

    def forward(self, x):
        return self.answer(self.enter(x))


def test_the_features_of_windows_have_one_mean():
    """Grad-CAM: the mean gradient is over all tokens of a picture, and not over a window's."""
    torch.manual_seed(4)
    model = Windowed().double().eval()
    features = model.last.norm1(model.enter(vectors()["x"])).detach().requires_grad_()
    given = model.enter(vectors()["x"]).detach().reshape(-1, TOKENS // 2, WIDTH)
    windows = features.reshape(-1, TOKENS // 2, WIDTH)
    attended = given + model.last._sa_block(windows, None, None)
    y = model.head((attended + model.last._ff_block(model.last.norm2(attended))).reshape(2, TOKENS, WIDTH)).mean(1)
    (gradient,) = torch.autograd.grad(y[:, 3].sum(), features)
    expected = (gradient.mean(1, keepdim=True) * features).sum(-1).clamp(min=0).detach()
    e = heedmap.explain(model, vectors(), logit(3), method="gradcam")
    assert expected.any()
    torch.testing.assert_close(e["x"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", FOLLOWING)
def test_windows_of_a_batch_are_what_each_example_has_alone(method):
    torch.manual_seed(4)
    model, options = Windowed().double().eval(), {"method": method, **FEW.get(method, {})}
    both = heedmap.explain(model, vectors(), logit(3), **options)["x"]
    for i in (0, 1):
        alone = heedmap.explain(model, {"x": vectors()["x"][i : i + 1]}, logit(3), **options)["x"]
        assert alone.shape == (1, TOKENS)
        torch.testing.assert_close(both[i], alone[0], rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("method", OTHERS)
def test_a_method_that_does_not_follow_names_those_that_do(method, spliced):
    model, inputs = spliced
    with pytest.raises(WiringError, match="declare it: wiring=") as refused:
        heedmap.explain(model, inputs, logit(3), method=method)
    told = str(refused.value).rpartition("these methods do: ")[2]
    assert told == ", ".join(FOLLOWING) + "."


def test_a_form_without_a_meaning_there_says_which_models_it_takes(spliced):
    model, inputs = spliced
    for _ in range(2):  # the second time the model is known to move tokens
        with pytest.raises(UnsupportedError, match=r"rollout:official takes models .* Use rollout:mean here"):
            heedmap.explain(model, inputs, logit(3), method="rollout:official")
        heedmap.explain(model, inputs, logit(3), method="rollout:mean")


def test_the_page_lists_the_methods_that_follow():
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    _, _, told = page.partition("[followed](")
    told, _, _ = told.partition("all by the same ways")
    assert re.findall(r"`(\S+)`", told) == FOLLOWING


@pytest.mark.parametrize("method", ["heed", "gae", "ig"])
def test_a_mistake_in_what_is_asked_is_told_and_not_where_tokens_went(method):
    torch.manual_seed(3)
    model = Spliced().double().eval()
    inputs = {"input_ids": torch.tensor([[7, 3, 3, 3, 8, 9]]), "patches": vectors(1, 3)["x"]}
    for _ in range(2):
        with pytest.raises(LabelError, match="99"):
            heedmap.explain(model, inputs, logit(99), method=method)
        if method != "ig":
            with pytest.raises(InputError, match="No stream is called 'words'"):
                heedmap.explain(model, inputs, logit(1), method=method, readout=heedmap.Readout("words"))
        heedmap.explain(model, inputs, logit(1), method=method)


class Apart(Windowed):
    def answer(self, x):
        windows = self.last(x).split(TOKENS // 2, 1)
        return self.head(torch.cat([self.last(window) for window in windows], 1)).mean(1)


def test_what_cannot_be_followed_is_refused_in_the_same_words_every_time():
    """Windows that attend one after the other, and the answer reads two of them."""
    model = Apart().double().eval()
    told = []
    for method in ("heed", "raw", "inputxgradient", "heed", "raw"):
        try:
            heedmap.explain(model, vectors(), logit(3), method=method)
        except WiringError as error:
            told.append(str(error))
    assert len(told) == 4
    assert len(set(told)) == 1


class Mixing(Turning):
    def forward(self, x):
        x = self.layers[0](self.enter(x))
        x = (x + x.roll(1, 1)) / 2
        return self.head(self.layers[1](x)[:, 0])


@pytest.mark.parametrize("method", [name for name in FOLLOWING if name != "heed"])
def test_tokens_that_are_mixed_are_refused_as_by_heed(method):
    torch.manual_seed(1)
    model = Mixing(STILL).double().eval()
    with pytest.raises(MixedTokensError) as own:
        heedmap.explain(model, vectors(), logit(3))
    with pytest.raises(MixedTokensError) as other:
        heedmap.explain(model, vectors(), logit(3), method=method)
    assert str(other.value) == str(own.value)


def test_a_method_that_declares_itself_following_is_given_the_wiring(monkeypatch, spliced):
    from heedmap.methods import METHODS, Method, dense

    def last(model, inputs, targets, *, wiring=None, verify="once"):
        found = []
        for wired, one in dense.seen(model, inputs, targets, gradients=False, wiring=wiring, verify=verify):
            ((state, row),) = one.rows.items()
            flow = {state.stream: dense.pulled(row, one.weights[state.after].mean(1))}
            relevance, starts = dense.aligned(wired, one.ways.home(flow))
            found.append(one.asked.answered("last", "", relevance, starts, wired, one.readout))
        return found

    model, inputs = spliced
    monkeypatch.setitem(METHODS._known, "last", Method(last, {"plain": {}}, "the last attention", follows=True))
    mine, raw = (heedmap.explain(model, inputs, logit(3), method=name) for name in ("last", "raw"))
    for stream in ("patches", "input_ids"):
        assert torch.equal(mine[stream], raw[stream])
