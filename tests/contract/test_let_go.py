"""Nothing is held on to: no graph, no tensor of the forward pass, no frame of the caller."""

import gc
import weakref

import pytest
import torch
from cases import HOMES, MODELS, explain, few, fresh, inputs_of, once_each, shared, target_of, tensors
from torch import Tensor

import heedmap

ONCE_EACH = [("heed", name) for name in MODELS] + [*once_each(HOMES)]


@pytest.fixture(autouse=True)
def only_what_is_new():
    """Leave out of count, and out of the collector's way, what was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def live() -> int:
    """Tensors that Python can reach and that were made in this test."""
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def settled() -> int:
    gc.collect()
    return live()


@pytest.mark.parametrize(("variant", "name"), ONCE_EACH)
def test_only_the_explanation_is_left(variant, name):
    model, inputs, target = shared(name), inputs_of(name, 2), target_of(name, 2)
    heedmap.explain(model, inputs, target, **few(variant))  # what torch and the model keep by themselves
    before = settled()
    e = heedmap.explain(model, inputs, target, verify="always", **few(variant))
    assert settled() - before <= len(tensors(e))
    del e
    assert settled() == before


@pytest.mark.parametrize(("variant", "name"), ONCE_EACH)
def test_memory_is_let_go_without_the_garbage_collector(variant, name):
    model, inputs, target = shared(name), inputs_of(name, 2), target_of(name, 2)
    heedmap.explain(model, inputs, target, **few(variant))
    before = settled()
    gc.disable()
    try:
        e = heedmap.explain(model, inputs, target, verify="always", **few(variant))
        assert live() - before <= len(tensors(e))
        del e
        assert live() == before
    finally:
        gc.enable()


def test_many_explanations_take_no_more_than_one():
    heedmap.explain_each(shared("t5"), inputs_of("t5", 2), [target_of("t5", 2)])
    before = settled()
    many = heedmap.explain_each(shared("t5"), inputs_of("t5", 2), [target_of("t5", 2)] * 5)
    assert settled() - before <= sum(len(tensors(e)) for e in many)
    del many
    assert settled() == before


def test_a_failure_leaves_nothing():
    def fail(output):
        raise RuntimeError("in the target")

    explain(shared("vit"), "vit")
    before = settled()
    with pytest.raises(RuntimeError, match="in the target"):
        explain(shared("vit"), "vit", target=fail)
    assert settled() == before


def test_the_output_of_the_model_is_let_go():
    seen = []

    def target(output):
        seen.append(weakref.ref(output.logits))
        return output.logits[:, 0]

    e = explain(shared("vit"), "vit", target=target)
    gc.collect()
    assert seen[0]() is None
    assert e.value.shape == (2,)


def test_a_model_is_let_go():
    model = fresh("vit")
    explain(model, "vit")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_what_the_caller_lets_go_is_let_go():
    """The stack is looked at to name modules; looking at the caller's frames would keep their variables alive."""
    mine = torch.ones(5)
    gone = weakref.ref(mine)
    explain(shared("vit"), "vit", target=lambda output: output.logits.softmax(-1)[:, 0])
    del mine
    assert gone() is None


def test_a_kept_tensor_is_noticed():
    before = settled()
    kept = torch.ones(2)
    assert settled() == before + 1
    del kept
