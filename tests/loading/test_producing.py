"""What a model writes is explained word by word, as if each word had been asked for by itself."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import heedmap
from heedmap import api, logit
from heedmap.errors import InputError, ModelError
from heedmap.families import adding, openings, words
from heedmap.layouts import Words

sys.path.append(str(Path(__file__).parents[2] / "docs" / "worked"))
import toys

TEXT = "is there a zebra in the picture?"
WAVE = np.random.default_rng(2).standard_normal(12000).astype(np.float32) / 10
PICTURE = np.random.default_rng(4).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GIVEN = {"whisper": {"sound": WAVE}, "blip": {"image": PICTURE, "text": TEXT}}
WRITERS = ("t5", "bart", "marian", "whisper", "blip", "gpt2", "llama")


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A model that has learned to translate: what it reads for each word is known."""
    place = tmp_path_factory.mktemp("translator")
    for part in toys.translator(steps=90):
        part.save_pretrained(place)
    return heedmap.load(place)


def written(name, folder, **options):
    model = heedmap.load(folder(name))
    return model, model.explain_produced(**GIVEN.get(name, {"text": TEXT}), **options)


def step(model, found, name, i):
    """The inputs when token i is about to be written."""
    inputs, _ = model.inputs(**GIVEN.get(name, {"text": TEXT}))
    begun = inputs[found.stream]
    assert begun.shape[1] == found.begun
    inputs[found.stream] = torch.cat([begun, torch.tensor([found.indices[:i]], dtype=torch.long)], 1)
    if found.stream == "input_ids" and "attention_mask" in inputs:
        inputs["attention_mask"] = torch.ones_like(inputs[found.stream])
    return inputs


@pytest.mark.parametrize("name", WRITERS)
def test_each_token_is_explained_as_if_it_were_asked_for_alone(name, folder):
    model, found = written(name, folder, tokens=6)
    assert 1 <= len(found.indices) == len(found.explanations) == len(found.tokens) <= 6
    assert found.ended or len(found.indices) == 6
    assert found.overruled == ()
    for i, (index, whole) in enumerate(zip(found.indices, found.explanations, strict=True)):
        inputs = step(model, found, name, i)
        with torch.no_grad():
            logits = model.module(**inputs)["logits"][0, -1]
        assert int(logits.argmax()) == index  # greedy, one step at a time
        alone = api.explain(model.module, inputs, logit(index, position=found.begun + i - 1))
        assert whole.value.item() == pytest.approx(logits[index].item(), abs=1e-4)
        assert whole.streams == alone.streams
        for stream in alone.streams:
            peak = alone[stream].abs().max().item()
            torch.testing.assert_close(whole[stream], alone[stream], rtol=1e-4, atol=1e-5 * max(peak, 1.0))
        assert len(whole.shown[0].layouts[found.stream].texts) == whole[found.stream].shape[1] == found.begun + i


def test_a_prefix_and_its_next_word_say_the_same(translator):
    text = "the small zebra follows the red owl"
    found = translator.explain_produced(text=text, tokens=12)
    assert (found.text, found.ended) == ("le zèbre petit suit le hibou rouge", True)
    so_far = ""
    for word in found.words[:-1]:
        alone = translator.explain(text=text, prefix=so_far or None, target=word.text)
        assert alone.shown[0].layouts.keys() == word.explanation.shown[0].layouts.keys()
        for stream in alone.streams:
            torch.testing.assert_close(word.explanation[stream], alone[stream], rtol=1e-4, atol=1e-5)
        so_far = f"{so_far} {word.text}".strip()
    assert found.words[-1].special
    assert found.words[-1].text == toys.END


@pytest.mark.parametrize("against", [None, "next best"])
def test_a_word_is_read_off_the_word_that_it_translates(translator, against):
    back = {theirs: ours for table in (toys.ANIMALS, toys.LOOKS, toys.DOES) for ours, theirs in table.items()}
    hits = []
    for seed in range(6):
        source, wanted = toys.sentence(random.Random(10_000 + seed))
        found = translator.explain_produced(text=source, tokens=12, against=against)
        assert found.text == wanted
        for word in found.words:
            if word.text in back:
                loudest = int(word.explanation["input_ids"][0, : len(source.split())].abs().argmax())
                hits.append(source.split()[loudest] == back[word.text])
    assert len(hits) == 30
    assert np.mean(hits) > 0.85  # by chance one in seven


def test_what_is_read_and_what_was_there_move_a_logit_by_equal_amounts(translator):
    """Why the sign of a single logit is no verdict where a normalisation stands behind each call."""
    inputs, _ = translator.inputs(text="the small zebra follows the red owl", prefix="le")
    layer = translator.module.model.decoder.layers[-1]
    met = {}
    hooks = [
        layer.encoder_attn.register_forward_hook(lambda _, __, out: met.update(read=out[0])),
        layer.encoder_attn_layer_norm.register_forward_pre_hook(lambda _, into: met.update(both=into[0])),
    ]
    logits = translator.module(**inputs).logits[0, -1]
    (gradient,) = torch.autograd.grad(logits.max(), met["both"])
    for hook in hooks:
        hook.remove()
    read, both = ((gradient[0, -1] * met[name][0, -1]).sum().item() for name in ("read", "both"))
    assert abs(read) > 0.01
    assert abs(both) < 1e-4 * abs(read)


def test_the_next_best_is_what_the_model_liked_best_but_for_the_word(translator):
    text = "the old cat hears the big snail"
    found = translator.explain_produced(text=text, tokens=12, against="Next-best")
    inputs, _ = translator.inputs(text=text)
    with torch.no_grad():
        best = translator.module(**inputs).logits[0, 0].topk(2)
    assert found.against[0] == translator.processor.text.convert_ids_to_tokens(int(best.indices[1]))
    assert found.explanations[0].value.item() == pytest.approx(float(best.values[0] - best.values[1]), abs=1e-4)
    assert found.words[0].explanation.shown[0].answer == f"le rather than {found.against[0]}"


def test_what_comes_later_has_no_part_and_is_noticed_if_it_has(folder):
    model, found = written("bart", folder, tokens=5)
    inputs = step(model, found, "bart", 4)
    raw = api.explain_each(model.module, inputs, [logit(found.indices[i], position=i) for i in range(5)])
    for i, explanation in enumerate(raw):
        assert not explanation["decoder_input_ids"][0, i + 1 :].any()
    with pytest.raises(ModelError, match="looks ahead"):
        adding.until(raw[4], "decoder_input_ids", 2)


def test_one_forward_pass_explains_all(folder):
    model = heedmap.load(folder("bart"))
    passes = []
    model.module.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    model.explain_produced(text=TEXT, tokens=7)
    assert passes.count(True) == 1


def test_a_word_of_several_tokens_adds_them_up(folder):
    _, found = written("gpt2", folder, tokens=8)
    several = [word for word in found.words if len(word.tokens) > 1]
    assert several
    for word in several:
        parts = [found.explanations[token] for token in word.tokens]
        total = np.zeros(word.explanation["input_ids"].shape[1])
        for part in parts:
            row = part["input_ids"][0].numpy()
            total[: len(row)] += row
        np.testing.assert_allclose(word.explanation["input_ids"][0].numpy(), total, rtol=1e-5)
        assert word.explanation.value.item() == pytest.approx(sum(part.value.item() for part in parts), rel=1e-5)
    listed = [token for word in found.words for token in word.tokens]
    assert listed == list(range(8))


# ---- what the generation config puts in


def test_what_the_model_may_not_write_is_told(folder):
    model = heedmap.load(folder("t5"))
    free = model.explain_produced(text=TEXT, tokens=3)
    model.module.generation_config.suppress_tokens = [free.indices[0]]
    found = model.explain_produced(text=TEXT, tokens=3, against="next best")
    assert found.indices[0] != free.indices[0]
    assert 0 in found.overruled
    assert found.explanations[0].predicted is None
    assert found.explanations[0].value.item() < 0  # another was liked better, and that is what it is held against


def test_a_forced_first_token_stands_before_the_first_word(folder):
    model = heedmap.load(folder("bart"))
    start, forced = model.module.config.decoder_start_token_id, model.module.config.bos_token_id
    model.module.generation_config.forced_bos_token_id = forced
    model.module.generation_config.forced_eos_token_id = model.module.config.eos_token_id
    inputs, shown = model.inputs(text=TEXT, prefix="the film")
    assert inputs["decoder_input_ids"][0, :2].tolist() == [start, forced]
    assert shown[0].layouts["decoder_input_ids"].special == {0: "</s>", 1: "<s>"}
    found = model.explain_produced(text=TEXT, tokens=4)
    assert found.begun == 2
    plain = model.module.generate(**model.inputs(text=TEXT)[0], do_sample=False, num_beams=1, max_new_tokens=4)
    assert found.indices[:-1] == tuple(plain[0, 2:5].tolist())
    assert not found.ended  # no end is forced where the tokens asked for run out


def test_whisper_opens_with_the_tokens_that_its_own_generate_feeds(folder):
    model = heedmap.load(folder("whisper"))
    settings = model.module.generation_config
    settings.lang_to_id = {"<|en|>": 300, "<|de|>": 301}
    settings.task_to_id = {"transcribe": 302, "translate": 303}
    settings.no_timestamps_token_id, settings.is_multilingual = 304, True
    settings.forced_decoder_ids, settings.task, settings.return_timestamps = None, "transcribe", False
    fed = []
    hook = model.module.model.decoder.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    features = model.inputs(sound=WAVE)[0]["input_features"]
    model.module.generate(features, do_sample=False, num_beams=1, max_new_tokens=2)
    hook.remove()
    opening = max(fed, key=len)
    assert len(opening) == 4
    assert model.inputs(sound=WAVE)[0]["decoder_input_ids"].tolist() == [opening]
    settings.language = "de"
    assert openings.openings(model.module, {}, 2) == [[0, 301, 302, 304]] * 2
    settings.language = "fr"
    with pytest.raises(InputError, match=r"names the language 'fr'.*such as en, de"):
        openings.openings(model.module, {}, 1)


def test_what_a_decoder_writes_has_pieces_of_its_own(folder):
    """Marian's tokenizer has one set of pieces for each language."""

    class Two:
        def __init__(self):
            self.source = transformers.AutoTokenizer.from_pretrained(folder("t5"))
            self.target = transformers.AutoTokenizer.from_pretrained(folder("bart"))
            self.is_fast = True

        def __call__(self, text=None, text_target=None, **how):
            return self.source(text, **how) if text_target is None else self.target(text_target, **how)

        def __getattr__(self, name):
            return getattr(self.target, name)

    both = Two()
    ids, _ = words.begun(both, [[2]], "there")
    assert ids.tolist() == [[2, *both.target("there", add_special_tokens=False)["input_ids"]]]
    assert words.token(both, "there", target=True) == both.target(" there", add_special_tokens=False)["input_ids"][0]


def test_a_package_that_a_tokenizer_needs_is_named(folder, monkeypatch):
    def absent(*_, **__):
        raise ImportError("\nMarianTokenizer requires the SentencePiece library but it was not found. Check out")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", absent)
    with pytest.raises(ModelError, match=r"needs the package sentencepiece: `pip install sentencepiece`\.$"):
        heedmap.load(folder("marian"))


# ---- words of what was written


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert-masked"])
def test_tokens_are_read_back_as_the_words_they_were(name, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder(name))
    text = "there is a naïve zebra, well-drawn!" if name != "bert-masked" else "there is a well-drawn zebra"
    text, layout = words.written(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "zebra" in text
    merged = ["".join(layout.texts[token] for token in word) for word in layout.words]
    assert "".join(merged) == "".join(text.split())
    assert "zebra" in merged
    assert "naïve" in merged or name == "bert-masked"


def test_an_end_mark_is_no_word(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("t5"))
    text, layout = words.written(tokenizer, tokenizer("a zebra")["input_ids"])
    assert text == "a zebra"
    assert list(layout.special.values()) == ["</s>"]


def test_texts_are_joined_and_cut():
    first = Words(("<s>", "a", "ze", "bra"), ((1,), (2, 3)), {0: "<s>"})
    both = words.joined(first, Words(("s", "</s>"), ((0,),), {1: "</s>"}))
    assert both == Words(("<s>", "a", "ze", "bra", "s", "</s>"), ((1,), (2, 3), (4,)), {0: "<s>", 5: "</s>"})
    assert words.begins(both, 3) == Words(("<s>", "a", "ze"), ((1,), (2,)), {0: "<s>"})


# ---- what cannot be


def test_what_cannot_be_written_is_refused(folder):
    t5 = heedmap.load(folder("t5"))
    with pytest.raises(InputError, match="it chooses an answer and writes none"):
        heedmap.load(folder("bert")).explain_produced(text=TEXT)
    with pytest.raises(InputError, match="2 examples were given"):
        t5.explain_produced(text=[TEXT, TEXT])
    with pytest.raises(InputError, match="tokens is 0"):
        t5.explain_produced(text=TEXT, tokens=0)
    with pytest.raises(InputError, match="against=3"):
        t5.explain_produced(text=TEXT, against=3)


def test_a_single_token_is_enough(folder):
    _, found = written("bart", folder, tokens=1)
    assert (len(found.indices), len(found.words), found.ended) == (1, 1, False)


def test_no_more_is_written_than_there_are_places(folder):
    model, found = written("gpt2", folder, tokens=500)
    assert found.begun + len(found.indices) == model.config.n_positions
    with pytest.raises(InputError, match="takes 64"):
        model.explain_produced(text="the film " * 40, tokens=3)


def test_each_token_is_told_of_as_it_comes(folder):
    told = []
    _, found = written("gpt2", folder, tokens=4, progress=lambda done, of: told.append((done, of)))
    assert told == [(i + 1, len(found.indices)) for i in range(len(found.indices))]
    assert len(found.indices) > 1
