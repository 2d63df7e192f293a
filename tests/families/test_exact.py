"""heedmap on the unmodified model, against the papers' equations with full matrices."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import BY_NAME, FAMILIES, Ask, Family
from dense import record
from runs import dense_run, distance, eager_model_of, eager_run, lifted, model_of, truth

import heedmap
from heedmap import logit

CORRECTIONS = ("complete", "positive", "absolute")
NAMES = [family.name for family in FAMILIES]
EAGER = [family.name for family in FAMILIES if family.eager]


def wanted(ask: Ask, batch: int):
    """The same question in heedmap's words; a field that holds no logits is asked for by a function."""
    if ask.field == "pooler_output":
        return ask
    return ask.times * logit(list(ask.index[:batch]), query=ask.query, position=ask.position)


def measured(family: Family, batch: int, dtype: torch.dtype = torch.float64, **options) -> heedmap.Explanation:
    inputs = lifted(family.inputs(batch), dtype)
    options = {"target": wanted(family.ask, batch), "verify": "always"} | options
    model = model_of(family.name, dtype)
    torch.manual_seed(0)
    return heedmap.explain(model, inputs, **options)


def by_length(streams: dict[str, int]) -> dict[int, str]:
    return {tokens: stream for stream, tokens in streams.items()}


def differences(e: heedmap.Explanation, family: Family, true) -> dict[str, float]:
    """Per stream, how far what flowed is off. A stream that nothing reaches may be left out."""
    names = by_length({stream: e[stream].shape[1] for stream in e.streams})
    off = {}
    for stream, rows in true.items():
        name = names.pop(family.tokens[stream], None)
        if name is None:
            assert not rows.row.any(), f"{stream} is missing among {e.streams}"
        else:
            off[stream] = distance(e[name].double().numpy(), rows.flowed)
    assert not names, f"nobody declared {names}"
    return off


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_exact_in_float64(name, batch, correction):
    family, run = BY_NAME[name], dense_run(name, batch)
    e = measured(family, batch, correction=correction)
    off = differences(e, family, truth(family, run, correction))
    assert max(off.values()) <= 1e-9, off
    assert np.abs(e.value.numpy() - run.value).max() <= 1e-9 * max(1, np.abs(run.value).max())


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", EAGER)
def test_float32_against_the_models_own_weights_and_gradients(name, batch, correction):
    family = BY_NAME[name]
    e = measured(family, batch, torch.float32, correction=correction, verify="once")
    off = differences(e, family, truth(family, eager_run(name, batch), correction))
    assert max(off.values()) <= 1e-5, off


@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.returned])
def test_a_model_switched_to_eager_attention_is_explained_as_well(name):
    family = BY_NAME[name]
    model = eager_model_of(name)
    torch.manual_seed(0)
    e = heedmap.explain(model, family.inputs(3), family.ask)
    off = differences(e, family, truth(family, eager_run(name, 3)))
    assert max(off.values()) <= 1e-5, off


@pytest.mark.parametrize("name", ["t5", "lxmert", "bert"])
def test_many_targets_of_one_forward_are_each_exact(name):
    family = BY_NAME[name]
    asks = [dataclasses.replace(family.ask, index=index) for index in ((3, 1, 4), (0, 2, 1), (4, 4, 0))]
    inputs = lifted(family.inputs(3), torch.float64)
    explained = heedmap.explain_each(model_of(name), inputs, [wanted(ask, 3) for ask in asks])
    for ask, e in zip(asks, explained, strict=True):
        run = record(model_of(name), inputs, ask)
        off = differences(e, family, truth(family, run))
        assert max(off.values()) <= 1e-9, (ask.index, off)


@pytest.mark.parametrize("name", NAMES)
def test_the_row_is_start_and_flow(name):
    family = BY_NAME[name]
    true = truth(family, dense_run(name, 3))
    e = measured(family, 3)
    names = by_length({stream: e[stream].shape[1] for stream in e.streams})
    for stream, rows in true.items():
        if rows.row.any():
            found = names[family.tokens[stream]]
            assert distance(e.row(found).numpy(), rows.row) <= 1e-9, stream
            assert distance((e.row(found) - e[found]).numpy(), rows.start) <= 1e-9, stream


@pytest.mark.parametrize("name", NAMES)
def test_the_wiring_is_the_declared_one(name):
    """Call by call: which stream, as it stands after which call, reads which."""
    family = BY_NAME[name]
    wiring = heedmap.wiring(model_of(name), lifted(family.inputs(3), torch.float64))
    found = [(wiring.tokens[state.stream], state.after) for call in wiring.calls for state in (call.reading, call.read)]
    last: dict[str, int] = {}
    old: dict[str, int] = {}
    expected = []
    for index, step in enumerate(family.steps):
        old = old if step.together else dict(last)
        expected.append((family.tokens[step.reading], last.get(step.reading)))
        expected.append((family.tokens[step.read], old.get(step.read)))
        last[step.reading] = index
    assert found == expected
    assert list(wiring.tokens.values()) == list(family.tokens.values())


# ------------------------------------------------------------------------------------------- starts and noise


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_semantic_reading_of_lxmert(correction):
    """The walk begun at the end of each single-modality encoder: the text's CLS, and all boxes."""
    family, run = BY_NAME["lxmert"], dense_run("lxmert", 3)
    names = by_length(heedmap.wiring(model_of("lxmert"), lifted(family.inputs(3), torch.float64)).tokens)
    for stream, step, rows, row in (("text", 1, 0, np.eye(7)[0]), ("image", 2, "all", np.ones(5))):
        name = names[family.tokens[stream]]
        readout = heedmap.Readout(name, after=step, rows=rows)
        e = measured(family, 3, correction=correction, readout=readout)
        true = truth(family, run, correction, start=(stream, step, row))[stream]
        assert distance(e[name].numpy(), true.flowed) <= 1e-9, stream
        assert distance(e.row(name).numpy(), true.row) <= 1e-9, stream


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("name", "stream", "step"), [("detr", "image", 1), ("vit", "image", 0), ("t5", "text", 1)])
def test_the_noise_link(name, stream, step, batch):
    family, run = BY_NAME[name], dense_run(name, batch)
    tokens = heedmap.wiring(model_of(name), lifted(family.inputs(batch), torch.float64)).tokens
    state = f"{by_length(tokens)[family.tokens[stream]]}@{step}"
    true = truth(family, run, "positive", noise=(stream, step))
    off = differences(measured(family, batch, correction="positive", noise=state), family, true)
    assert max(off.values()) <= 1e-9, off
    without = truth(family, run, "positive")
    assert distance(without[stream].flowed, true[stream].flowed) > 0.01


# ------------------------------------------------------------------------------------------- the comparison can fail


@pytest.mark.parametrize("name", ["vit", "t5", "lxmert"])
def test_a_map_off_by_a_millionth_is_noticed(name):
    family, run = BY_NAME[name], dense_run(name, 3)
    e = measured(family, 3)
    gradients = list(run.gradients)
    live = next(index for index, gradient in enumerate(gradients) if gradient.any())
    gradients[live] = gradients[live] * (1 + 1e-6)
    off = differences(e, family, truth(family, dataclasses.replace(run, gradients=gradients)))
    assert max(off.values()) > 1e-9, off


def test_another_targets_map_is_noticed():
    family = BY_NAME["vit"]
    e = measured(family, 3, target=20 * logit([3, 1, 3]))
    off = distance(e[e.streams[0]].numpy(), truth(family, dense_run("vit", 3))["image"].flowed)
    assert off > 0.1


def test_lxmert_read_one_after_the_other_is_noticed():
    family, run = BY_NAME["lxmert"], dense_run("lxmert", 3)
    steps = tuple(dataclasses.replace(step, together=False) for step in family.steps)
    off = differences(measured(family, 3), family, truth(dataclasses.replace(family, steps=steps), run))
    assert max(off.values()) > 0.1, off
