"""Whatever is explained is left as it was, also when something is raised on the way."""

import copy
import re

import pytest
import torch
from cases import (
    HOMES,
    MODELS,
    PAIRS,
    REFUSED_ONCE,
    explain,
    family,
    few,
    fresh,
    identical,
    inputs_of,
    once_each,
    shared,
    target_of,
)
from snapshots import changed, model_state, tensor_state, torch_state
from torch import Tensor, nn

import heedmap
from heedmap import errors


class Stop(Exception):
    pass


def outputs_of(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """All floating tensors of a plain forward pass."""
    with torch.no_grad():
        output = model(**inputs)
    values = [output] if isinstance(output, Tensor) else list(output.values())
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) > 0 and all(map(torch.equal, a, b))


@pytest.mark.parametrize(("variant", "name"), PAIRS)
def test_the_model_is_unchanged(variant, name):
    model, inputs = fresh(name), inputs_of(name, 2)
    outputs, before, switches = outputs_of(model, inputs), model_state(model), torch_state()
    explain(model, name, inputs=inputs, verify="always", **few(variant))
    assert changed(before, model_state(model)) == []
    assert changed(switches, torch_state()) == []
    assert same(outputs, outputs_of(model, inputs))


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_carries_stays(name):
    """Hooks, frozen parameters, gradients that were there before, a mixed training flag."""
    model = fresh(name)
    parameters = list(model.parameters())
    for number, parameter in enumerate(parameters):
        parameter.requires_grad_(number % 3 > 0)
        if number % 2:
            parameter.grad = torch.full_like(parameter, 0.5)
    fired = []
    inner = next(module for module in model.modules() if isinstance(module, nn.Linear))
    inner.register_forward_hook(lambda *_: fired.append("forward"))
    inner.register_forward_pre_hook(lambda *_: fired.append("pre"))
    model.register_forward_hook(lambda *_, **__: fired.append("model"), with_kwargs=True)
    next(p for p in parameters if p.requires_grad).register_hook(lambda grad: fired.append("gradient"))
    inner.train()  # a mixed training flag, of a module without dropout
    before = model_state(model)
    explain(model, name, verify="always")
    assert changed(before, model_state(model)) == []
    assert any(parameter.grad is None for parameter in parameters)
    assert fired.count("model") == 1, "the user's own hooks run, and the model runs once"
    assert fired.count("pre") == fired.count("forward") >= 1
    assert "gradient" not in fired


def hold(how: str, model: nn.Module):
    """Make a forward pass end early; what undoes it."""
    middle = [module for module in model.modules() if isinstance(module, nn.Linear)][-3:][0]
    error = {"raises": Stop("in forward"), "interrupted": KeyboardInterrupt()}[how]

    def stop(*_):
        raise error

    return middle.register_forward_hook(stop)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("how", "error"), [("raises", Stop), ("interrupted", KeyboardInterrupt)])
def test_the_model_is_unchanged_when_its_forward_ends_early(name, how, error):
    model, inputs = fresh(name), inputs_of(name, 2)
    expected = explain(model, name, inputs=inputs)
    handle = hold(how, model)
    before, switches = model_state(model), torch_state()
    with pytest.raises(error):
        explain(model, name, inputs=inputs)
    assert changed(before, model_state(model)) == []
    assert changed(switches, torch_state()) == []
    handle.remove()
    assert identical(explain(model, name, inputs=inputs), expected), "it can be explained afterwards"


def refuse(output):
    raise Stop("in the target")


def interrupt(output):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("target", "error"),
    [(refuse, Stop), (interrupt, KeyboardInterrupt), (lambda output: 3.0, errors.TargetError), (99, errors.LabelError)],
    ids=["raises", "interrupted", "not a tensor", "out of range"],
)
def test_the_model_is_unchanged_when_the_target_raises(name, target, error):
    if target == 99 and name == "t5":
        target = heedmap.logit(99, position=0)
    model, inputs = fresh(name), inputs_of(name, 2)
    expected = explain(model, name, inputs=inputs)
    before, switches = model_state(model), torch_state()
    with pytest.raises(error):
        heedmap.explain(model, inputs, target)
    with pytest.raises(error):  # the first target has been explained by then
        heedmap.explain_each(model, inputs, [target_of(name, 2), target])
    assert changed(before, model_state(model)) == []
    assert changed(switches, torch_state()) == []
    assert identical(explain(model, name, inputs=inputs), expected)


def test_the_model_is_unchanged_when_it_is_refused():
    model, rolled = fresh("vit"), fresh("vit")
    rolled.vit.layers[0].register_forward_hook(lambda module, given, output: output + output.roll(1, 1))
    before, switches, rolled_before = model_state(model), torch_state(), model_state(rolled)
    with pytest.raises(errors.WiringError):
        explain(rolled, "vit")
    assert changed(rolled_before, model_state(rolled)) == []
    with pytest.raises(errors.InputError):
        explain(model, "vit", readout=heedmap.Readout("pixel_values", rows=99))
    with pytest.raises(errors.InputError):
        explain(model, "vit", method="heed:positive+noise")
    assert changed(before, model_state(model)) == []
    assert changed(switches, torch_state()) == []


@pytest.mark.parametrize(("variant", "name"), REFUSED_ONCE)
def test_a_model_that_a_method_does_not_take_is_refused_and_unchanged(variant, name):
    """Each says what it met and what it takes: a state to name, or the models it is for."""
    model = fresh(name)
    before, switches = model_state(model), torch_state()
    with pytest.raises((errors.InputError, errors.UnsupportedError)) as caught:
        explain(model, name, method=variant, verify="always")
    assert re.search(
        r"Name the state: noise=|this model has|takes (models|blocks)|use odam:memory here", str(caught.value)
    )
    assert changed(before, model_state(model)) == []
    assert changed(switches, torch_state()) == []


@pytest.mark.parametrize("name", ["vit", "bert", "lxmert", "hand-one-head"])
def test_inputs_are_unchanged(name):
    inputs = inputs_of(name, 2)
    for tensor in inputs.values():
        if tensor.is_floating_point():
            tensor.requires_grad_()
            tensor.grad = torch.ones_like(tensor)
    before = {key: tensor_state(tensor) for key, tensor in inputs.items()}
    explain(shared(name), name, inputs=inputs, verify="always")
    assert changed(before, {key: tensor_state(tensor) for key, tensor in inputs.items()}) == []


def test_inputs_that_require_grad_get_none():
    inputs = inputs_of("vit", 2)
    inputs["pixel_values"].requires_grad_()
    e = explain(shared("vit"), "vit", inputs=inputs)
    assert inputs["pixel_values"].grad is None
    assert identical(e, explain(shared("vit"), "vit"))


def test_inputs_with_a_graph_behind_them_keep_it():
    leaf = inputs_of("vit", 2)["pixel_values"].requires_grad_()
    pixels = leaf * 1
    e = explain(shared("vit"), "vit", inputs={"pixel_values": pixels})
    assert pixels.requires_grad
    assert leaf.grad is None
    pixels.sum().backward()
    assert leaf.grad is not None
    assert identical(e, explain(shared("vit"), "vit"))


@pytest.mark.parametrize(("variant", "name"), once_each(HOMES))
def test_the_callers_random_numbers_go_on_as_if_nothing_had_happened(variant, name):
    model = fresh(name)
    state = torch.get_rng_state()
    explain(model, name, verify="always", **few(variant))
    assert torch.equal(state, torch.get_rng_state())


def test_training_goes_on_as_if_nothing_had_happened():
    """One step of training, with and without an explanation between forward and backward."""

    def step(explained: bool) -> list[Tensor]:
        torch.manual_seed(3)
        model = fresh("hand-many-heads")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = model(**inputs_of("hand-many-heads", 2)).square().sum()
        if explained:
            explain(model, "hand-many-heads")
        loss.backward()
        optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    assert all(map(torch.equal, step(True), step(False)))


def test_a_batch_norm_in_training_mode_is_refused_before_it_counts():
    model = nn.Sequential(nn.BatchNorm1d(6), fresh("hand-one-head")).train()
    before = model_state(model)
    with pytest.raises(errors.NotEvalError):
        heedmap.explain(model, torch.randn(2, 6, 8))
    assert changed(before, model_state(model)) == []


# ------------------------------------------------------------------------------------------- the guards can fail


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.head.weight.data.add_(1e-7),
        lambda m: m.head.weight.requires_grad_(False),
        lambda m: setattr(m.head.weight, "grad", torch.zeros_like(m.head.weight)),
        lambda m: setattr(m.head, "weight", nn.Parameter(m.head.weight.detach().clone())),
        lambda m: m.head.register_forward_hook(print),
        lambda m: m.head.train(),
        lambda m: setattr(m.head, "forward", m.head.forward),
        lambda m: setattr(m.head.weight, "note", 1),
    ],
)
def test_a_changed_model_is_noticed(change):
    model = fresh("hand-one-head")
    before = model_state(model)
    assert changed(before, model_state(copy.copy(model))) == []
    change(model)
    assert changed(before, model_state(model)) != []


def test_a_patched_torch_is_noticed(monkeypatch):
    before = torch_state()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "softmax", torch.softmax)
        assert changed(before, torch_state()) == ["torch.nn.functional.softmax"]
    with torch.no_grad():
        assert changed(before, torch_state()) == ["grad"]


def test_every_model_of_the_contract_has_something_to_say():
    for name in MODELS:
        e = explain(shared(name), name)
        assert all(e[stream].abs().max() > 0 for stream in e.streams), name
        assert set(map(len, map(e.__getitem__, e.streams))) == {2}
        assert {e[stream].shape[1] for stream in e.streams} == set(family(name).tokens.values())
