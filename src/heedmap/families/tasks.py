"""What a model does, told from the class its config names, and what it takes for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heedmap.errors import InputError, ModelError
from heedmap.families.between import mark_of


@dataclass(frozen=True)
class Task:
    """What a task takes: which inputs, and the Auto class of transformers that loads a model for it."""

    takes: tuple[str, ...]  # "image", "text", "sound"
    auto: str


TASKS = {
    "image-classification": Task(("image",), "AutoModelForImageClassification"),
    "object-detection": Task(("image",), "AutoModelForObjectDetection"),
    "zero-shot-image-classification": Task(("image", "text"), "AutoModelForZeroShotImageClassification"),
    "visual-question-answering": Task(("image", "text"), "AutoModelForVisualQuestionAnswering"),
    "image-text-to-text": Task(("image", "text"), "AutoModelForVisualQuestionAnswering"),
    "image-text-generation": Task(("image", "text"), "AutoModelForImageTextToText"),
    "text-classification": Task(("text",), "AutoModelForSequenceClassification"),
    "token-classification": Task(("text",), "AutoModelForTokenClassification"),
    "fill-mask": Task(("text",), "AutoModelForMaskedLM"),
    "text-generation": Task(("text",), "AutoModelForCausalLM"),
    "text2text-generation": Task(("text",), "AutoModelForSeq2SeqLM"),
    "audio-classification": Task(("sound",), "AutoModelForAudioClassification"),
    "automatic-speech-recognition": Task(("sound",), "AutoModelForSpeechSeq2Seq"),
}

# In order: the first ending that fits the class a config names. What is not here needs `task=`.
ENDINGS = {
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForAudioClassification": "audio-classification",
}
SOUND = ("wav2vec2", "hubert", "wavlm", "unispeech", "data2vec-audio", "sew")
SPEECH = ("whisper", "speech_to_text")
QUESTIONS = ("lxmert", "visual_bert", "vilt")  # these choose among answers, BLIP writes one
# two towers that meet in one number
TOWERS = ("clip", "siglip", "siglip2", "altclip", "chinese_clip", "metaclip_2", "vision-text-dual-encoder", "align")
# Where the walk is declared to end: behind convolutions that add to each token its neighbours.
ENDS: dict[str, dict[int | str, dict[str, str]]] = {
    **{kind: {0: {"reading": "frames", "read": "frames"}} for kind in SOUND},
    **{
        kind: {"model.decoder.layers.0.encoder_attn.attn": {"read": "features"}}
        for kind in ("rt_detr", "pp_doclayout_v3")
    },
    "rt_detr_v2": {"model.decoder.layers.0.encoder_attn": {"read": "features"}},
    "lw_detr": {  # its queries are the first rows of a table
        "model.decoder.layers.0.self_attn": {"reading": "queries", "read": "queries"},
        "model.decoder.layers.0.cross_attn.attn": {"read": "features"},
    },
}
DECODERS = ("text2text-generation", "automatic-speech-recognition", "image-text-to-text")  # they read, then write
WRITERS = (*DECODERS, "text-generation", "image-text-generation")
VOCABULARY = (*WRITERS, "fill-mask")
MATCHES = "zero-shot-image-classification"
DETECTS = "object-detection"


def task_of(config: Any, said: str | None, source: str) -> str:
    """The task of a model: what the user says, else what its class is for."""
    if said is not None:
        if said not in TASKS:
            raise InputError(f"task is {said!r}. heedmap expected one of {', '.join(TASKS)}.")
        return said
    named = (getattr(config, "architectures", None) or [""])[0]
    kind = config.model_type
    if named.endswith("ForSequenceClassification") and kind.startswith(SOUND):
        return "audio-classification"
    for ending, task in ENDINGS.items():
        if named.endswith(ending):
            return task
    if named.endswith("ForConditionalGeneration") and mark_of(config) is not None:
        _check_writes_on(config, named, source)
        return "image-text-generation"
    if named.endswith("ForConditionalGeneration"):
        return "automatic-speech-recognition" if kind in SPEECH else "text2text-generation"
    if named.endswith("MTModel"):
        return "text2text-generation"
    if named.endswith("ForQuestionAnswering") and kind in QUESTIONS:
        return "visual-question-answering"
    if named == "BlipForQuestionAnswering":
        return "image-text-to-text"
    if kind in TOWERS and named.endswith("Model"):
        return "zero-shot-image-classification"
    if named.endswith("ForCTC"):
        raise ModelError(
            f"{source!r} is a {named}: it writes a letter, or none, for each stretch of sound. heedmap expected a "
            "model with one answer. Load it yourself; with the indices of a letter and of a stretch call "
            f"heedmap.explain(module, inputs, target=logit(letter, position=stretch){_declared(kind)})."
        )
    raise ModelError(
        f"{source!r} is a {named or kind}: what it answers is not known. heedmap expected a model with a head for one "
        f"of {', '.join(TASKS)}. Say which with task=, or load it yourself and call heedmap.explain(module, inputs, "
        "...)."
    )


def _check_writes_on(config: Any, named: str, source: str) -> None:
    if getattr(config.text_config, "is_encoder_decoder", False):
        raise ModelError(
            f"{source!r} is a {named} whose language model is a {config.text_config.model_type}: it reads a text with "
            "its picture, and writes another. heedmap expected a model of pictures between words that writes on after "
            "them; load it yourself and call heedmap.explain(module, inputs, ...) with decoder_input_ids."
        )


def _declared(kind: str) -> str:
    """What to declare where a convolution stands before the first call."""
    return f", wiring={ENDS[kind]!r}" if kind in ENDS else ""
