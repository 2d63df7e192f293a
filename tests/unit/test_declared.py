"""What inference finds may be declared instead: the wiring call by call, and where the walk starts."""

import copy

import pytest
import torch
from builders import CLASSES, settle
from cases import explain, family, identical, inputs_of, off, shared, target_of
from torch import nn

import heedmap
from heedmap import Readout, errors, logit
from heedmap.records import Call, State

IMAGE = "pixel_values"
INFERRED = ["vit", "bert", "t5", "lxmert", "detr", "clip", "nn-encoder", "hand-one-head"]


def as_found(wiring: heedmap.Wiring) -> dict[int, dict[str, str]]:
    """The declaration of what was inferred."""
    return {call.index: {"reading": str(call.reading), "read": str(call.read)} for call in wiring.calls}


def by_module(wiring: heedmap.Wiring) -> dict[str, dict[str, str]]:
    return {call.module: {"reading": str(call.reading), "read": str(call.read)} for call in wiring.calls}


def diagonal(output):
    return output.logits_per_image.diagonal() * 20


def target(name: str, batch: int = 2):
    if name == "clip":
        return (lambda output: output.logits_per_image[0, :1] * 20) if batch == 1 else diagonal
    return target_of(name, batch)


# ------------------------------------------------------------------------------------------- wiring


@pytest.mark.parametrize("name", INFERRED)
def test_declaring_what_is_inferred_changes_nothing(name):
    batch = 1 if name == "clip" else 2
    model, inputs = shared(name), inputs_of(name, batch)
    expected = heedmap.explain(model, inputs, target(name, batch))
    declared = as_found(expected.wiring)
    e = heedmap.explain(model, inputs, target(name, batch), wiring=declared, verify="always")
    assert identical(e, expected)
    assert heedmap.wiring(model, inputs, wiring=declared) == expected.wiring
    assert e.readout == expected.readout


@pytest.mark.parametrize("name", ["vit", "bert", "detr"])
def test_a_call_may_be_named_by_its_module(name):
    model, inputs = shared(name), inputs_of(name, 2)
    expected = heedmap.explain(model, inputs, target(name))
    assert len(by_module(expected.wiring)) == len(expected.wiring.calls)
    e = heedmap.explain(model, inputs, target(name), wiring=by_module(expected.wiring), verify="always")
    assert identical(e, expected)


def test_one_call_may_be_declared_and_the_others_inferred():
    model, inputs = shared("t5"), inputs_of("t5", 2)
    expected = heedmap.explain(model, inputs, target("t5"))
    for index, ends in as_found(expected.wiring).items():
        for end, state in ends.items():
            e = heedmap.explain(model, inputs, target("t5"), wiring={index: {end: state}}, verify="always")
            assert identical(e, expected), (index, end)


def test_a_stream_may_be_renamed():
    model, inputs = shared("vit"), inputs_of("vit", 2)
    expected = heedmap.explain(model, inputs, target("vit"))
    wiring = {0: {"reading": "patches", "read": "patches"}}
    e = heedmap.explain(model, inputs, target("vit"), wiring=wiring, verify="always")
    assert e.streams == ("patches",)
    assert torch.equal(e["patches"], expected[IMAGE])
    assert e.wiring.calls[1].reading == State("patches", 0)


@pytest.mark.parametrize("verify", ["always", False])
def test_a_new_stream_ends_the_walk(verify):
    """From the middle on the tokens are called otherwise: what flowed from there on is theirs."""
    model, inputs = shared("vit", torch.float64), inputs_of("vit", 2, torch.float64)
    wiring = {1: {"reading": "halfway", "read": "halfway"}}
    e = heedmap.explain(model, inputs, target("vit"), wiring=wiring, verify=verify)
    assert [stream for stream in e.streams if e.row(stream).any()] == ["halfway"]
    assert e.wiring.tokens["halfway"] == 10
    last = last_layer_alone(model, inputs)
    assert off(e["halfway"], last) <= 1e-5


def last_layer_alone(model, inputs):
    """What flowed through the second layer only: its map's CLS row, taken by weights and gradient in float32."""
    model = type(model)(copy.deepcopy(model.config)).eval()
    model.load_state_dict(shared("vit", torch.float64).state_dict())
    model.to(torch.float64).set_attn_implementation("eager")
    output = model(**inputs, output_attentions=True)
    value = 20 * (output.logits[0, 3] + output.logits[1, 1])
    weights = output.attentions[1]
    (gradient,) = torch.autograd.grad(value, [weights])
    return (gradient * weights).mean(1)[:, 0].detach()


class Splicing(nn.Module):
    """A language model that is shown an image: encoded patches take the place of tokens in the text."""

    def __init__(self):
        super().__init__()
        self.words, self.patches = nn.Embedding(40, 16), nn.Linear(8, 16)
        layer = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "dropout": 0.0, "batch_first": True}
        self.seeing = nn.TransformerEncoderLayer(**layer)
        self.first, self.second = (nn.TransformerEncoderLayer(**layer) for _ in range(2))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, input_ids, patches):
        seen = self.seeing(self.patches(patches))
        words = self.words(input_ids)
        here = (input_ids == 3).unsqueeze(-1).expand_as(words)
        return self.answer(words.masked_scatter(here, seen))

    def answer(self, joint):
        return self.head(self.second(self.first(joint))[:, -1])


@pytest.fixture
def splicing():
    torch.manual_seed(4)
    model = Splicing().eval()
    settle(model)
    ids = torch.tensor([[7, 3, 3, 3, 8, 9], [3, 3, 9, 3, 4, 4]])
    return model, {"input_ids": ids, "patches": torch.randn(2, 3, 8)}


def test_a_splice_is_followed_and_refused_by_methods_that_do_not_follow(splicing):
    model, inputs = splicing
    e = heedmap.explain(model, inputs, logit(3))
    assert e.streams == ("patches", "input_ids")
    shown = inputs["input_ids"] == 3
    assert not e["input_ids"][shown].any()
    assert e["input_ids"][~shown].all()
    with pytest.raises(errors.WiringError, match=r"spliced.*declare it: wiring=\{1: .*'tam' does not follow"):
        heedmap.explain(model, inputs, logit(3), method="tam")


class Answering(nn.Module):
    """The second half of the splicing model, given what was spliced."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, joint):
        return self.model.answer(joint)


ALL_JOINT = {1: {"reading": "joint", "read": "joint"}, 2: {"reading": "joint@1", "read": "joint@1"}}


@pytest.mark.parametrize(
    ("wiring", "verify"),
    [
        ({1: ALL_JOINT[1]}, "always"),
        (ALL_JOINT, "always"),
        (ALL_JOINT, False),
    ],
    ids=["the call that is named", "all calls", "all calls, not verified"],
)
def test_a_splice_that_is_declared_ends_the_walk(splicing, wiring, verify):
    model, inputs = splicing
    e = heedmap.explain(model, inputs, 20 * logit(3), wiring=wiring, verify=verify)
    assert [stream for stream in e.streams if e.row(stream).any()] == ["joint"]
    seen = model.seeing(model.patches(inputs["patches"]))
    words = model.words(inputs["input_ids"])
    joint = words.masked_scatter((inputs["input_ids"] == 3).unsqueeze(-1).expand_as(words), seen).detach()
    alone = heedmap.explain(Answering(model), {"joint": joint}, 20 * logit(3))
    assert off(e["joint"], alone["joint"]) <= 1e-5


def test_a_bare_name_is_the_stream_as_its_last_call_left_it():
    """The messages suggest wiring={1: {"reading": "stream", ...}}: taking that at its word must not lose call 0."""
    wiring = {1: {"reading": IMAGE, "read": IMAGE}}
    e = explain(shared("vit"), "vit", wiring=wiring, verify="always")
    assert e.wiring.calls[1].reading == e.wiring.calls[1].read == State(IMAGE, 0)
    assert identical(e, explain(shared("vit"), "vit"))


def test_counts_that_do_not_fit_a_declared_stream_are_refused():
    found = explain(shared("t5"), "t5").wiring
    decoder = next(call for call in found.calls if call.kind == "B").reading.stream
    wrong = {next(call for call in found.calls if call.kind == "B").index: {"read": decoder}}
    with pytest.raises(errors.WiringError, match=r"7 keys.*4 tokens"):
        explain(shared("t5"), "t5", wiring=wrong)


# ------------------------------------------------------------------------------------------- readout


@pytest.mark.parametrize("name", ["vit", "bert", "nn-encoder", "t5"])
def test_declaring_the_rows_that_are_inferred_changes_nothing(name):
    expected = explain(shared(name), name, 1)
    stream = [call.reading.stream for call in expected.wiring.calls][-1]
    row = expected.starts[stream][0].argmax().item()
    assert expected.starts[stream][0, row] == 1
    for rows in (row, [row], row - expected[stream].shape[1]):
        for after in (None, expected.wiring.calls[-1].index):
            e = explain(shared(name), name, 1, readout=Readout(stream, after=after, rows=rows))
            assert off(e[stream], expected[stream]) <= 1e-6
            assert e.readout == expected.readout


def dense_rows(name: str, after: int):
    """Every row of the walk begun after a call: one explanation for each."""
    stream, tokens = IMAGE, 10
    rows = [explain(shared(name), name, readout=Readout(stream, after=after, rows=row)) for row in range(tokens)]
    return torch.stack([e[stream] for e in rows], dim=1), torch.stack([e.row(stream) for e in rows], dim=1)


@pytest.mark.parametrize("after", [0, 1])
def test_all_rows_give_column_totals(after):
    e = explain(shared("vit"), "vit", readout=Readout(IMAGE, after=after, rows="all"))
    flows, rows = dense_rows("vit", after)
    assert off(e[IMAGE], flows.sum(1)) <= 1e-5
    assert off(e.row(IMAGE), rows.sum(1)) <= 1e-5
    assert torch.equal(e.starts[IMAGE], torch.ones(2, 10))
    assert e.readout == (f"{IMAGE}@{after}, rows 0 to 9",)


@pytest.mark.parametrize("chosen", [[0], [3, 7], [9, 0, 4], (1, 2)])
def test_a_list_of_rows_shares_the_weight(chosen):
    e = explain(shared("vit"), "vit", readout=Readout(IMAGE, after=0, rows=chosen))
    flows, _ = dense_rows("vit", 0)
    assert off(e[IMAGE], flows[:, list(chosen)].mean(1)) <= 1e-5
    assert torch.allclose(e.starts[IMAGE].sum(1), torch.ones(2))


def test_a_walk_begun_in_the_middle_knows_nothing_of_what_comes_later():
    """After call 0 there is one map: a row of it is what flowed. (The model's own softmax is in float32.)"""
    model, inputs = shared("vit", torch.float64), inputs_of("vit", 2, torch.float64)
    e = heedmap.explain(model, inputs, target("vit"), readout=Readout(IMAGE, after=0, rows="all"))
    model = type(model)(copy.deepcopy(model.config)).eval().to(torch.float64)
    model.load_state_dict(shared("vit", torch.float64).state_dict())
    model.set_attn_implementation("eager")
    output = model(**inputs, output_attentions=True)
    (gradient,) = torch.autograd.grad(20 * (output.logits[0, 3] + output.logits[1, 1]), [output.attentions[0]])
    assert off(e[IMAGE], (gradient * output.attentions[0]).mean(1).sum(1).detach()) <= 1e-5


def test_several_readouts_add_up():
    """LXMERT's semantic reading: both encoders at once are what each gives by itself."""
    found = explain(shared("lxmert"), "lxmert").wiring
    text, image = found.streams
    declared = [Readout(text, after=1, rows=0), Readout(image, after=2, rows="all")]
    both = explain(shared("lxmert"), "lxmert", readout=declared)
    for item in declared:
        alone = explain(shared("lxmert"), "lxmert", readout=item)
        assert alone.streams == (item.stream,)
        assert torch.equal(alone[item.stream], both[item.stream])
    assert len(both.readout) == 2


def test_a_readout_makes_a_target_of_two_depths_possible():
    class TwoDepths(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = shared("vit")

        def forward(self, pixel_values):
            output = self.inner(pixel_values, output_hidden_states=True)
            return output.logits + output.hidden_states[1][:, 1, :CLASSES]

    model, inputs = TwoDepths(), inputs_of("vit", 2)
    with pytest.raises(errors.ReadoutError, match=r"readout=heedmap\.Readout\('pixel_values'"):
        heedmap.explain(model, inputs, 20 * logit(3))
    e = heedmap.explain(model, inputs, 20 * logit(3), readout=Readout(IMAGE, rows=0))
    assert e.readout == (f"{IMAGE}@1, row 0",)
    assert e[IMAGE].any()


def test_the_noise_links_state_may_be_named_beside_the_variant():
    expected = explain(shared("vit"), "vit", correction="positive", noise=f"{IMAGE}@0")
    assert identical(explain(shared("vit"), "vit", method="heed:positive+noise", noise=f"{IMAGE}@0"), expected)


# ------------------------------------------------------------------------------------------- records


def test_a_state_is_written_as_it_is_read():
    wiring = explain(shared("t5"), "t5").wiring
    for call in wiring.calls:
        assert wiring.state(str(call.state)) == call.state
    for stream in wiring.streams:
        last = [call.index for call in wiring.calls if call.reading.stream == stream][-1]
        assert wiring.state(stream) == State(stream, last)


def test_a_stream_whose_name_holds_an_at_sign():
    call = Call(0, "m", "s", State("a@1"), State("a@1"), 2, 2, 1, "A")
    wiring = heedmap.Wiring((call,), {"a@1": 2})
    assert wiring.state("a@1@0") == State("a@1", 0)


def test_the_table_has_a_line_for_each_call():
    wiring = heedmap.wiring(shared("lxmert"), inputs_of("lxmert", 2))
    lines = str(wiring).splitlines()
    assert len(lines) == 1 + len(family("lxmert").steps)
    for line, call in zip(lines[1:], wiring.calls, strict=True):
        assert f"{call.reading} <- {call.read}" in line
        assert call.module in line
