"""The same question gets the same answer: again, alone or in a batch, in another order, from another thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from builders import BY_NAME
from cases import (
    AT_RANDOM,
    HOMES,
    MODELS,
    PAIRS,
    TAKEN,
    VARIANTS,
    admits,
    expected,
    explain,
    family,
    few,
    fresh,
    identical,
    inputs_of,
    joined,
    marked,
    method_of,
    most_off,
    off,
    once_each,
    said,
    scores,
    shared,
    target_of,
    tensors,
)
from torch import nn

import heedmap
from heedmap import logit

TRUNCATES = {  # where a padded text may be cut off instead: which inputs have tokens to cut, and of which stream
    "bert": {"input_ids": "input_ids", "attention_mask": "input_ids"},
    "t5": {"input_ids": "input_ids", "attention_mask": "input_ids"},
    "lxmert": {
        "input_ids": "input_ids",
        "attention_mask": "input_ids",
        "visual_feats": "visual_feats",
        "visual_pos": "visual_feats",
        "visual_attention_mask": "visual_feats",
    },
}
RUN_AGAIN = {"tam", "dix", "bi", "vit-cx", "tis", "grad-eclip", "ig"}  # methods that put a question to the model anew

OF_PIXELS = {"vit-cx", "ig", "inputxgradient"}  # and not of a picture's tokens
NOTHING_POSITIVE = {  # what the method clamps is below 0 in both examples, or what it discards is all there is
    ("rollout:max+discard", "hand-many-heads"),
    ("gradcam-attention:others", "hand-one-head"),
    ("gradcam-attention:all", "hand-one-head"),
    ("gradcam-attention:all", "bert"),
    ("grad-eclip:official", "bert"),
}


@pytest.mark.parametrize(("variant", "name"), PAIRS)
def test_two_runs_are_bit_equal(variant, name):
    a, b = (explain(shared(name), name, 3, **few(variant)) for _ in range(2))
    assert identical(a, b)
    assert a.target == b.target
    assert a.wiring == b.wiring
    assert a.readout == b.readout


@pytest.mark.parametrize(("variant", "name"), PAIRS)
def test_alone_as_in_a_batch(variant, name):
    model = shared(name, torch.float64)
    inputs, target = inputs_of(name, 3, torch.float64), target_of(name, 3)
    together = explain(model, name, inputs=inputs, target=target, **few(variant))
    for example in range(3):
        inputs = {key: x[example : example + 1] for key, x in inputs_of(name, 3, torch.float64).items()}
        alone = explain(model, name, inputs=inputs, target=target_of(name, 1, example), **few(variant))
        for key, each in (scores(together) | rows(together)).items():
            assert off((scores(alone) | rows(alone))[key], each[example : example + 1]) <= 1e-9, (example, key)


def rows(e: heedmap.Explanation) -> dict[str, torch.Tensor]:
    return {f"row of {stream}": e.row(stream) for stream in e.streams}


@pytest.mark.parametrize(
    ("variant", "name"), marked(pair for pair in TAKEN if pair[1] in TRUNCATES and pair[0] not in AT_RANDOM)
)
def test_padded_as_cut_off(variant, name):
    """Padding gets nothing, and the rest gets what it gets without; but random numbers hang on all that is given."""
    model, padded = shared(name, torch.float64), inputs_of(name, 3, torch.float64)
    together = explain(model, name, inputs=padded, target=target_of(name, 3), **few(variant))
    masks = {"input_ids": padded["attention_mask"], "visual_feats": padded.get("visual_attention_mask")}
    for example in range(3):
        real = {stream: int(mask[example].sum()) for stream, mask in masks.items() if mask is not None}
        inputs = {key: x[example : example + 1] for key, x in padded.items()}
        for key, stream in TRUNCATES[name].items():
            inputs[key] = inputs[key][:, : real[stream]]
        alone = explain(model, name, inputs=inputs, target=target_of(name, 1, example), **few(variant))
        told = {stream: count for stream, count in real.items() if stream in together.streams}
        assert told
        for stream, count in told.items():
            assert off(alone[stream][0], together[stream][example, :count]) <= 1e-9, (example, stream)
            assert not together[stream][example, count:].any()


ORDERED = [
    (variant, name, first)
    for name, first in (("nn-encoder-unmasked", 1), ("hand-one-head", 0))
    for variant in VARIANTS
    if variant not in AT_RANDOM and admits(variant, name.removesuffix("-unmasked"))
]


@pytest.mark.parametrize(("variant", "name", "first"), ORDERED)
def test_permuted_tokens_permute_relevance(variant, name, first):
    """Of models without positions; the token that is read out stays where it is. Random numbers know no order."""
    model, inputs = shared(name, torch.float64), inputs_of(name, 3, torch.float64)
    order = [*range(first), *(first + torch.randperm(6 - first)).tolist()]
    assert order != sorted(order)
    plain = explain(model, name, inputs=inputs, target=target_of(name, 3), **few(variant))["x"]
    moved = explain(model, name, inputs={"x": inputs["x"][:, order]}, target=target_of(name, 3), **few(variant))["x"]
    assert off(moved, plain[:, order]) <= 1e-9
    assert off(said(moved), said(plain)) > 0.01 or not said(plain).any()


@pytest.mark.parametrize(("variant", "name"), PAIRS)
def test_many_targets_are_each_as_if_alone(variant, name):
    ask = family(name).ask
    targets = [ask.times * logit(index, query=ask.query, position=ask.position) for index in (0, 3, 1)]
    inputs = inputs_of(name, 2)
    many = heedmap.explain_each(shared(name), inputs, targets, **few(variant))
    assert len(many) == 3
    for target, e in zip(targets, many, strict=True):
        alone = heedmap.explain(shared(name), inputs, target, **few(variant))
        assert identical(e, alone)
        assert e.target == alone.target
        assert e.readout == alone.readout
    assert not identical(many[0], many[1])


@pytest.mark.parametrize(("variant", "name"), once_each(HOMES))
def test_many_targets_take_one_forward(variant, name):
    """All of them together; what a method runs again it runs for each of them, and no more than for one alone."""
    ask = family(name).ask
    model, forwards = fresh(name), []
    model.register_forward_hook(lambda *_: forwards.append(1))

    def taken(targets: int) -> int:
        forwards.clear()
        asked = [logit(index, query=ask.query, position=ask.position) for index in range(targets)]
        heedmap.explain_each(model, inputs_of(name, 2), asked, verify="always", **few(variant))
        return len(forwards)

    again = taken(1) - 1
    assert (again > 0) == (method_of(variant) in RUN_AGAIN and variant != "grad-eclip:multi-head") or joined(variant)
    assert 1 + again <= taken(4) <= 1 + 4 * again


def test_no_target_takes_no_forward():
    model = fresh("vit")
    model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    assert heedmap.explain_each(model, inputs_of("vit", 2), []) == []


def test_inputs_as_a_mapping_a_tensor_or_a_tuple():
    pixels = inputs_of("vit", 2)["pixel_values"]
    expected = explain(shared("vit"), "vit")
    for inputs in (pixels, (pixels,), [pixels]):
        e = explain(shared("vit"), "vit", inputs=inputs)
        assert e.streams == expected.streams
        assert identical(e, expected)


def test_a_processors_result_is_a_mapping():
    from transformers import BatchEncoding

    inputs = BatchEncoding(inputs_of("bert", 2))
    assert identical(explain(shared("bert"), "bert", inputs=inputs), explain(shared("bert"), "bert"))


# ------------------------------------------------------------------------------------------- targets as written

a, b = logit([3, 1, 4]), logit(0)
WRITTEN = {
    "a": (a, lambda a, b: a),
    "a - b": (a - b, lambda a, b: a - b),
    "-2 * b + 1": (-2 * b + 1, lambda a, b: -2 * b + 1),
    "a / 3": (a / 3, lambda a, b: a / 3),
    "a / b": (a / b, lambda a, b: a / b),
    "(a - b) / a": ((a - b) / a, lambda a, b: (a - b) / a),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_target_is_the_number_it_is_written_as(text):
    target, number = WRITTEN[text]
    model = fresh("vit")
    with torch.no_grad():
        model.classifier.bias += 10  # all logits are positive: a quotient keeps its meaning

    def by_hand(output):
        return number(output.logits[[0, 1, 2], [3, 1, 4]], output.logits[:, 0])

    written = heedmap.explain(model, inputs_of("vit", 3), target)
    called = heedmap.explain(model, inputs_of("vit", 3), by_hand)
    assert most_off(written, called) <= 1e-5
    assert torch.allclose(written.value, called.value)
    assert written.target == repr(target)


# ------------------------------------------------------------------------------------------- threads


def at_once(jobs):
    """Run the jobs in threads that begin together."""
    gate = threading.Barrier(len(jobs))

    def run(job):
        gate.wait(10)
        return [job() for _ in range(4)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        return [future.result(60) for future in futures]


@pytest.mark.parametrize("pair", [("vit", "bert"), ("nn-encoder", "hand-one-head"), ("t5", "detr")])
def test_two_threads_explain_two_models(pair):
    expected = [explain(shared(name), name) for name in pair]
    models = [fresh(name) for name in pair]
    results = at_once([lambda m=m, n=n: explain(m, n, verify="always") for m, n in zip(models, pair, strict=True)])
    for alone, many in zip(expected, results, strict=True):
        assert all(identical(alone, e) for e in many)


@pytest.mark.parametrize("name", ["vit", "lxmert", "nn-encoder"])
def test_four_threads_explain_one_model(name):
    corrections = ["complete", "positive", "absolute", "complete"]
    expected = [explain(shared(name), name, correction=correction) for correction in corrections]
    model = fresh(name)
    results = at_once([lambda c=c: explain(model, name, correction=c) for c in corrections])
    for alone, many in zip(expected, results, strict=True):
        assert all(identical(alone, e) for e in many)


def test_one_model_is_recorded_by_one_thread_at_a_time():
    model, inside, most = fresh("vit"), [], []

    def enter(*_):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.01)

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(lambda *_: inside.clear())
    at_once([lambda: explain(model, "vit")] * 3)
    assert max(most) == 1


def test_a_thread_that_fails_does_not_hold_up_another():
    model = fresh("vit")
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(heedmap.errors.LabelError):
            pool.submit(explain, model, "vit", target=99).result(10)
        assert identical(pool.submit(explain, model, "vit").result(10), explain(shared("vit"), "vit"))
    assert identical(explain(model, "vit"), explain(shared("vit"), "vit"))


def test_a_plain_forward_in_another_thread_is_not_recorded():
    model, other = fresh("vit"), shared("bert")
    done = []

    def elsewhere(*_):
        thread = threading.Thread(target=lambda: done.append(other(**inputs_of("bert", 2)).logits))
        thread.start()
        thread.join()

    model.vit.layers[1].register_forward_pre_hook(elsewhere)
    e = explain(model, "vit")
    assert identical(e, explain(shared("vit"), "vit"))
    assert done[0].requires_grad, "the other thread's forward has its own graph"


# ------------------------------------------------------------------------------------------- examples stay apart


class NeedsWeights(nn.Module):
    """torch's own attention as it is by default: heads folded into the batch, weights returned."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x, x, x)[0]
        return x[:, 0]


@pytest.mark.parametrize(
    "build",
    [
        BY_NAME["hand-one-head"].model,
        lambda: NeedsWeights().eval(),
        BY_NAME["nn-encoder-unmasked"].model,
    ],
    ids=["hand-one-head", "nn.MultiheadAttention", "nn-encoder"],
)
def test_one_number_of_the_first_of_three_examples_is_right_or_refused(build):
    model, x = build(), inputs_of("hand-one-head", 3)["x"]
    alone = heedmap.explain(model, (x[:1],), lambda output: output[:1, 0])
    try:
        e = heedmap.explain(model, (x,), lambda output: output[:1, 0])
    except heedmap.errors.HeedmapError:
        return
    assert off(e["x"][:1], alone["x"]) <= 1e-5


@pytest.mark.parametrize("name", ["vit", "bert", "hand-one-head", "hand-many-heads", "nn-encoder"])
@pytest.mark.parametrize("shape", [lambda x: x.sum()[None], lambda x: x.sum(), lambda x: x[:2], lambda x: x[[0, 0, 1]]])
def test_a_number_too_few_or_of_another_example_is_refused(name, shape):
    def target(output):
        return shape((output if torch.is_tensor(output) else output.logits)[:, 0])

    with pytest.raises(heedmap.errors.HeedmapError):
        heedmap.explain(fresh(name), inputs_of(name, 3), target)


def test_a_number_of_another_example_is_refused_of_a_trusted_model_too():
    model, x = fresh("hand-one-head"), inputs_of("hand-one-head", 3)
    heedmap.explain(model, x, logit(3))
    with pytest.raises(heedmap.errors.InputError, match="one another's examples"):
        heedmap.explain(model, x, lambda output: output[[1, 0, 2], 0])


def test_unlike_targets_of_unlike_examples_do_not_mix():
    e = explain(shared("vit"), "vit", 3, target=20 * logit([3, 1, 4]))
    for example, index in enumerate([3, 1, 4]):
        same_for_all = explain(shared("vit"), "vit", 3, target=20 * logit(index))
        assert torch.allclose(e["pixel_values"][example], same_for_all["pixel_values"][example], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_an_explanations_numbers_are_finite(name):
    for key, tensor in tensors(explain(shared(name), name, 3)).items():
        assert tensor.isfinite().all(), key


@pytest.mark.parametrize(("variant", "name"), PAIRS)
def test_an_explanation_carries_no_graph(variant, name):
    e = expected(variant, name)
    for key, tensor in (tensors(e) | rows(e)).items():
        assert not tensor.requires_grad, key
        assert tensor.grad_fn is None, key
    assert not any(tensor.requires_grad for tensor in e.normalized().values())


@pytest.mark.parametrize(("variant", "name"), PAIRS)
def test_a_map_says_something(variant, name):
    """Of tokens or of pixels, and never infinity; a map may be all 0 where its method takes positive parts only."""
    found = scores(expected(variant, name)).values()
    assert all(each.isnan().sum() < each.numel() or method_of(variant) in OF_PIXELS for each in found)
    assert any(said(each).any() for each in found) or (variant, name) in NOTHING_POSITIVE


def test_normalized_is_signed_and_at_most_one():
    e = explain(shared("lxmert"), "lxmert", 3)
    for stream, scaled in e.normalized().items():
        assert torch.allclose(scaled.abs().amax(1), torch.ones(3))
        assert torch.equal(scaled.sign(), e[stream].sign())
    assert most_off(e, e) == 0
