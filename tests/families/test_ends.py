"""Where convolutions mix what enters, the walk ends at what is declared: exact from there, and refused without."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from builders import CLASSES, Ask, settle
from dense import Step, record, walk
from runs import distance

import heedmap
from heedmap.errors import MixedTokensError
from heedmap.families.tasks import ENDS

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
HEARD = {
    "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 20, "num_labels": CLASSES,
}  # fmt: skip
HEARING = {
    "wav2vec2": (hf.Wav2Vec2ForSequenceClassification, hf.Wav2Vec2Config),
    "hubert": (hf.HubertForSequenceClassification, hf.HubertConfig),
}


def made(name: str):
    model, config = HEARING[name]
    torch.manual_seed(11)
    model = model(config(**SMALL, **HEARD)).eval()
    settle(model)
    return model.double(), {"input_values": torch.randn(2, 400, dtype=torch.float64)}


@pytest.mark.parametrize("correction", ["complete", "positive", "absolute"])
@pytest.mark.parametrize("name", HEARING)
def test_sounds_are_exact_from_the_frames_that_attend(name, correction):
    model, inputs = made(name)
    ask = Ask()
    e = heedmap.explain(model, inputs, ask, correction=correction, wiring=ENDS[name])
    frames = e["frames"].shape[1]
    run = record(model, inputs, ask)
    true = walk(run, [Step("frames", "frames")] * 2, {"frames": frames}, correction=correction)
    assert frames > 10
    assert distance(e["frames"].numpy(), true["frames"].flowed) <= 1e-9


@pytest.mark.parametrize("name", HEARING)
def test_without_a_declaration_they_are_refused(name):
    model, inputs = made(name)
    with pytest.raises(MixedTokensError, match=r"convolution.*Declare where the walk may end"):
        heedmap.explain(model, inputs, Ask())
