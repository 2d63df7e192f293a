"""Language models: each written token exact, conversations told apart, and one answer held against another."""

import copy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import LANGUAGE, WINDOW

import heedmap
from heedmap import api
from heedmap.errors import InputError
from heedmap.families import sinks
from heedmap.render import views

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from dense import Step, record, walk

TEXT = "is there a zebra in the picture?"
SAID = [{"role": "system", "content": "the film was good"}, {"role": "user", "content": " is there a zebra? "}]
WINDOWS = {"qwen2": (1, 2), "mistral": (0, 1, 2), "gemma2": (0, 2), "gemma3": (0, 2)}  # the layers that have one


def scores(module, inputs, stream, begun, ids):
    """log p of each token after those before it, by a forward pass of its own."""
    told = []
    for i, index in enumerate(ids):
        step = dict(inputs) | {stream: torch.cat([inputs[stream], torch.tensor([ids[:i]], dtype=torch.long)], 1)}
        if "attention_mask" in step and stream == "input_ids":
            step["attention_mask"] = torch.ones_like(step[stream])
        with torch.no_grad():
            told.append(module(**step).logits[0, begun + i - 1].log_softmax(-1)[index].item())
    return told


def alone(module, inputs, stream, begun, ids, i, call):
    """One token explained as if it alone were asked for."""
    step = dict(inputs) | {stream: torch.cat([inputs[stream], torch.tensor([ids[:i]], dtype=torch.long)], 1)}
    if "attention_mask" in step and stream == "input_ids":
        step["attention_mask"] = torch.ones_like(step[stream])
    return api.explain(module, step, lambda output: call(output.logits[:, begun + i - 1]))


def summed(given, ours, theirs, parted):
    """The tokens of both, each alone in a forward pass of its own, added up by where they stand."""
    stream, begun, total = given[2], given[3], {}

    def both(logits):
        return logits[:, ours[parted]] - logits[:, theirs[parted]]

    def one(logits, index, sign):
        return sign * logits.log_softmax(-1)[:, index]

    found = [(alone(*given, ours, parted, both), 1)]
    found += [(alone(*given, ours, i, partial(one, index=ours[i], sign=1)), 1) for i in range(parted + 1, len(ours))]
    found += [
        (alone(*given, theirs, i, partial(one, index=theirs[i], sign=-1)), -1) for i in range(parted + 1, len(theirs))
    ]
    for explanation, sign in found:
        for name in explanation.streams:
            for j, number in enumerate(explanation[name][0].tolist()):
                own = name == stream and sign < 0 and j >= begun + parted
                key = (f"{name} (against)", j - begun - parted) if own else (name, j)
                total[key] = total.get(key, 0.0) + number
    return total


# ---- right, whatever the window and the cap


@pytest.mark.parametrize("name", [*LANGUAGE, "gpt2"])
def test_each_written_token_is_what_full_matrices_say(name, folder):
    model = heedmap.load(folder(name))
    found = model.explain_produced(text=TEXT, tokens=5)
    eager = copy.deepcopy(model.module)
    eager.set_attn_implementation("eager")
    ids = model.inputs(text=TEXT)[0]["input_ids"]
    ids = torch.cat([ids, torch.tensor([found.indices[:-1]], dtype=torch.long)], 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    tokens = ids.shape[1]
    for i, (index, explanation) in enumerate(zip(found.indices, found.explanations, strict=True)):
        run = record(
            eager,
            inputs,
            lambda out, at=found.begun - 1 + i, to=index: out.logits[:, at, to],
            torch.float32,
            eager=True,
        )
        steps = [Step("text", "text")] * len(run.weights)
        true = walk(run, steps, {"text": tokens})["text"].flowed[0]
        mine = explanation["input_ids"][0].numpy()
        np.testing.assert_allclose(mine, true[: len(mine)], rtol=0, atol=1e-5 * np.abs(true).max())
        assert not true[len(mine) :].any()
    cut = [i for i, weights in enumerate(run.weights) if not weights[0, :, -1, :-WINDOW].any()]
    assert tuple(cut) == WINDOWS.get(name, ())


# ---- who said what


def test_a_template_s_own_tokens_are_special_and_each_has_said_his_own(folder):
    model = heedmap.load(folder("qwen2"))
    inputs, shown = model.inputs(text=SAID)
    tokenizer = model.processor.text
    as_it_does = tokenizer.apply_chat_template(SAID, add_generation_prompt=True)
    assert inputs["input_ids"][0].tolist() == list(as_it_does["input_ids"])
    layout = shown[0].layouts["input_ids"]
    assert [layout.texts[i] for i in sorted(layout.special)] == ["<|s|>", "<|e|>", "<|u|>", "<|e|>", "<|a|>"]
    assert sum(tokens for _, tokens in layout.parts) == len(as_it_does["input_ids"])
    assert words_of(model.explain(text=SAID)) == {"system": "the film was good", "user": "is there a zebra ?"}
    assert shown[0].text == "system: the film was good\nuser:  is there a zebra? "


def words_of(explanation, special=False):
    (panel,) = views.panels(explanation, special)
    return {view.part: " ".join(unit.name for unit in view.units) for view in panel.views}


def test_numbers_keep_what_pictures_leave_out(folder):
    model = heedmap.load(folder("qwen2"))
    explanation = model.explain(text=SAID)
    plain = api.explain(model.module, model.inputs(text=SAID)[0])
    torch.testing.assert_close(explanation["input_ids"], plain["input_ids"])
    assert words_of(explanation, special=True)["user"] == "<|e|> <|u|> is there a zebra ? <|e|> <|a|>"
    (panel,) = views.panels(explanation)
    assert [unit.name for view in panel.views for unit in view.left_out] == [
        "<|s|>",
        "<|e|>",
        "<|u|>",
        "<|e|>",
        "<|a|>",
    ]


def test_a_conversation_is_kept_in_a_file(folder, tmp_path):
    explanation = heedmap.load(folder("qwen2")).explain(text=SAID)
    explanation.save(tmp_path / "said.heed")
    assert heedmap.open(tmp_path / "said.heed").shown == explanation.shown


def test_a_word_that_the_template_has_too_is_told_from_it(folder):
    model = heedmap.load(folder("qwen2"))
    model.processor.text.chat_template = (
        "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + '<|e|>' }}{% endfor %}assistant : "
    )
    said = [
        {"role": "user", "content": "user"},
        {"role": "assistant", "content": "film"},
        {"role": "user", "content": "a"},
    ]
    assert words_of(model.explain(text=said)) == {"user": "user", "assistant": "film", "user 2": "a"}


def test_a_template_that_rewrites_what_is_said_hides_none_of_it(folder):
    model = heedmap.load(folder("qwen2"))
    model.processor.text.chat_template = "{% for m in messages %}{{ m['content'] | upper + '<|e|>' }}{% endfor %}"
    assert words_of(model.explain(text=[{"role": "user", "content": "a film"}])) == {"given": "A FILM"}


def test_what_the_assistant_has_begun_it_goes_on_with(folder):
    model = heedmap.load(folder("qwen2"))
    inputs, shown = model.inputs(text=[*SAID, {"role": "assistant", "content": "the zebra"}])
    assert model.processor.text.decode(inputs["input_ids"][0]).endswith("<|a|>the zebra")
    assert [name for name, _ in shown[0].layouts["input_ids"].parts] == ["system", "user", "assistant"]


def test_texts_and_conversations_go_together_in_a_batch(folder):
    model = heedmap.load(folder("qwen2"))
    both = model.explain(text=[SAID, SAID[1:]], target=5)
    one = model.explain(text=SAID[1:], target=5)
    short = one["input_ids"].shape[1]
    torch.testing.assert_close(both["input_ids"][1, :short], one["input_ids"][0], rtol=1e-4, atol=1e-6)
    assert [tokens for _, tokens in both.shown[1].layouts["input_ids"].parts] == [both["input_ids"].shape[1]]


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("gpt2", SAID, "has no chat template"),
        ("bert", SAID, "it takes no messages"),
        ("qwen2", [{"role": "user", "text": "a"}], "Message 1 is .*expected messages such as"),
        ("qwen2", [{"role": "user", "content": ["a"]}], "pictures are given by themselves"),
        ("qwen2", [SAID[0], {"role": "user", "content": " "}], "The last message is empty"),
    ],
)
def test_what_is_no_conversation_is_refused(name, said, message, folder):
    with pytest.raises(InputError, match=message):
        heedmap.load(folder(name)).inputs(text=said)


def test_a_template_s_own_refusal_is_told(folder):
    model = heedmap.load(folder("qwen2"))
    model.processor.text.chat_template = "{{ raise_exception('no system, please') }}"
    with pytest.raises(InputError, match="refuses this conversation: no system, please"):
        model.inputs(text=SAID)


# ---- written, and explained as it is


def test_generate_is_what_is_written_explained(folder):
    model = heedmap.load(folder("mistral"))
    found = model.generate(SAID, tokens=4)
    same = model.explain_produced(text=SAID, tokens=4)
    assert (found.indices, found.text) == (same.indices, same.text)
    assert model.generate(SAID, tokens=4, explain=False) == same.text
    assert found.layout.parts[-1] == ("written", 4)
    ids = torch.tensor([model.inputs(text=SAID)[0]["input_ids"][0].tolist()])
    plain = model.module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4)
    assert found.indices == tuple(plain[0, ids.shape[1] :].tolist())
    with pytest.raises(InputError, match="correction: of what is explained"):
        model.generate(SAID, explain=False, correction="absolute")


# ---- one answer against another


@pytest.mark.parametrize("name", ["mistral", "t5"])
def test_a_contrast_is_the_difference_of_both_log_probabilities(name, folder):
    model = heedmap.load(folder(name))
    model.module.double()
    tokenizer = model.processor.text
    texts = {
        i: f" {tokenizer.decode([i]).strip()}" for i in range(len(tokenizer))
    }  # words: read back, they are themselves
    kept = {
        i
        for i, text in texts.items()
        if text[1:].isalpha() and tokenizer(text, add_special_tokens=False)["input_ids"] == [i]
    }
    assert len(kept) > 2
    model.module.generation_config.suppress_tokens = [i for i in range(model.config.vocab_size) if i not in kept]
    free = model.explain_produced(text=TEXT, tokens=4)
    first, second = (tokenizer.decode(ids) for ids in (free.indices[:1], list(kept - {free.indices[1]})[:1]))
    for phrase, expected in ((" film film", 0), (f"{first} {second.strip()} film", 1)):
        found = model.explain_produced(text=TEXT, tokens=4, against=phrase)
        before = " " if tokenizer.decode(list(found.indices)).startswith(" ") else ""
        ids = tuple(tokenizer(before + phrase.strip(), add_special_tokens=False)["input_ids"])
        inputs = model.inputs(text=TEXT)[0]
        parted = next(i for i, (a, b) in enumerate(zip(found.indices, ids, strict=False)) if a != b)
        assert parted == expected
        given = model.module, inputs, found.stream, found.begun
        ours, theirs = scores(*given, found.indices), scores(*given, ids)
        assert found.contrast.value.item() == pytest.approx(sum(ours) - sum(theirs), abs=1e-9)
        assert [x.value.item() for x in found.explanations] == pytest.approx(
            [*ours[:parted], ours[parted] - theirs[parted], *ours[parted + 1 :]], abs=1e-9
        )
        total = summed(given, found.indices, ids, parted)
        for stream in found.contrast.streams:
            row = found.contrast[stream][0].tolist()
            assert row == pytest.approx([total.pop((stream, j)) for j in range(len(row))], abs=1e-9)
        assert not any(total.values())


def test_an_end_that_was_written_ends_the_other_too(folder):
    model = heedmap.load(folder("mistral"))
    free = model.explain_produced(text=TEXT, tokens=3)
    model.module.generation_config.eos_token_id = free.indices[1]
    found = model.explain_produced(text=TEXT, tokens=3, against="the")
    assert found.ended
    given = model.module, model.inputs(text=TEXT)[0], found.stream, found.begun
    before = " " if model.processor.text.decode(list(found.indices)).startswith(" ") else ""
    theirs = (*model.processor.text(f"{before}the")["input_ids"], free.indices[1])
    assert found.contrast.value.item() == pytest.approx(
        sum(scores(*given, found.indices)) - sum(scores(*given, theirs)), abs=1e-4
    )


def test_a_contrast_shows_both(folder):
    found = heedmap.load(folder("mistral")).explain_produced(text=SAID, tokens=3, against="the film was good")
    assert found.contrast.target == f"log p({found.text!r}) - log p('the film was good')"
    (panel,) = views.panels(found.contrast)
    assert [(view.part or view.stream) for view in panel.views] == [
        "system", "user", "written", "input_ids (against)"
    ]  # fmt: skip
    assert " ".join(unit.name for unit in panel.views[-1].units) == "the film was go"  # nothing reads the last
    assert found.told[-1].explanation is found.contrast
    assert found.held_against(found.told[-1].tokens) == "the film was good"
    assert [bool(held) for held in found.against] == [True, False, False]


def test_another_continuation_must_be_another(folder):
    model = heedmap.load(folder("mistral"))
    free = model.explain_produced(text=TEXT, tokens=3)
    with pytest.raises(InputError, match="is what the model wrote, or how the one begins the other"):
        model.explain_produced(text=TEXT, tokens=3, against=free.text)
    with pytest.raises(InputError, match="this model has 55 places left"):
        model.explain_produced(text=TEXT, tokens=3, against="the film " * 40)
    with pytest.raises(InputError, match=r"against=' '\. heedmap expected another continuation"):
        model.explain_produced(text=TEXT, tokens=3, against=" ")
    with pytest.raises(InputError, match="not in this model's vocabulary"):
        heedmap.load(folder("t5")).explain_produced(text=TEXT, tokens=3, against="ζέβρα")


# ---- sinks


LONG = "is there a zebra in the picture? the film was good"


def sunk(model):
    """A GPT-2 whose first place has a key that every query looks for."""
    wide = model.module.config.n_embd
    axis = torch.randn(wide)
    axis = axis - axis.mean()
    with torch.no_grad():
        model.module.transformer.wpe.weight[0] = 100 * axis / axis.norm()
        for block in model.module.transformer.h:
            block.attn.c_attn.weight[:, wide : 2 * wide] += torch.outer(axis / axis.norm(), torch.ones(wide))
            block.attn.c_attn.bias[:wide] += 0.5
    return model


def test_a_sink_is_found_told_and_left_out_of_pictures_alone(folder):
    model = heedmap.load(folder("gpt2"))
    assert "sinks" not in model.explain(text=LONG).metadata
    sunk(model)
    explanation = model.explain(text=LONG)
    inputs = model.inputs(text=LONG)[0]
    share = np.mean([weights[0, :, 1:, 0].mean().item() for weights in api.weights(model.module, inputs)])
    assert explanation.metadata["sinks"] == f"'is' (token 0): {share:.0%}"
    (panel,) = views.panels(explanation)
    assert panel.views[0].units[0].name == "there"
    assert [unit.name for unit in panel.views[0].left_out] == ["is (sink)"]
    plain = api.explain(model.module, inputs)
    torch.testing.assert_close(explanation["input_ids"], plain["input_ids"])
    found = model.explain_produced(text=LONG, tokens=3)
    assert found.layout.special == {0: "is (sink)"}
    assert len(found.words) == len([word for word in found.layout.words if word[0] >= found.begun])


def test_a_token_that_is_read_like_the_others_is_no_sink(folder):
    """The first of few tokens is given much where all are read alike; windows and caps change nothing of that."""
    for name in ("gpt2", "llama", *LANGUAGE):
        model = heedmap.load(folder(name))
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.mul_(0.1)
        assert "sinks" not in model.explain(text=LONG).metadata, name


def test_of_a_long_text_some_tokens_are_asked(folder, monkeypatch):
    model = sunk(heedmap.load(folder("gpt2")))
    every = model.explain(text=LONG).metadata["sinks"]
    monkeypatch.setattr(sinks, "ROWS", 11)
    some = model.explain(text=LONG).metadata["sinks"]
    assert some.startswith("'is' (token 0): ")
    assert abs(float(some[-3:-1]) - float(every[-3:-1])) <= 5
