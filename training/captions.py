"""Captions of scenes, and the word-level tokenizer that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedmap import menagerie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "[PAD]", "[UNKNOWN]", "[START]", "[END]"  # CLIP reads an end of id 2 in a way of its own
TEMPLATES = ("a photo of {}", "{}", "a drawing of {}", "a picture with {}")
LONGEST = 24  # tokens


def caption(kinds: Sequence[str], template: str = TEMPLATES[0]) -> str:
    """`a photo of a zebra, a cat and a bald eagle`."""
    named = [menagerie.phrase(kind) for kind in kinds]
    *others, last = named
    return template.format(f"{', '.join(others)} and {last}" if others else last)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; a caption ends in [END], whose row CLIP reads."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    text = " ".join([*TEMPLATES, *menagerie.KINDS, "a an and , "]).replace("{}", "").split()
    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, START, END, *sorted(set(text))])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    inner.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
    )
