"""Layers on several devices, offloaded, or with quantised weights: the same map, or a word on what to do."""

import contextlib
import tempfile
import warnings
from typing import ClassVar

import pytest
import torch
from cases import explain, fresh, identical, most_off, scores
from elsewhere import FAR, FARTHER, HERE, Devices, bare, spread
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from heedmap import errors

PLACES = {  # which modules lie where; what is not named stays here
    "vit": {"vit.layers.1": FAR, "vit.layernorm": FARTHER, "classifier": FARTHER},
    "bert": {"bert.encoder.layer.1": FAR, "classifier": FARTHER},
    "llama": {"model.layers.1": FAR, "lm_head": FARTHER},
    "t5": {"encoder.block.1": FAR, "decoder.block.0": FARTHER, "decoder.block.1": FAR},
    "lxmert": {"lxmert.encoder.x_layers.0": FAR, "lxmert.encoder.x_layers.1": FARTHER},
}
WAYS = [{}, {"correction": "positive"}, {"method": "gae"}, {"method": "rollout"}]


# -------------------------------------------------------------------------------------------------- several devices


def test_these_devices_refuse_to_be_mixed():
    with Devices():
        far = torch.ones(2).to(FAR)
        assert far.device == FAR
        assert (far + torch.tensor(1.0)).device == torch.zeros(2, device=FAR).device == FAR
        with pytest.raises(RuntimeError, match="several devices"):
            far + torch.ones(2)
        with pytest.raises(RuntimeError, match="several devices"):
            far.to(FARTHER).mul_(far)
        assert torch.equal(bare(far), torch.ones(2))


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, way) for name in PLACES for way in WAYS] + [("t5", {"correction": "positive", "noise": True})],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "heed",
)
def test_layers_on_several_devices(name, options):
    true = explain(fresh(name), name, **options)
    with Devices():
        model = spread(fresh(name), PLACES[name])
        e = explain(model, name, verify="always", **options)
        rows = {f"row of {stream}": e.row(stream) for stream in e.streams}
    assert {each.device for each in (*scores(e).values(), *rows.values())} == {e.value.device}
    assert e.value.device == {"t5": HERE, "lxmert": HERE}.get(name, FARTHER)
    found = {key: bare(each) for key, each in scores(e).items()}
    for key, each in scores(true).items():
        assert (found[key] - each).abs().max() <= 1e-6 * each.abs().max()
    assert bare(e.value).tolist() == pytest.approx(true.value.tolist(), rel=1e-5)


# --------------------------------------------------------------------------------------------------------- offloaded


class Offload:
    """Weights of one module are brought before its forward and dropped behind it, as accelerate does."""

    offload = True
    seen: ClassVar[list[StorageWeakRef]] = []  # the memory of all that was brought

    def __init__(self, module: nn.Module) -> None:
        self.weights_map = {
            name: parameter.detach() for name, parameter in module._parameters.items() if parameter is not None
        }
        module._hf_hook = self
        module.register_forward_pre_hook(lambda module, args: self.hold(module, "cpu"))
        module.register_forward_hook(lambda module, args, output: self.hold(module, "meta"))
        self.hold(module, "meta")

    def hold(self, module: nn.Module, device: str) -> None:
        for name, weight in self.weights_map.items():
            brought = weight.clone() if device == "cpu" else weight.to("meta")
            if device == "cpu":
                self.seen.append(StorageWeakRef(brought.untyped_storage()))
            module._parameters[name] = nn.Parameter(brought)


def unloaded(name):
    model = fresh(name)
    for module in model.modules():
        if any(parameter is not None for parameter in module._parameters.values()):
            Offload(module)
    return model


@pytest.mark.parametrize("correction", ["complete", "positive"])
@pytest.mark.parametrize("name", ["vit", "bert", "t5", "lxmert", "llama", "hand-many-heads"])
def test_offloaded_weights(name, correction):
    model = unloaded(name)
    true = explain(fresh(name), name, correction=correction)
    for _ in range(2):  # the second trusts what was checked at the first
        assert identical(explain(model, name, correction=correction), true)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("verify", [False, "always"])
def test_what_was_dropped_is_not_kept_for_the_backward_pass(verify):
    """Between forward and backward no weight is there: each is brought again."""
    model, there = unloaded("vit"), []

    def target(output):
        there.append([not weight.expired() for weight in Offload.seen])
        return 20 * output.logits[:, 1]

    Offload.seen.clear()
    explain(model, "vit", target=target, verify=verify)
    assert len(there[0]) > 30
    assert sum(there[0]) <= (3 if verify else 0)  # what is laid out before the first call is probed, and small


def test_offloaded_by_accelerate():
    accelerate = pytest.importorskip("accelerate")
    true = explain(fresh("t5"), "t5")
    with tempfile.TemporaryDirectory() as folder:
        model = fresh("t5")
        accelerate.disk_offload(model, folder, HERE)
        assert identical(explain(model, "t5", verify="always"), true)


def test_weights_that_nobody_brings_are_refused():
    model = fresh("vit")
    Offload(model.classifier)
    del model.classifier._hf_hook
    with pytest.raises(
        errors.UnsupportedError, match=r"classifier\.\w+' is on the meta device.*load the model's weights"
    ):
        explain(model, "vit")


# --------------------------------------------------------------------------------------------------------- quantised


class StraightThrough(nn.Module):
    """The numbers of a packed layer, and by autograd alone the gradient of its unpacked weights."""

    def __init__(self, packed: nn.Module) -> None:
        super().__init__()
        self.packed = packed
        weight = packed.weight()
        self.weight = nn.Parameter((weight.dequantize() if weight.is_quantized else weight).float())

    def forward(self, x):
        plain = nn.functional.linear(x, self.weight)
        return plain + (self.packed(x.detach()) - plain).detach()


def exchanged(model, kind, make):
    """A model with every module of a kind exchanged."""
    for path, module in list(model.named_modules()):
        if isinstance(module, kind):
            above, _, name = path.rpartition(".")
            setattr(model.get_submodule(above), name, make(module))
    return model


def packed(name, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(fresh(name), {nn.Linear}, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["vit", "bert", "llama"])
def test_packed_weights(name, dtype):
    """Equal to the straight-through layer, and near the model as it was before."""
    linear = torch.ao.nn.quantized.dynamic.Linear
    e = explain(packed(name, dtype), name, verify="always")
    true = explain(exchanged(packed(name, dtype), linear, StraightThrough), name)
    assert most_off(e, true) <= 1e-4
    assert 0 < most_off(e, explain(fresh(name), name)) < 0.5


def test_packed_weights_of_a_model_with_two_streams():
    e = explain(packed("t5", torch.qint8), "t5", verify="always")
    assert 0 < most_off(e, explain(fresh("t5"), "t5")) < 0.5


@contextlib.contextmanager
def quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    "form", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]
)
@pytest.mark.parametrize("name", ["vit", "t5"])
def test_torchao(name, form):
    with quietly():
        quantization = pytest.importorskip("torchao.quantization")
        model = fresh(name)
        quantization.quantize_(model, getattr(quantization, form)())
        e = explain(model, name, verify="always")
        dense = fresh(name)
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear):
                dense.get_submodule(path).weight = nn.Parameter(module.weight.dequantize())  # no longer an embedding's
        true = explain(dense, name)
    assert most_off(e, true) <= (1e-4 if "WeightOnly" in form else 0.5)
    assert most_off(e, explain(fresh(name), name)) > 0


def test_bitsandbytes_in_eight_bits():
    with quietly():
        bnb = pytest.importorskip("bitsandbytes")

        def make(linear):
            new = bnb.nn.Linear8bitLt(
                linear.in_features, linear.out_features, linear.bias is not None, has_fp16_weights=False
            )
            new.weight = bnb.nn.Int8Params(linear.weight.data, has_fp16_weights=False, requires_grad=False)
            new.bias = linear.bias
            return new.to("cpu").eval()

        for name in ("vit", "t5"):
            model = exchanged(fresh(name), nn.Linear, make)
            e = explain(model, name, verify="always")
            assert 0 < most_off(e, explain(fresh(name), name)) < 0.3


def four_bits(bnb, model):
    def make(linear):
        if linear.out_features % 64 or linear.in_features % 64:
            return linear
        new = bnb.nn.Linear4bit(linear.in_features, linear.out_features, quant_type="nf4", compute_dtype=torch.float32)
        new.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=new)
        new.bias = linear.bias
        return new.to("cpu").eval()

    return exchanged(model, nn.Linear, make)


def test_bitsandbytes_in_four_bits():
    """Equal to the unpacked weights; what it packs anew for a processor, once it has run there, has no gradient."""
    import heedmap

    with quietly():
        bnb = pytest.importorskip("bitsandbytes")

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.enter, self.q, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))

            def forward(self, x):
                x = self.enter(x)
                x = x + self.out((self.q(x) @ x.mT).softmax(-1) @ self.v(x))
                x = x + self.out((self.q(x) @ x.mT / 8).softmax(-1) @ self.v(x))
                return x[:, 0]

        torch.manual_seed(0)
        model, x = four_bits(bnb, Model().eval()), torch.randn(2, 5, 64)
        dense = Model().eval()
        for path, module in model.named_modules():
            if isinstance(module, bnb.nn.Linear4bit):
                weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                dense.get_submodule(path).weight.data, dense.get_submodule(path).bias = weight.float(), module.bias
        e, true = (heedmap.explain(each, x, 1, verify="always") for each in (model, dense))
        assert most_off(e, true) <= 1e-4
        with torch.no_grad():
            model(x)
        if getattr(model.q.weight.quant_state, "packing_format_for_cpu", False):
            with pytest.raises(errors.UnsupportedError, match=r"\w+ computes gemv_4bit.*dequantize"):
                heedmap.explain(model, x, 1, verify="always")


@pytest.fixture
def lone_operation():
    """An operation of somebody's own that has no gradient."""
    library = torch.library.Library("heedmap_tests", "FRAGMENT")
    library.define("doubled(Tensor x) -> Tensor")
    library.impl("doubled", lambda x: x.detach() * 2, "CPU")
    yield torch.ops.heedmap_tests.doubled
    library._destroy()


def test_what_hands_no_gradient_on_is_named(lone_operation):
    class Doubled(nn.Module):
        def forward(self, x):
            return lone_operation(x)

    model = fresh("hand-one-head")
    model.layers[1][1] = nn.Sequential(model.layers[1][1], Doubled())
    with pytest.raises(errors.UnsupportedError, match=r"layers\.1\.1\.1 computes doubled.*no gradient.*dequantize"):
        explain(model, "hand-one-head")
