"""Under whatever the caller has switched on, and with models in whatever state: it works, or says what to do."""

import threading

import pytest
import torch
from cases import (
    AT_RANDOM,
    BY_RELEVANCE,
    MODELS,
    PAIRS,
    TAKEN,
    expected,
    explain,
    few,
    fresh,
    identical,
    inputs_of,
    marked,
    method_of,
    most_off,
    said,
    scores,
    shared,
    target_of,
)
from snapshots import changed, model_state
from torch import nn
from torch.utils.checkpoint import checkpoint

import heedmap
from heedmap import errors, logit

LOOSE = {  # how far a map may be off where the forward itself is computed in half precision
    torch.bfloat16: 0.15,
    torch.float16: 0.02,
}
STEADY = [name for name in MODELS if name != "detr"]  # its norms make it ill-conditioned in bfloat16
UNSTEADY = {  # and methods that are, on some models; those that hand relevance down divide by numbers near 0 on all
    ("rollout:max+discard", "lxmert"),  # an entry near the threshold is kept or not
    ("gradcam-attention:others", "bert"),  # heads whose mean gradients all but cancel
    ("inputxgradient:sum", "t5"),  # a gradient through norms without a mean, down to the first embedding
}


def works_or_is_refused(ask):
    """An explanation, or the message of heedmap's refusal."""
    try:
        return ask()
    except errors.HeedmapError as error:
        return str(error)


# ------------------------------------------------------------------------------------------- switches of the caller


@pytest.mark.parametrize(("variant", "name"), PAIRS)
@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_switched_off(switch, variant, name):
    with switch():
        e = explain(shared(name), name, inputs=inputs_of(name, 2), verify="always", **few(variant))
        assert not torch.is_grad_enabled()
    assert identical(e, expected(variant, name))
    assert not e.value.is_inference()


def test_inputs_made_in_inference_mode():
    with torch.inference_mode():
        inputs = inputs_of("vit", 2)
        inputs["pixel_values"] = inputs["pixel_values"] * 1
    assert inputs["pixel_values"].is_inference()
    assert identical(explain(shared("vit"), "vit", inputs=inputs), explain(shared("vit"), "vit"))


def test_a_target_that_switches_gradients_off_is_refused():
    def target(output):
        with torch.no_grad():
            return output.logits[:, 0] * 1

    with pytest.raises(errors.DisconnectedError, match="no_grad"):
        heedmap.explain(shared("vit"), inputs_of("vit", 2), target)


@pytest.mark.parametrize(("variant", "name"), marked(pair for pair in TAKEN if pair[1] in STEADY))
def test_under_autocast(variant, name):
    true = expected(variant, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        e = explain(shared(name), name, inputs=inputs_of(name, 2), verify="always", **few(variant))
    assert {each.dtype for each in scores(e).values()} == {torch.float32}
    assert not torch.equal(e.value, true.value), "the forward was computed in half precision"
    change = most_off(e, true)
    assert change > 0 or variant in AT_RANDOM or not any(said(each).any() for each in scores(true).values())
    assert change <= LOOSE[torch.bfloat16] or method_of(variant) in BY_RELEVANCE or (variant, name) in UNSTEADY


@pytest.mark.parametrize("name", ["vit", "hand-many-heads", "nn-encoder"])
def test_what_flows_is_propagated_in_float32(name, monkeypatch):
    """The rule's own numbers are never those of autocast or of the model's half precision."""
    from heedmap.correction import CORRECTIONS

    seen = []

    def spy(gradient):
        seen.append((gradient.dtype, torch.is_autocast_enabled("cpu")))
        return gradient.clamp(min=0)

    monkeypatch.setitem(CORRECTIONS, "positive", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        explain(shared(name), name, correction="positive")
    met = len(seen)
    explain(shared(name, torch.bfloat16), name, inputs=inputs_of(name, 2, torch.bfloat16), correction="positive")
    assert len(seen) > met > 0
    assert set(seen) == {(torch.float32, False)}


@pytest.mark.parametrize("dtype", LOOSE)
@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize("correction", ["complete", "positive"])
def test_a_model_in_half_precision(correction, name, dtype):
    expected = explain(shared(name), name, correction=correction)
    e = explain(shared(name, dtype), name, inputs=inputs_of(name, 2, dtype), correction=correction, verify="always")
    assert 0 < most_off(e, expected) <= LOOSE[dtype]
    assert {e[stream].dtype for stream in e.streams} == {torch.float32}


def test_a_float64_model_is_propagated_in_float64():
    e = explain(shared("vit", torch.float64), "vit", inputs=inputs_of("vit", 2, torch.float64))
    assert e["pixel_values"].dtype == torch.float64


def test_a_default_device_and_dtype_of_the_caller():
    expected = explain(shared("vit"), "vit")
    inputs = inputs_of("vit", 2)
    with torch.device("cpu"):
        assert identical(explain(shared("vit"), "vit", inputs=inputs), expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert identical(explain(shared("vit"), "vit", inputs=inputs), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# ------------------------------------------------------------------------------------------- states of the model


@pytest.mark.parametrize("name", MODELS)
def test_frozen_parameters(name):
    model = fresh(name).requires_grad_(False)
    assert identical(explain(model, name), explain(shared(name), name))


def no_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("name", ["vit", "nn-encoder", "hand-many-heads", "lxmert"])
def test_training_mode_without_dropout_is_fine(name):
    model = no_dropout(fresh(name)).train()
    assert identical(explain(model, name), explain(shared(name), name))
    assert model.training


@pytest.mark.parametrize("name", ["vit", "bert", "t5", "nn-encoder", "hand-many-heads"])
def test_training_mode_with_dropout_is_refused(name):
    model = fresh(name).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    before = model_state(model)
    with pytest.raises(errors.NotEvalError) as caught:
        explain(model, name)
    message = str(caught.value)
    assert "dropout is active" in message
    assert "training mode" in message
    assert "model.eval()" in message
    assert changed(before, model_state(model)) == []


def test_attention_that_drops_out_its_weights_is_refused():
    model = fresh("vit").train()
    for module in model.modules():
        if hasattr(module, "attention_dropout") or hasattr(module, "dropout_prob"):
            module.attention_dropout = module.dropout_prob = 0.25
    with pytest.raises(errors.NotEvalError, match=r"attention drops out 0.25 of its weights.*model\.eval\(\)"):
        explain(model, "vit")


class AlwaysDrops(nn.Module):
    """A dropout that is called without saying whether it is training: torch takes it as active."""

    def __init__(self):
        super().__init__()
        self.inner = fresh("hand-one-head")

    def forward(self, x):
        return self.inner(nn.functional.dropout(x, 0.5))


def test_dropout_that_is_active_in_eval_mode_is_refused():
    with pytest.raises(errors.NotEvalError, match="dropout is active"):
        heedmap.explain(AlwaysDrops().eval(), inputs_of("hand-one-head", 2))


def test_stochastic_depth_in_training_mode_is_refused():
    import transformers as hf
    from builders import image_config, settle

    model = hf.BeitForImageClassification(image_config(hf.BeitConfig, drop_path_rate=0.5)).train()
    settle(model)
    with pytest.raises(errors.NotEvalError):
        heedmap.explain(model, inputs_of("vit", 2), logit(3))


def test_a_model_made_in_inference_mode_works_or_is_refused():
    usual = shared("vit")  # made outside: everybody shares it
    with torch.inference_mode():
        model = type(usual)(usual.config).eval()
    met = works_or_is_refused(lambda: heedmap.explain(model, inputs_of("vit", 2), logit(3)))
    assert isinstance(met, heedmap.Explanation) or "inference_mode" in met


def test_parameters_that_share_storage():
    """One matrix under two names, and views of one block of memory."""
    model = fresh("hand-one-head")
    model.layers[1][0].weight = model.layers[0][0].weight
    block = torch.cat([model.layers[0][1].weight.detach(), model.layers[1][1].weight.detach()])
    for number in (0, 1):
        model.layers[number][1].weight = nn.Parameter(block[8 * number : 8 * number + 8])
    apart = fresh("hand-one-head")
    apart.load_state_dict(model.state_dict())
    before = model_state(model)
    e = explain(model, "hand-one-head", verify="always")
    assert changed(before, model_state(model)) == []
    assert identical(e, explain(apart, "hand-one-head"))


class Twice(nn.Module):
    """One layer that is called again and again."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(self.layer(x))[:, 0]


def test_a_layer_that_is_called_twice():
    e = heedmap.explain(Twice().eval(), inputs_of("hand-one-head", 2), logit(3))
    assert [call.module for call in e.wiring.calls] == ["layer.self_attn"] * 2
    assert [call.reading.after for call in e.wiring.calls] == [None, 0]


# ------------------------------------------------------------------------------------------- compiled, checkpointed


@pytest.fixture
def dynamo():
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("name", ["vit", "nn-encoder", "hand-one-head"])
def test_a_compiled_module(name):
    model = fresh(name)
    compiled = torch.compile(model, backend="eager")
    expected = explain(shared(name), name)
    before = model_state(model)
    e = explain(compiled, name, verify="always")
    assert identical(e, expected)
    assert e.wiring == expected.wiring
    assert changed(before, model_state(model)) == []


@pytest.mark.usefixtures("dynamo")
def test_a_module_compiled_in_part_or_in_place():
    expected = explain(shared("vit"), "vit")
    part = fresh("vit")
    part.vit.layers[1] = torch.compile(part.vit.layers[1], backend="eager")
    assert identical(explain(part, "vit"), expected)
    in_place = fresh("vit")
    in_place.compile(backend="eager")
    assert identical(explain(in_place, "vit"), expected)


class CompiledInside(nn.Module):
    """A module whose forward calls a compiled function."""

    def __init__(self):
        super().__init__()
        self.inner = fresh("hand-one-head")
        self.compiled = torch.compile(lambda x: self.inner(x), backend="eager")

    def forward(self, x):
        return self.compiled(x)


@pytest.mark.usefixtures("dynamo")
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
def test_a_compiled_function_inside_a_module_works_or_is_named():
    expected = explain(shared("hand-one-head"), "hand-one-head")
    met = works_or_is_refused(lambda: explain(CompiledInside().eval(), "hand-one-head"))
    assert "compile" in met if isinstance(met, str) else identical(met, expected)


@pytest.mark.usefixtures("dynamo")
def test_two_threads_that_explain_compiled_modules_leave_the_compiler_on():
    import torch._dynamo.eval_frame as eval_frame

    first, second, over = threading.Event(), threading.Event(), threading.Event()
    models = [fresh("hand-one-head"), fresh("hand-one-head")]

    def in_first(*_):
        first.set()
        second.wait(1)

    def in_second(*_):
        second.set()
        over.wait(1)

    models[0].register_forward_hook(in_first)
    models[1].register_forward_hook(in_second)
    compiled = [torch.compile(model, backend="eager") for model in models]

    def one():
        explain(compiled[0], "hand-one-head")
        over.set()

    def two():
        first.wait(5)
        explain(compiled[1], "hand-one-head")

    threads = [threading.Thread(target=run) for run in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    try:
        assert eval_frame._stance.stance == "default"
    finally:
        torch.compiler.set_stance("default")


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool):
        super().__init__()
        self.inner, self.reentrant = fresh("hand-one-head"), reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def test_gradient_checkpointing_is_refused():
    with pytest.raises(errors.UnsupportedError, match="gradient_checkpointing_disable"):
        explain(Checkpointed(False), "hand-one-head")


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_reentrant_checkpointing_is_refused():
    with pytest.raises(errors.HeedmapError, match=r"no_grad|checkpoint"):
        explain(Checkpointed(True), "hand-one-head")


def test_a_transformers_model_that_checkpoints_is_refused():
    model = no_dropout(fresh("bert")).train()
    switch_on = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    switch_on()
    with pytest.raises(errors.UnsupportedError, match="gradient checkpointing"):
        explain(model, "bert")
    model.eval()  # in eval mode transformers leaves checkpointing off
    assert identical(explain(model, "bert"), explain(shared("bert"), "bert"))


# ------------------------------------------------------------------------------------------- without numbers


@pytest.mark.parametrize("target", [None, 20 * logit(3)], ids=["predicted", "logit"])
def test_a_model_on_the_meta_device_is_refused(target):
    model = fresh("vit").to("meta")
    inputs = {"pixel_values": torch.empty(2, 3, 12, 12, device="meta")}
    with pytest.raises(errors.HeedmapError, match="meta"):
        heedmap.explain(model, inputs, target)


def test_the_wiring_of_a_model_on_the_meta_device():
    """The table needs no numbers."""
    model = fresh("vit").to("meta")
    wiring = heedmap.wiring(model, {"pixel_values": torch.empty(2, 3, 12, 12, device="meta")})
    assert wiring == heedmap.wiring(shared("vit"), inputs_of("vit", 2))


def test_target_of_the_cases_is_settled_the_same_everywhere():
    """The batch's targets are one list, the example's its part."""
    assert repr(target_of("vit", 3)) == "20.0 * logit([3, 1, 4])"
    assert repr(target_of("vit", 1, 2)) == "20.0 * logit([4])"
