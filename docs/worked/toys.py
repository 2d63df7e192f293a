"""The small models that the worked pages' pictures were made with: they learn in seconds from made-up sentences.

`python docs/worked/toys.py NAME FOLDER` makes one. `translator`: "the small owl" becomes "le hibou petit".
`summariser`: of three sentences the one about seeing is the summary. `listener`: three tones are told as words.
`talker`: asked in a conversation it translates as the translator does, into the language that the system prompt names.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

ANIMALS = {"zebra": "zèbre", "dog": "chien", "cat": "chat", "owl": "hibou", "snail": "escargot", "horse": "cheval"}
LOOKS = {"small": "petit", "big": "grand", "red": "rouge", "black": "noir", "old": "vieux"}
DOES = {"sees": "voit", "hears": "entend", "follows": "suit"}
PLACES = ("lake", "hill", "wood", "field")
TONES = {"low": 300.0, "middle": 900.0, "high": 2700.0}
RATE, SECONDS, TONE = 16000, 1, 0.2  # TONE seconds each, at random times in their order
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' + message['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ENOUGH = {"translator": 120, "summariser": 200, "listener": 160, "talker": 400}  # batches of 48 examples


def sentence(chance: random.Random) -> tuple[str, str]:
    """A sentence and its translation, in which looks stand behind what they are of."""
    one, other = chance.sample(list(ANIMALS), 2)
    x, y = chance.choice(list(LOOKS)), chance.choice(list(LOOKS))
    does = chance.choice(list(DOES))
    translated = f"le {ANIMALS[one]} {LOOKS[x]} {DOES[does]} le {ANIMALS[other]} {LOOKS[y]}"
    return f"the {x} {one} {does} the {y} {other}", translated


def story(chance: random.Random) -> tuple[str, str]:
    """Three sentences in any order, and what happened in the one that matters."""
    one, other, third, fourth = chance.sample(list(ANIMALS), 4)
    look, place = chance.choice(list(LOOKS)), chance.choice(PLACES)
    told = [f"the {third} was {look} .", f"at the {place} the {one} saw the {other} .", f"a {fourth} slept ."]
    chance.shuffle(told)
    return " ".join(told), f"{one} saw {other}"


def tune(chance: random.Random) -> tuple[np.ndarray, str, list[tuple[float, float]]]:
    """Three tones within a second: the sound, their names, and from when to when each is heard."""
    names = [chance.choice(list(TONES)) for _ in range(3)]
    free = SECONDS - 3 * TONE
    pauses = sorted(chance.uniform(0, free) for _ in names)
    heard = [(pause + i * TONE, pause + (i + 1) * TONE) for i, pause in enumerate(pauses)]
    time = np.arange(RATE * SECONDS) / RATE
    wave = sum(
        np.sin(2 * np.pi * TONES[name] * time) * ((time >= start) & (time < end))
        for name, (start, end) in zip(names, heard, strict=True)
    )
    return np.asarray(wave, np.float32) / 2, " ".join(names), heard


def exchange(chance: random.Random) -> tuple[list[dict[str, str]], str]:
    """What is said to the talker, and its answer: French, or the same again."""
    text, translated = sentence(chance)
    french = chance.random() < 0.5
    told = [("system", "answer in french" if french else "say it again"), ("user", text)]
    return [{"role": role, "content": content} for role, content in told], translated if french else text


def tokenizer(texts: Sequence[str]) -> Any:
    words = dict.fromkeys([PAD, END, UNKNOWN, *sorted({word for text in texts for word in text.split()})])
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=64
    )


def translator(steps: int = ENOUGH["translator"], seed: int = 0) -> tuple[Any, Any]:
    return _texts(hf.MarianMTModel, hf.MarianConfig, sentence, steps, seed, scale_embedding=True)


def summariser(steps: int = ENOUGH["summariser"], seed: int = 0) -> tuple[Any, Any]:
    return _texts(hf.BartForConditionalGeneration, hf.BartConfig, story, steps, seed)


def listener(steps: int = ENOUGH["listener"], seed: int = 0) -> tuple[Any, Any, Any]:
    words = tokenizer(list(TONES))
    hears = hf.WhisperFeatureExtractor(feature_size=16, chunk_length=SECONDS)
    config = hf.WhisperConfig(
        **_size(words), num_mel_bins=16, max_source_positions=50, max_target_positions=16, begin_suppress_tokens=None
    )
    torch.manual_seed(seed)
    module = hf.WhisperForConditionalGeneration(config)

    def batch(chance: random.Random) -> dict[str, torch.Tensor]:
        waves, names, _ = zip(*(tune(chance) for _ in range(48)), strict=True)
        heard = hears(list(waves), sampling_rate=RATE, return_tensors="pt", padding="max_length")["input_features"]
        return {"input_features": heard, "labels": _ids(words, names)}

    return _trained(module, batch, steps, seed), hears, words


def talker(steps: int = ENOUGH["talker"], seed: int = 0) -> tuple[Any, Any]:
    drawn = [exchange(random.Random(i)) for i in range(400)]
    said = [text for messages, answer in drawn for text in (answer, *(message["content"] for message in messages))]
    words = tokenizer(said)
    words.add_special_tokens({"additional_special_tokens": list(TURNS)})
    words.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = hf.LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=len(words),
        max_position_embeddings=64, initializer_range=0.05, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip

    def batch(chance: random.Random) -> dict[str, torch.Tensor]:
        asked, wanted = zip(*(exchange(chance) for _ in range(48)), strict=True)
        begun = [words.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in asked]
        ids = [words(one, add_special_tokens=False)["input_ids"] for one in begun]
        rows = [[*one, *words(answer)["input_ids"]] for one, answer in zip(ids, wanted, strict=True)]
        told = [[-100] * len(one) + row[len(one) :] for one, row in zip(ids, rows, strict=True)]
        return {"input_ids": torch.tensor(rows), "labels": torch.tensor(told)}

    return _trained(hf.LlamaForCausalLM(config), batch, steps, seed), words


def _texts(
    kind: Any, config: Any, drawn: Callable[[random.Random], tuple[str, str]], steps: int, seed: int, **more: Any
) -> tuple[Any, Any]:
    words = tokenizer([text for i in range(400) for text in drawn(random.Random(i))])
    torch.manual_seed(seed)
    module = kind(config(**_size(words), max_position_embeddings=64, init_std=0.05, **more))

    def batch(chance: random.Random) -> dict[str, torch.Tensor]:
        given, wanted = zip(*(drawn(chance) for _ in range(48)), strict=True)
        return {"input_ids": _ids(words, given), "labels": _ids(words, wanted)}

    return _trained(module, batch, steps, seed), words


def _size(words: Any) -> dict[str, Any]:
    return {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": len(words),
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "decoder_start_token_id": 0,
        "forced_eos_token_id": None, "dropout": 0.0,
    }  # fmt: skip


def _ids(words: Any, texts: Sequence[str]) -> torch.Tensor:
    """Each kind of text here has one length, so that nothing is padded."""
    return torch.tensor(words(list(texts))["input_ids"])


def _trained(module: Any, batch: Callable[[random.Random], dict[str, torch.Tensor]], steps: int, seed: int) -> Any:
    chance, rate = random.Random(seed), 3e-3
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    module.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30)
        loss = module(**batch(chance)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


if __name__ == "__main__":
    made = {"translator": translator, "summariser": summariser, "listener": listener, "talker": talker}
    for part in made[sys.argv[1]]():
        part.save_pretrained(sys.argv[2])
