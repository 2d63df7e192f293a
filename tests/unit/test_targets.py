"""Targets: what is written, what is found, what is refused and in which words."""

import types
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedmap.errors import LabelError, QuotientError, TargetError
from heedmap.targets import Context, Target, as_target, evaluate, logit, predicted, settle

ANIMALS = ("lion", "zebra", "giraffe", "hippo", "ostrich", "tusker, elephant", "cat", "dog")
LABELS = {name: i for i, name in enumerate((*ANIMALS, *(f"bird {i}" for i in range(8))))}
NAMED = Context(labels=LABELS)
LOGITS = torch.arange(1.0, 33.0).reshape(2, 16)
PLAIN = Context()


def refusal(error: type[Exception], target: Any, output: Any = LOGITS, context: Context = NAMED) -> str:
    with pytest.raises(error) as caught:
        evaluate(as_target(target), output, context)
    return str(caught.value)


def written(make: Any) -> str:
    with pytest.raises(TargetError) as caught:
        make()
    return str(caught.value)


def values(target: Any, output: Any = LOGITS, context: Context = NAMED) -> list[float]:
    return evaluate(as_target(target), output, context).tolist()


def settled(target: Any, output: Any = LOGITS, context: Context = NAMED) -> str:
    return repr(settle(as_target(target), output, context))


# ---- what a user writes


@pytest.mark.parametrize(
    ("index", "expected", "shown"),
    [
        (3, [4.0, 20.0], "logit(3)"),
        (np.int64(3), [4.0, 20.0], "logit(3)"),
        (torch.tensor(3), [4.0, 20.0], "logit(3)"),
        ("zebra", [2.0, 18.0], "logit('zebra')"),
        ([0, 3], [1.0, 20.0], "logit([0, 3])"),
        ((0, 3), [1.0, 20.0], "logit([0, 3])"),
        ([np.int32(0), torch.tensor(3)], [1.0, 20.0], "logit([0, 3])"),
        (torch.tensor([0, 3]), [1.0, 20.0], "logit([0, 3])"),
        (np.array([0, 3]), [1.0, 20.0], "logit([0, 3])"),
        (["zebra", 3], [2.0, 20.0], "logit(['zebra', 3])"),
    ],
)
def test_an_index_may_be_an_int_a_label_or_one_per_example(index: Any, expected: list, shown: str):
    assert values(index) == values(logit(index)) == expected
    assert repr(logit(index)) == shown


@pytest.mark.parametrize("index", [True, 1.5, [], [True], [1.5], [[1]], torch.ones(2), torch.ones(2, 2).long()])
def test_other_indices_are_refused(index: Any):
    message = written(lambda: logit(index))
    assert message == (f"index={index!r} is not understood. Expected an int or a label, or a list, one per example.")


@pytest.mark.parametrize("place", ["query", "position"])
@pytest.mark.parametrize("value", ["zebra", 1.0, True, [], [None]])
def test_other_queries_and_positions_are_refused(place: str, value: Any):
    message = written(lambda: logit(3, **{place: value}))
    assert message == f"{place}={value!r} is not understood. Expected an int, or a list, one per example."


def test_repr_has_the_places_and_only_the_parentheses_it_needs():
    a, b, c = logit("zebra"), logit("cat"), logit(3)
    assert repr((a - b) / a) == "(logit('zebra') - logit('cat')) / logit('zebra')"
    assert repr(a - b + c) == "logit('zebra') - logit('cat') + logit(3)"
    assert repr(a - (b + c)) == "logit('zebra') - (logit('cat') + logit(3))"
    assert repr(a + (b - c)) == "logit('zebra') + logit('cat') - logit(3)"
    assert repr(a / (b * c)) == "logit('zebra') / (logit('cat') * logit(3))"
    assert repr(2 * a - b / 2) == "2 * logit('zebra') - logit('cat') / 2"
    assert repr(-a * (0.5 - b)) == "-logit('zebra') * (0.5 - logit('cat'))"
    assert repr(-(a - b)) == "-(logit('zebra') - logit('cat'))"
    assert repr(logit(3, query=2)) == "logit(3, query=2)"
    assert repr(logit([3, 4], position=(0, -1))) == "logit([3, 4], position=[0, -1])"
    assert repr(as_target(None) - a) == "predicted - logit('zebra')"


def test_as_target_leaves_a_target_alone():
    target = logit(3) - 1
    assert as_target(target) is target


def test_as_target_refuses_what_is_none():
    message = written(lambda: as_target({"a": 1}))
    assert message == (
        "{'a': 1} is not a target. Expected an index, a label, a list with one per example, or an "
        "expression such as logit(3) - logit(5). For anything else pass a callable that takes the output "
        "and returns one number per example."
    )


def test_as_target_sends_a_list_of_targets_to_explain_each():
    message = written(lambda: as_target([logit(3), logit(5)]))
    assert message == (
        "[logit(3), logit(5)] is a list of targets. Expected one target; where examples differ, write "
        "logit([3, 5]). To explain several targets of one input call heedmap.explain_each."
    )


@pytest.mark.parametrize("other", [None, True, [1], float("nan"), float("inf"), torch.ones(2)])
def test_only_targets_and_numbers_are_combined(other: Any):
    message = written(lambda: logit(3) + other)
    assert message == (f"{other!r} cannot be combined with a target. Expected a target or a finite number.")


def test_arrays_are_not_spread_over_targets():
    message = written(lambda: np.ones(2) * logit(3))
    assert message == "array([1., 1.]) cannot be combined with a target. Expected a target or a finite number."


def test_a_label_in_an_expression_is_to_be_wrapped():
    assert written(lambda: logit("zebra") - "cat").endswith("Did you mean logit('cat')?")
    assert written(lambda: "cat" - logit("zebra")).endswith("Did you mean logit('cat')?")


@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0)])
def test_division_by_zero_is_refused_at_once(zero: Any):
    message = written(lambda: (logit(3) - logit(5)) / zero)
    assert message == "logit(3) - logit(5) is divided by zero. Divide by another number, or not at all."


# ---- the algebra against plain arithmetic


def expressions() -> st.SearchStrategy[str]:
    """Expressions in a, b and c without division by a logit, as text."""
    leaves = st.sampled_from(["a", "b", "c"])
    numbers = st.sampled_from(["2", "0.5", "-3"])

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        two = st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        right = st.tuples(inner, st.sampled_from("+-*/"), numbers).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        left = st.tuples(numbers, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        return two | right | left | inner.map(lambda x: f"(-{x})")

    return st.recursive(leaves, grow, max_leaves=6)


positive = st.lists(st.floats(0.1, 10), min_size=6, max_size=6)


@settings(deadline=None)
@given(expressions(), positive)
def test_the_algebra_is_that_of_tensors(text: str, numbers: list[float]):
    logits = torch.tensor(numbers, dtype=torch.float64).reshape(2, 3)
    expected = eval(text, dict(zip("abc", logits.unbind(1), strict=True)))
    target = eval(text, dict(zip("abc", map(logit, range(3)), strict=True)))
    torch.testing.assert_close(evaluate(target, logits, PLAIN), expected)
    again = eval(repr(target), {"logit": logit})
    torch.testing.assert_close(evaluate(again, logits, PLAIN), expected)


@settings(deadline=None)
@given(
    positive,
    st.sampled_from(["a / b", "(a - b) / a", "(a - b) / b", "a / b - b / a", "-(b / a)", "2 * a / b"]),
)
def test_quotients_of_positive_logits_are_those_of_tensors(numbers: list[float], text: str):
    logits = torch.tensor(numbers, dtype=torch.float64).reshape(3, 2)
    expected = eval(text, dict(zip("ab", logits.unbind(1), strict=True)))
    target = eval(text, {"a": logit(0), "b": logit(1)})
    torch.testing.assert_close(evaluate(target, logits, PLAIN), expected)


def test_numpy_numbers_take_part_on_both_sides():
    target = np.float64(2) * logit(0) - np.float32(0.5) + np.int64(1)
    assert repr(target) == "2.0 * logit(0) - 0.5 + 1"
    assert values(target) == [2.5, 34.5]


def test_gradients_reach_the_logits_that_were_named_and_no_others():
    logits = LOGITS.clone().requires_grad_()
    evaluate(logit([1, 2]) - 2 * logit(5), logits, PLAIN).sum().backward()
    expected = torch.zeros(2, 16)
    expected[0, 1] = expected[1, 2] = 1
    expected[:, 5] = -2
    assert logits.grad is not None
    assert torch.equal(logits.grad, expected)


def test_half_precision_logits_are_combined_in_single():
    logits = torch.tensor([[256.0, 1.0]], dtype=torch.bfloat16)
    value = evaluate(logit(0) + logit(1), logits, PLAIN)
    assert value.dtype == torch.float32
    assert value.tolist() == [257.0]


# ---- quotients


def test_a_negative_quotient_is_refused_with_both_logits_and_the_difference():
    logits = torch.tensor([[3.0, 2.0], [-3.0, -2.0]])
    a, b = logit("zebra"), logit("cat")
    context = Context(labels={"zebra": 0, "cat": 1})
    assert refusal(QuotientError, (a - b) / a, logits, context) == (
        "The quotient (logit('zebra') - logit('cat')) / logit('zebra') does not rise with logit('zebra') in "
        "example 1, where logit('zebra') is -3, logit('cat') is -2. A quotient keeps its meaning only "
        "while its logits are positive. Explain the difference: logit('zebra') - logit('cat')"
    )


@pytest.mark.parametrize(
    ("numbers", "make", "end"),
    [
        (
            [1.0, -2.0],
            lambda a, b: a / b,
            "does not rise with logit(0) in example 0, where logit(0) is 1, logit(1) is -2.",
        ),
        (
            [-1.0, 2.0],
            lambda a, b: a / b,
            "does not fall with logit(1) in example 0, where logit(0) is -1, logit(1) is 2.",
        ),
        ([-1.0, 2.0], lambda a, b: (a - b) / a, "does not fall with logit(1) in example 0"),
        ([1.0, -2.0], lambda a, b: (a - b) / b, "does not rise with logit(0) in example 0"),
        ([1.0, -2.0], lambda a, b: -(b / a), "does not rise with logit(0) in example 0"),
        ([1.0, 2.0], lambda a, b: a / a, "does not rise with logit(0) in example 0, where logit(0) is 1."),
        (
            [0.3, 2.0],
            lambda a, b: a / logit([0]),
            "does not rise with logit(0) in example 0, where logit(0) is 0.3.",
        ),
    ],
)
def test_quotients_that_turn_round_are_refused(numbers: list[float], make: Any, end: str):
    message = refusal(QuotientError, make(logit(0), logit(1)), torch.tensor([numbers]), PLAIN)
    assert end in message


def test_a_class_is_the_same_by_its_label_and_by_its_index():
    message = refusal(QuotientError, logit("zebra") / logit(1))
    assert message.startswith("The quotient logit('zebra') / logit(1) does not rise with logit('zebra') in example 0")


@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (lambda a, b, c: (a - b) / a, "logit(0) - logit(1)"),
        (lambda a, b, c: (a + b) / c, "logit(0) + logit(1) - logit(2)"),
        (lambda a, b, c: a / a, "logit(0)"),
        (lambda a, b, c: -2 * a / b, "- logit(0) + logit(1)"),
    ],
)
def test_the_difference_offered_has_the_signs_as_written(make: Any, instead: str):
    logits = torch.tensor([[-1.0, 0.0, -3.0]])
    message = refusal(QuotientError, make(logit(0), logit(1), logit(2)), logits, PLAIN)
    assert message.endswith(f"Explain the difference: {instead}")


def test_a_denominator_lowers_the_target_and_a_negative_factor_turns_it_round():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    a, b, c = map(logit, range(3))
    assert values((a + b) / c, logits, PLAIN) == [0.75]
    assert values(1 / c, logits, PLAIN) == [0.25]
    assert values(-2 * a / b, logits, PLAIN) == [-1.0]
    assert values(-a / (b * c), logits, PLAIN) == [-0.125]
    assert values(a / -2, logits, PLAIN) == [-0.5]


def test_a_quotient_that_stands_still_or_is_infinite_is_refused():
    standing = refusal(QuotientError, logit(0) / logit(1), torch.tensor([[0.0, 2.0]]), PLAIN)
    assert "does not fall with logit(1) in example 0, where logit(0) is 0, logit(1) is 2." in standing
    infinite = refusal(TargetError, logit(0) / logit(1), torch.tensor([[1.0, 0.0]]), PLAIN)
    assert "is inf in example 0" in infinite
    assert infinite.endswith("and for a division by zero.")


def test_division_by_a_number_and_differences_need_no_positive_logits():
    assert values((logit(0) - logit(1)) / 2, torch.tensor([[-1.0, -3.0]]), PLAIN) == [1.0]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_quotients_are_checked_without_gradients_around(mode: Any):
    with mode():
        logits = torch.tensor([[-1.0, 2.0]], dtype=torch.float64)
        assert "does not fall" in refusal(QuotientError, logit(0) / logit(1), logits, PLAIN)
        assert values(logit(0) / logit(1), -logits.abs() * -1, PLAIN) == [0.5]


# ---- labels


@pytest.mark.parametrize("text", ["Zebra", " zebra ", "ZEBRA"])
def test_a_label_is_found_without_regard_to_case(text: str):
    assert settled(text) == "logit('zebra')"


@pytest.mark.parametrize("text", ["tusker", "elephant", "Elephant", "tusker, elephant"])
def test_a_label_is_found_by_one_of_its_synonyms(text: str):
    assert values(text) == [6.0, 22.0]
    assert settled(text) == "logit('tusker, elephant')"


def test_an_unknown_label_is_met_with_the_nearest():
    assert refusal(LabelError, "zebre") == ("Label 'zebre' is not one of this model's 16 labels. Did you mean 'zebra'?")
    assert refusal(LabelError, logit("cat") - logit("elefant")).endswith("Did you mean 'tusker, elephant'?")


def test_an_unknown_label_without_a_near_one_is_met_with_the_first():
    assert refusal(LabelError, "quux") == (
        "Label 'quux' is not one of this model's 16 labels. There are 'lion', 'zebra', 'giraffe', 'hippo', "
        "'ostrich', 'tusker, elephant', 'cat', 'dog' and 8 more. Give one, or an index."
    )


def test_an_ambiguous_label_is_refused():
    context = Context(labels={"crane, bird": 0, "crane, machine": 1})
    assert refusal(LabelError, "crane", LOGITS, context) == (
        "Label 'crane' may be 'crane, bird' or 'crane, machine'. Write one in full."
    )
    whole = Context(labels={"Crane": 0, "crane, machine": 1})
    assert settled("crane", LOGITS, whole) == "logit('Crane')"


@pytest.mark.parametrize("labels", [None, {}, {"LABEL_0": 0, "LABEL_1": 1}])
def test_a_model_without_label_names_wants_an_index(labels: Any):
    assert refusal(LabelError, "zebra", LOGITS, Context(labels=labels)) == (
        "'zebra' is a label, but this model has no label names. Give an index: logit(3)."
    )


def test_an_index_out_of_range_is_met_with_the_number_of_classes():
    assert refusal(LabelError, 16) == "Index 16 is out of range: this model has 16 classes, 0 to 15."
    assert refusal(LabelError, [0, -1]) == (
        "Index -1 is out of range: this model has 16 classes, 0 to 15. Negative indices do not count from the end."
    )
    assert refusal(LabelError, "zebra", LOGITS, Context(labels={"zebra": 99})) == (
        "Index 99 of label 'zebra' is out of range: this model has 16 classes, 0 to 15."
    )


def test_a_list_has_one_per_example():
    assert refusal(TargetError, [1, 2, 3]) == ("A list of 3 was given for 2 examples. Give one value, or 2.")


# ---- where the logits are


@dataclass
class Answer:
    logits: Any = None
    loss: Any = None


Named = namedtuple("Named", ["hidden", "logits"])
OTHER = torch.zeros(2, 16)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, OTHER),
        [torch.tensor(0.5), LOGITS],
        (torch.zeros(2, 16).long(), torch.zeros(2), LOGITS),
        {"logits": LOGITS, "hidden": OTHER},
        {"loss": torch.tensor(0.5), "prediction_logits": OTHER, "question_answering_score": LOGITS},
        {"logits_per_text": OTHER, "logits_per_image": LOGITS},
        {"logits": None, "pred_logits": LOGITS},
        {"logits": (OTHER, OTHER), "class_logits": LOGITS},
        types.SimpleNamespace(logits=LOGITS),
        Answer(LOGITS),
        Named(OTHER, LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found(output: Any):
    assert values(3, output) == [4.0, 20.0]


def test_a_transformers_output_is_read_as_it_is():
    from transformers.models.lxmert.modeling_lxmert import LxmertForPreTrainingOutput

    output = LxmertForPreTrainingOutput(prediction_logits=torch.zeros(2, 5, 9), question_answering_score=LOGITS)
    assert values(3, output) == [4.0, 20.0]


def test_without_logits_the_error_lists_what_there_is():
    fields = {
        "last_hidden_state": torch.zeros(2, 7, 4),
        "start_logits": torch.zeros(2, 7),
        "extra": None,
        "past": (),
    }
    message = refusal(TargetError, 3, fields)
    assert message.startswith(
        "No logits were found in the output (dict). Its fields are: last_hidden_state (2, 7, 4), "
        "start_logits (2, 7), past (tuple). Expected a floating tensor, a tuple with one, or a field "
        "logits, question_answering_"
    )
    assert message.endswith(": pass a callable that takes the output and returns one number per example.")
    assert "Its fields are: 0 (2,), 1 (NoneType)." in refusal(TargetError, 3, (torch.zeros(2), None))
    assert "in the output (NoneType). Its fields are: none." in refusal(TargetError, 3, None)
    assert "in the output (2, 16). Its fields are: none." in refusal(TargetError, 3, LOGITS.long())
    assert "in the output (2, 16)." in refusal(TargetError, 3, LOGITS.to(torch.complex64))
    assert "in the output ()." in refusal(TargetError, 3, torch.tensor(1.0))


@pytest.mark.parametrize(
    "output", [torch.tensor([1.0, 2.0]), torch.tensor([[1.0], [2.0]]), {"logits": torch.tensor([1.0, 2.0])}]
)
def test_a_regression_has_one_class(output: Any):
    assert values(0, output) == values(None, output) == [1.0, 2.0]
    assert predicted(as_target(None), output, PLAIN) == [0, 0]
    assert refusal(LabelError, 1, output) == "Index 1 is out of range: this model has 1 classes, 0 to 0."


def test_logits_for_another_number_of_examples_are_refused():
    assert refusal(TargetError, 3, LOGITS, Context(batch=3)) == (
        "The logits have shape (2, 16) for 3 examples. Expected one row for each: pass a callable that "
        "takes the output and returns one number per example."
    )
    assert "(16,) for 1 examples" in refusal(TargetError, 3, LOGITS[0], Context(batch=1))
    assert "(0, 16) for no examples" in refusal(TargetError, 3, LOGITS[:0])


def test_logits_of_more_axes_are_refused():
    assert refusal(TargetError, 3, torch.zeros(2, 4, 5, 5)) == (
        "The logits have shape (2, 4, 5, 5). Expected (batch, classes) or (batch, tokens, classes): pass "
        "a callable that takes the output and returns one number per example."
    )


# ---- positions


TOKENS = torch.arange(2 * 4 * 3.0).reshape(2, 4, 3)
RIGHT = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
LEFT = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("position", "chosen", "shown"),
    [
        (0, (0, 0), "position=0"),
        (3, (3, 3), "position=3"),
        (-1, (3, 3), "position=3"),
        ([1, -1], (1, 3), "position=[1, 3]"),
        (torch.tensor([1, 3]), (1, 3), "position=[1, 3]"),
    ],
)
def test_a_position_is_chosen_as_python_indexes(position: Any, chosen: tuple[int, int], shown: str):
    target = logit(2, position=position)
    assert values(target, TOKENS, PLAIN) == [TOKENS[i, p, 2].item() for i, p in enumerate(chosen)]
    assert settled(target, TOKENS, PLAIN) == f"logit(2, {shown})"


@pytest.mark.parametrize(
    ("mask", "shown"),
    [(None, "3"), (RIGHT, "[1, 3]"), (LEFT, "3"), (LEFT.bool(), "3"), (RIGHT.float(), "[1, 3]")],
)
def test_a_causal_model_is_read_at_its_last_unmasked_position(mask: Any, shown: str):
    context = Context(mask=mask, causal=True)
    assert settled(2, TOKENS, context) == f"logit(2, position={shown})"
    assert settled(None, TOKENS, context) == f"logit(2, position={shown})"


def test_a_single_position_needs_no_choice():
    assert settled(2, TOKENS[:, :1], Context(mask=RIGHT)) == "logit(2, position=0)"


def test_positions_of_a_model_that_is_not_causal_are_to_be_chosen():
    message = refusal(TargetError, 2, TOKENS, Context(mask=RIGHT))
    assert message == refusal(TargetError, None, TOKENS, Context(mask=RIGHT))
    assert message == (
        "Each of 4 positions has logits, and which to explain is not said. Choose one, as in logit(3, "
        "position=0), or pass a callable that takes the output and returns one number per example."
    )


def test_positions_out_of_range_or_on_padding_are_refused():
    assert refusal(TargetError, logit(2, position=[0, 4]), TOKENS) == (
        "position=4 is out of range: the logits have 4. Choose -4 to 3."
    )
    assert "position=-5 is out of range" in refusal(TargetError, logit(2, position=-5), TOKENS)
    assert refusal(TargetError, logit(2, position=-1), TOKENS, Context(mask=RIGHT)) == (
        "position=-1 is padding in example 0 (mask 0). Choose a real token."
    )
    assert values(logit(2, position=-1), TOKENS, Context(mask=RIGHT[:, :2])) == [11.0, 23.0]


def test_a_mask_that_does_not_fit_or_is_empty_is_refused():
    assert refusal(TargetError, 2, TOKENS, Context(mask=RIGHT[:, :3], causal=True)) == (
        "The last unmasked position is not certain: the mask has shape (2, 3), the logits (2, 4, 3). "
        "Choose one, as in position=-1."
    )
    assert refusal(TargetError, 2, TOKENS, Context(mask=RIGHT * torch.tensor([[1], [0]]), causal=True)) == (
        "The mask leaves no token in example 1. Expected at least one: correct it."
    )


# ---- object queries


def detector(*likely: tuple[int, int, float], classes: int = 4) -> dict[str, torch.Tensor]:
    """Two examples of three queries, all "no object" (the last class) but for each (query, class, logit)."""
    logits = torch.zeros(2, 3, classes)
    logits[..., -1] = 3
    for query, index, size in likely:
        logits[:, query, index] = size
    return {"logits": logits, "pred_boxes": torch.zeros(2, 3, 4)}


def test_the_query_is_the_one_most_certain_of_the_label():
    output = detector((0, 1, 5.0), (1, 1, 4.0), (1, 3, -9.0))
    assert settled(1, output, PLAIN) == "logit(1, query=1)"  # the smaller logit is the surer one
    assert values(1, output, PLAIN) == [4.0, 4.0]
    assert settled(logit(1, query=0), output, PLAIN) == "logit(1, query=0)"
    assert values(logit(1, query=[0, 1]), output, PLAIN) == [5.0, 4.0]


def test_each_example_has_its_own_query():
    output = detector((0, 1, 5.0))
    output["logits"][1, 2, 1] = 8
    assert settled(logit(1) - logit(0), output, PLAIN) == "logit(1, query=[0, 2]) - logit(0, query=1)"


def test_where_a_label_names_the_last_class_the_classes_do_not_compete():
    output = detector((0, 1, 5.0), (1, 1, 4.0), (1, 3, -9.0))
    context = Context(labels={"a": 0, "b": 1, "c": 2, "d": 3})
    assert settled(1, output, context) == "logit(1, query=0)"
    assert settled(None, output, context) == "logit('b', query=0)"
    output["logits"][:, 2, 3] = 9
    assert settled(None, output, context) == "logit('d', query=2)"


def test_a_detector_that_matches_texts_has_no_class_for_no_object():
    output = {**detector((0, 2, 9.0), classes=3), "text_embeds": torch.zeros(2, 3, 8)}
    assert settled(None, output, Context(labels={"LABEL_0": 0, "LABEL_1": 1})) == "logit(2, query=0)"


def test_queries_and_positions_are_not_interchangeable():
    assert refusal(TargetError, logit(1, position=0), detector()) == (
        "logit(1, position=0) has position=, but the logits have shape (2, 3, 4) and their middle axis "
        "is query: use query=."
    )
    assert refusal(TargetError, logit(1, query=0), TOKENS) == (
        "logit(1, query=0) has query=, but the logits have shape (2, 4, 3) and their middle axis is "
        "position: use position=."
    )
    for place in ("query", "position"):
        assert refusal(TargetError, logit(1, **{place: 0})) == (
            f"logit(1, {place}=0) has {place}=, but the logits have shape (2, 16) and no such axis: leave it out."
        )


def test_queries_out_of_range_are_refused():
    for query in (3, -1):
        assert refusal(TargetError, logit(1, query=query), detector()) == (
            f"query={query} is out of range: the logits have 3. Choose 0 to 2."
        )


# ---- the prediction


def test_the_prediction_is_the_largest_logit_of_each_example():
    logits = torch.tensor([[1.0, 9.0, 2.0], [5.0, 4.0, 3.0]])
    target = as_target(None)
    assert repr(target) == "predicted"
    assert predicted(target, logits, PLAIN) == [1, 0]
    assert predicted(1 - target, logits, PLAIN) == [1, 0]
    assert predicted(logit(0), logits, PLAIN) is None
    assert values(None, logits, PLAIN) == [9.0, 5.0]
    assert settled(None, logits, PLAIN) == "logit([1, 0])"
    assert settled(None, logits, Context(labels={"x": 0, "y": 1, "z": 2})) == "logit(['y', 'x'])"
    assert settled(target - logit(2), logits, PLAIN) == "logit([1, 0]) - logit(2)"


@pytest.mark.parametrize("labels", [{"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, {"yes": 0, "no": 1}])
def test_the_prediction_is_named_only_by_labels_that_name_its_classes(labels: dict[str, int]):
    assert settled(None, torch.tensor([[1.0, 9.0, 2.0]]), Context(labels=labels)) == "logit(1)"


def test_a_detector_predicts_its_surest_object_and_never_no_object():
    output = detector((0, 1, 5.0), (1, 2, 4.0), (1, 3, -9.0))
    assert predicted(as_target(None), output, PLAIN) == [2, 2]
    assert settled(None, output, PLAIN) == "logit(2, query=1)"
    assert values(None, output, PLAIN) == [4.0, 4.0]
    assert settled(None, output, Context(labels={"a": 0, "b": 1, "c": 2})) == "logit('c', query=1)"
    assert predicted(as_target(None), detector(), PLAIN) == [0, 0]


def test_a_causal_model_predicts_the_next_token():
    logits = torch.zeros(2, 4, 3)
    logits[0, 1, 2] = logits[1, 3, 1] = 5
    logits[0, 3, 0] = 9  # on padding
    context = Context(mask=RIGHT, causal=True)
    assert predicted(as_target(None), logits, context) == [2, 1]
    assert settled(None, logits, context) == "logit([2, 1], position=[1, 3])"


def test_a_settled_target_stays_as_it_is():
    output = detector((0, 1, 5.0))
    context = Context(labels={"a": 0, "b": 1, "c": 2})
    for target in (as_target(None) - logit("A"), logit(["b", 2]) / 2, -logit(1, query=2)):
        once = settle(target, output, context)
        assert repr(settle(once, output, context)) == repr(once)
        assert torch.equal(evaluate(once, output, context), evaluate(target, output, context))


# ---- callables


def test_a_callable_gets_the_output_as_it_is():
    def second(output):
        return output["hidden"][:, 1]

    target = as_target(second)
    output = {"hidden": LOGITS}
    assert repr(2 * target) == "2 * second"
    assert values(target, output) == [2.0, 18.0]
    assert values(2 * target - 1, output) == [3.0, 35.0]
    assert values(target / as_target(lambda output: output["hidden"][:, 3]), output) == pytest.approx([0.5, 0.9])


class Target3:
    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        return output[3] if output.ndim == 1 else output[:, 3]


class Spread:
    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        return output - output.mean()


def test_a_callable_object_is_called_by_its_type():
    assert repr(as_target(Target3())) == "Target3"
    assert values(Target3()) == [4.0, 20.0]


@pytest.fixture
def grad_cam(monkeypatch: pytest.MonkeyPatch):
    for kind in (Target3, Spread):
        monkeypatch.setattr(kind, "__module__", "pytorch_grad_cam.utils.model_targets")


@pytest.mark.usefixtures("grad_cam")
def test_a_grad_cam_target_gets_the_logits_of_one_example():
    assert values(Target3(), {"logits": LOGITS}, Context(batch=2)) == [4.0, 20.0]
    assert values(Spread(), torch.tensor([1.0, 2.0])) == [0.0, 0.0]
    assert refusal(TargetError, Spread()) == (
        "The target Spread was given one example's logits, (16,), and returned (16,). Expected a tensor "
        "with one number: choose one, for instance a class."
    )


@pytest.mark.usefixtures("grad_cam")
def test_a_grad_cam_target_keeps_its_gradient():
    logits = LOGITS.clone().requires_grad_()
    evaluate(as_target(Target3()), (logits,), PLAIN).sum().backward()
    assert logits.grad is not None
    assert logits.grad.nonzero().tolist() == [[0, 3], [1, 3]]


def test_a_list_of_callables_has_one_per_example():
    def first(logits):
        return logits[0]

    target = as_target([first, Target3()])
    assert repr(target) == "[first, Target3]"
    assert values(target, {"logits": LOGITS}) == [1.0, 20.0]
    assert refusal(TargetError, [first]) == "A list of 1 was given for 2 examples. Give one value, or 2."
    assert refusal(TargetError, [first, lambda logits: 3.0]) == (
        "The target <lambda> was given one example's logits, (16,), and returned (float). Expected a "
        "tensor with one number: choose one, for instance a class."
    )


def test_one_number_will_do_for_one_example():
    assert values(lambda output: output.sum(), torch.ones(1, 4), Context(batch=1)) == [4.0]
    assert values(lambda output: output.sum(), torch.ones(2, 4), Context()) == [8.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda output: output.sum(),
            "gave one number for 2 examples. Expected one finite number per example, shape (2,): do not "
            "sum or average over the batch.",
        ),
        (
            lambda output: output,
            "gave a tensor of shape (2, 16). Expected one finite number per example, shape (2,): choose "
            "one number of each example, as [:, 3].",
        ),
        (lambda output: output[:1, 0], "gave a tensor of shape (1,). Expected one finite number per example"),
        (
            lambda output: 3.0,
            "gave a float. Expected one finite number per example, shape (2,): return a tensor.",
        ),
        (
            lambda output: output.argmax(1),
            "gave numbers of torch.int64. Expected one finite number per example, shape (2,): return "
            "real floating numbers that have a gradient.",
        ),
        (lambda output: output[:, 0].to(torch.complex64), "gave numbers of torch.complex64."),
        (
            lambda output: output[:, 0] * torch.tensor([1.0, torch.nan]),
            "is nan in example 1. Expected one finite number per example, shape (2,): look for NaN or "
            "infinity in the inputs and logits, and for a division by zero.",
        ),
        (
            lambda output: output[:, 0] / torch.tensor([0.0, -0.0]),
            "is inf in example 0, -inf in example 1.",
        ),
    ],
)
def test_a_value_is_one_finite_number_per_example(call: Any, message: str):
    met = refusal(TargetError, call, LOGITS, Context(batch=2))
    assert met.startswith(f"The target <lambda> {message}")


def test_logits_that_are_not_finite_are_refused():
    logits = LOGITS.clone()
    logits[1, 3] = torch.nan
    assert refusal(TargetError, logit("zebra") - logit(3), logits).startswith(
        "The target logit(3) is nan in example 1."
    )
    assert values("zebra", logits) == [2.0, 18.0]
    large = torch.full((1, 16), 3e38)
    assert refusal(TargetError, logit(0) + logit(1), large).startswith(
        "The target logit(0) + logit(1) is inf in example 0."
    )


def test_many_examples_that_are_not_finite_are_not_all_listed():
    message = refusal(TargetError, 0, torch.full((20, 2), torch.nan))
    assert "nan in example 7 .... Expected" in message


def test_parts_that_disagree_on_the_number_of_examples_are_refused():
    target = logit(3) - as_target(lambda output: output.sum())
    assert refusal(TargetError, target, LOGITS, PLAIN) == (
        "The parts of logit(3) - <lambda> disagree on the number of examples: logit(3) has 2, <lambda> "
        "has 1. Make them agree."
    )


def test_an_error_in_a_callable_is_the_users_own():
    def broken(output):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        evaluate(as_target(broken), LOGITS, PLAIN)


def test_targets_are_immutable():
    with pytest.raises(AttributeError):
        setattr(logit(3), "index", 4)  # noqa: B010
    assert isinstance(logit(3), Target)
