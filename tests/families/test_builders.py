"""The tiny models and the oracle agree before anything is measured against them."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import BY_NAME, FAMILIES
from runs import dense_run, distance, eager_run, lifted, model_of, truth

NAMES = [family.name for family in FAMILIES]
EAGER = [family.name for family in FAMILIES if family.eager]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_dense_run_is_the_models_own(name, batch):
    """Replacing attention by its definition changes nothing, and the declared steps are the calls that ran."""
    family, run, model = BY_NAME[name], dense_run(name, batch), model_of(name)
    torch.manual_seed(0)
    with torch.no_grad():
        plain = family.ask(model(**lifted(family.inputs(batch), torch.float64)))
    assert np.abs(plain.numpy() - run.value).max() <= 1e-10
    assert np.abs(run.value).max() < 1e4
    assert len(run.weights) == len(family.steps)
    for weights, step in zip(run.weights, family.steps, strict=True):
        assert weights.shape[0] == batch
        assert weights.shape[2:] == (family.tokens[step.reading], family.tokens[step.read])


@pytest.mark.parametrize("name", NAMES)
def test_streams_can_be_told_apart_by_their_length(name):
    tokens = BY_NAME[name].tokens
    assert len(set(tokens.values())) == len(tokens)


@pytest.mark.parametrize("name", NAMES)
def test_every_call_with_a_gradient_matters(name):
    """Taming weights would hide a lost call behind the identity: here each one shows."""
    family, run = BY_NAME[name], dense_run(name, 3)
    whole = truth(family, run)
    live = [index for index, gradient in enumerate(run.gradients) if gradient.any()]
    for index in live:
        gradients = list(run.gradients)
        gradients[index] = np.zeros_like(gradients[index])
        without = truth(family, dataclasses.replace(run, gradients=gradients))
        assert max(distance(without[s].flowed, whole[s].flowed) for s in whole) > 1e-4, f"step {index}"
    dead = [family.steps[index] for index in range(len(family.steps)) if index not in live]
    assert {step.reading for step in dead} <= {"lxmert": {"image"}, "siglip-classifier": {"probe"}}.get(name, set())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vilt"])  # it draws the order of its patches
def test_examples_do_not_see_each_other(name):
    """The first of three is what it is alone, so the gradient of the sum is every example's own."""
    family = BY_NAME[name]
    alone, together = truth(family, dense_run(name, 1)), truth(family, dense_run(name, 3))
    for stream in family.tokens:
        assert distance(together[stream].flowed[:1], alone[stream].flowed) <= 1e-9


@pytest.mark.parametrize("name", EAGER)
def test_the_models_own_weights_lead_to_the_same_answer(name):
    """Float32, the model's own softmax, torch's own gradients: what the float32 comparison rests on."""
    family, run = BY_NAME[name], eager_run(name, 3)
    assert len(run.weights) == len(family.steps)
    dense = truth(family, dense_run(name, 3))
    for stream, rows in truth(family, run).items():
        assert distance(rows.flowed, dense[stream].flowed) <= 1e-5, stream


@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.returned])
def test_the_recorded_weights_are_those_the_model_returns(name):
    run = eager_run(name, 3)
    assert len(run.returned) == len(run.calls)
    for call in run.calls:
        assert any(call.weights is weights for weights in run.returned)


def test_relevance_reaches_masked_tokens_nowhere():
    """Padding is real in these inputs: tokens behind the mask receive nothing."""
    for name in ("bert", "roberta", "distilbert", "t5", "bart", "lxmert", "nn-encoder"):
        family = BY_NAME[name]
        rows = next(iter(truth(family, dense_run(name, 3)).values()))
        assert not rows.flowed[0, -2:].any(), name
        assert rows.flowed[1].all(), name


def test_a_blind_row_has_no_map():
    run = dense_run("hand-fused", 3)
    assert all(not weights[:, :, 2].any() for weights in run.weights)
    assert all(gradient[:, :, 2].any() for gradient in run.gradients[:-1])


def test_lxmert_read_one_after_the_other_is_another_answer():
    family, run = BY_NAME["lxmert"], dense_run("lxmert", 3)
    sequential = dataclasses.replace(
        family, steps=tuple(dataclasses.replace(step, together=False) for step in family.steps)
    )
    off = {s: distance(truth(sequential, run)[s].flowed, rows.flowed) for s, rows in truth(family, run).items()}
    assert max(off.values()) > 0.1, off
