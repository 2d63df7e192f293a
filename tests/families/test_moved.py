"""Tokens that are spliced, cut into windows, rolled and merged: followed, and equal to the restatement."""

import copy

import numpy as np
import pytest
import torch
import transformers as hf
from moved import Merge, Read, gae, gmar, gradcam_attention, grid, ran, raw, rollout, walked

import heedmap
from heedmap.errors import UnsupportedError
from heedmap.methods import OURS

IMAGE = 9  # the word that stands for a token of a picture
SEEING = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 2, "initializer_range": 0.3,
}  # fmt: skip
SPEAKING = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 50, "initializer_range": 0.3, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TURNED = SPEAKING | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}}


def pixels(count=1, side=8):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def said(words, images):
    ids = torch.tensor([[*words[0], *[IMAGE] * images, *words[1]]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def word(output):
    return output.logits[:, -1, 7]


def kind(output):
    return output.logits[:, 1]


class Case:
    """A model, what it is given, and where each token stands, by the numbers of `streams`: name -> its tokens."""

    def __init__(self, model, inputs, steps, streams, target=word):
        self.model, self.inputs, self.steps, self.streams, self.target = model, inputs, steps, streams, target
        self.ran = None  # the restatement's run of it
        named = [list(step.tokens) if isinstance(step, Merge) else step.queries for step in steps]
        self.tokens = 1 + max(int(np.max(numbers)) for numbers in [*named, *streams.values()])


def spoken(first, before, images, after, layers=2):
    """The rows of a language model: words, the tokens of a picture, words; `first` is the number of the first word."""
    words = np.arange(first, first + before + len(images) + after)
    rows = words.copy()
    rows[before : before + len(images)] = images
    return [grid(rows[None])] * layers, words


def windows(numbers, size, shift=0):
    """A square of tokens, rolled, in windows of size x size."""
    rolled = np.roll(numbers, (-shift, -shift), (0, 1))
    count = len(numbers) // size
    return rolled.reshape(count, size, count, size).transpose(0, 2, 1, 3).reshape(-1, size * size)


def squares(numbers, first, side=2):
    """Each side x side square of tokens becomes one: the new numbers as a square, and what they were."""
    count = len(numbers) // side
    parts = numbers.reshape(count, side, count, side).transpose(0, 2, 1, 3).reshape(count * count, -1)
    new = np.arange(first, first + count * count)
    return new.reshape(count, count), dict(zip(new.tolist(), parts.tolist(), strict=True))


def llava():
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**SEEING), text_config=hf.LlamaConfig(**SPEAKING),
        image_token_index=IMAGE, vision_feature_layer=-2,
    )  # fmt: skip
    speaking, words = spoken(17, 2, np.arange(1, 17), 3)
    nobody = Read(np.arange(38, 55)[None], np.arange(17)[None])  # what the last layer gives is not looked at
    seeing = [grid(np.arange(17)[None]), nobody]
    streams = {"pixel_values": np.arange(17), "input_ids": words}
    inputs = {**said(([1, 3], [4, 5, 6]), 16), "pixel_values": pixels()}
    return Case(hf.LlavaForConditionalGeneration(config), inputs, [*seeing, *speaking], streams)


def paligemma():
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**SEEING, vision_use_head=False),
        text_config=hf.GemmaConfig(**SPEAKING, head_dim=8), image_token_index=IMAGE, projection_dim=16, hidden_size=16,
    )  # fmt: skip
    speaking, words = spoken(16, 0, np.arange(16), 4)
    inputs = {**said(([], [1, 4, 5, 6]), 16), "pixel_values": pixels()}
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    streams = {"pixel_values": np.arange(16), "input_ids": words}
    steps = [*[grid(np.arange(16)[None])] * 2, *speaking]
    return Case(hf.PaliGemmaForConditionalGeneration(config), inputs, steps, streams)


def shuffled(model, name, inputs):
    """Sixteen patches become four tokens among the words."""
    new, old = squares(np.arange(16).reshape(4, 4), 16)
    speaking, words = spoken(20, 2, new.ravel(), 3)
    steps = [*[grid(np.arange(16)[None])] * 2, Merge(old, at=1), *speaking]
    return Case(model, {**said(([1, 3], [4, 5, 6]), 4), **inputs}, steps, {name: np.arange(16), "input_ids": words})


def idefics3():
    config = hf.Idefics3Config(
        vision_config=SEEING, text_config=hf.LlamaConfig(**SPEAKING), image_token_id=IMAGE, scale_factor=2
    )
    model = hf.Idefics3ForConditionalGeneration(config)
    return shuffled(model, "pixel_values (rearranged)", {"pixel_values": pixels()[None]})


def smolvlm():
    config = hf.SmolVLMConfig(
        vision_config=SEEING, text_config=hf.LlamaConfig(**SPEAKING), image_token_id=IMAGE, scale_factor=2
    )
    model = hf.SmolVLMForConditionalGeneration(config)
    return shuffled(model, "pixel_values (rearranged)", {"pixel_values": pixels()[None]})


def internvl():
    config = hf.InternVLConfig(
        vision_config=SEEING | {"image_size": [8, 8], "patch_size": [2, 2]}, text_config=hf.Qwen2Config(**SPEAKING),
        image_token_id=IMAGE, downsample_ratio=0.5,
    )  # fmt: skip
    new, old = squares(np.arange(1, 17).reshape(4, 4), 17)
    speaking, words = spoken(21, 2, new.ravel(), 3)
    steps = [*[grid(np.arange(17)[None])] * 2, Merge(old, at=1), *speaking]
    inputs = {**said(([1, 3], [4, 5, 6]), 4), "pixel_values": pixels()}
    streams = {"pixel_values": np.arange(17), "input_ids": words}
    return Case(hf.InternVLForConditionalGeneration(config), inputs, steps, streams)


def qwen(inputs, side):
    """The patches of a picture as Qwen's processors give them: square after square."""
    generator = torch.Generator().manual_seed(3)
    inputs["pixel_values"] = torch.randn(side * side, 12, generator=generator, dtype=torch.float64)
    inputs["image_grid_thw"] = torch.tensor([[1, side, side]])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    return inputs


QWEN = {"patch_size": 2, "spatial_merge_size": 2, "temporal_patch_size": 1, "in_channels": 3, "initializer_range": 0.3}
MARKED = {"image_token_id": IMAGE, "video_token_id": 10, "vision_start_token_id": 7, "vision_end_token_id": 8}


def qwen2_vl():
    seeing = {**QWEN, "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    model = hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(vision_config=seeing, text_config=TURNED, **MARKED))
    old = {16 + i: [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(4)}
    speaking, words = spoken(20, 3, np.arange(16, 20), 4)
    steps = [*[grid(np.arange(16)[None])] * 2, Merge(old, at=1), *speaking]
    inputs = qwen(said(([1, 3, 7], [8, 4, 5, 6]), 4), 4)
    return Case(model, inputs, steps, {"pixel_values": np.arange(16), "input_ids": words})


def qwen2_5_vl():
    """Windows of 4 x 4 patches, each a call of its own; then one call of all; then squares become one."""
    seeing = {
        **QWEN, "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "window_size": 8,
        "fullatt_block_indexes": [1], "out_hidden_size": 16,
    }  # fmt: skip
    config = hf.Qwen2_5_VLConfig(vision_config=seeing, text_config=TURNED, **MARKED)
    patches = np.arange(64).reshape(16, 4)  # square after square
    own = windows(np.arange(16).reshape(4, 4), 2)  # of squares
    within = [patches[each].ravel() for each in own]
    old = {64 + i: patches[i].tolist() for i in range(16)}
    speaking, words = spoken(80, 3, np.arange(64, 80), 4)
    everywhere = grid(np.concatenate(within)[None])
    steps = [*[grid(each[None]) for each in within], everywhere, Merge(old, at=4), *speaking]
    inputs = qwen(said(([1, 3, 7], [8, 4, 5, 6]), 16), 8)
    model = hf.Qwen2_5_VLForConditionalGeneration(config)
    return Case(model, inputs, steps, {"pixel_values": np.arange(64), "input_ids": words})


def qwen3_vl():
    """What an inner layer of the tower says once more (deepstack) stays with the tokens that it is of."""
    seeing = {
        "patch_size": 2, "spatial_merge_size": 2, "temporal_patch_size": 1, "in_channels": 3, "depth": 3,
        "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0], "initializer_range": 0.3,
    }  # fmt: skip
    config = hf.Qwen3VLConfig(vision_config=seeing, text_config={**TURNED, "head_dim": 8}, **MARKED)
    old = {16 + i: [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(4)}
    speaking, words = spoken(20, 3, np.arange(16, 20), 4)
    steps = [*[grid(np.arange(16)[None])] * 3, Merge(old, at=2), *speaking]
    inputs = qwen(said(([1, 3, 7], [8, 4, 5, 6]), 4), 4)
    model = hf.Qwen3VLForConditionalGeneration(config)
    return Case(model, inputs, steps, {"pixel_values": np.arange(16), "input_ids": words})


ASKING = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50,
    "encoder_hidden_size": 16, "initializer_range": 0.3, "cross_attention_frequency": 1,
}  # fmt: skip
OPT = {
    "model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 50, "word_embed_proj_dim": 16, "max_position_embeddings": 64, "init_std": 0.3, "pad_token_id": 1,
}  # fmt: skip
BLIP = {
    "vision_config": SEEING, "qformer_config": ASKING, "text_config": OPT, "num_query_tokens": 4,
    "image_token_index": IMAGE,
}  # fmt: skip


def blip2():
    """17 patches; 4 queries read themselves and the patches, twice; then they stand before the words."""
    queries = np.arange(17, 21)[None]
    asking = [grid(queries), Read(queries, np.arange(17)[None])] * 2
    speaking, words = spoken(21, 0, queries[0], 4)
    steps = [*[grid(np.arange(17)[None])] * 2, *asking, *speaking]
    inputs = {**said(([], [2, 4, 5, 6]), 4), "pixel_values": pixels()}
    streams = {"pixel_values": np.arange(17), "query_tokens": queries[0], "input_ids": words}
    return Case(hf.Blip2ForConditionalGeneration(hf.Blip2Config(**BLIP)), inputs, steps, streams)


def instructblip():
    """As BLIP-2, but the queries read themselves beside a question of 3 words."""
    both, queries = np.arange(17, 24)[None], np.arange(17, 21)[None]
    asking = [grid(both), Read(queries, np.arange(17)[None])] * 2
    speaking, words = spoken(24, 0, queries[0], 4)
    steps = [*[grid(np.arange(17)[None])] * 2, *asking, *speaking]
    question = torch.tensor([[2, 3, 4]])
    inputs = {**said(([], [2, 4, 5, 6]), 4), "pixel_values": pixels(), "qformer_input_ids": question}
    inputs["qformer_attention_mask"] = torch.ones_like(question)
    streams = {"pixel_values": np.arange(17), "qformer_input_ids": both[0], "input_ids": words}
    return Case(hf.InstructBlipForConditionalGeneration(hf.InstructBlipConfig(**BLIP)), inputs, steps, streams)


def llava_onevision():
    """Two pictures of 16 patches, the whole and one part; 4 learned marks of a row's end stand between them."""
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**SEEING, vision_use_head=False), text_config=hf.Qwen2Config(**SPEAKING),
        image_token_index=IMAGE, image_grid_pinpoints=[[8, 8]], vision_feature_layer=-1,
        vision_aspect_ratio="anyres_max_9", vision_feature_select_strategy="full",
    )  # fmt: skip
    seeing = [grid(np.arange(32).reshape(2, 16))] * 2
    part = np.concatenate([np.arange(16, 32).reshape(4, 4), np.arange(32, 36)[:, None]], 1).ravel()
    speaking, words = spoken(36, 2, np.concatenate([np.arange(16), part]), 3)
    inputs = {**said(([1, 3], [4, 5, 6]), 36), "pixel_values": pixels(2)[None], "image_sizes": torch.tensor([[8, 8]])}
    streams = {"pixel_values": np.arange(32).reshape(2, 16), "input_ids": words}
    return Case(hf.LlavaOnevisionForConditionalGeneration(config), inputs, [*seeing, *speaking], streams)


def swin(config=hf.SwinConfig, model=hf.SwinForImageClassification):
    made = config(
        image_size=16, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=5,
        initializer_range=0.4,
    )  # fmt: skip
    first = np.arange(64).reshape(8, 8)
    new, old = squares(first, 64)
    late = [grid(windows(new, 4))] * 2  # one window of all: nothing is rolled
    steps = [grid(windows(first, 4)), grid(_rolled(first)), Merge(old, at=1), *late]
    return Case(model(made), {"pixel_values": pixels(1, 16)}, steps, {"pixel_values": np.arange(64)}, kind)


def _rolled(numbers):
    return windows(numbers, 4, 2)


def swin_in_windows():
    """Windows and a roll to the end: the answer is read from a state in windows, beside its residual branch."""
    config = hf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=5,
        initializer_range=0.4,
    )  # fmt: skip
    first = np.arange(256).reshape(16, 16)
    new, old = squares(first, 256)
    steps = [grid(windows(first, 4)), grid(_rolled(first)), Merge(old, at=1), grid(windows(new, 4)), grid(_rolled(new))]
    streams = {"pixel_values": np.arange(256)}
    return Case(hf.SwinForImageClassification(config), {"pixel_values": pixels(1, 32)}, steps, streams, kind)


def swinv2():
    return swin(hf.Swinv2Config, hf.Swinv2ForImageClassification)


def sam():
    """Windows of 3 x 3 on a grid of 8 x 8, padded to 9 x 9 with tokens of nobody; then one call of all."""
    config = hf.SamVisionConfig(
        hidden_size=16, output_channels=8, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=2,
        window_size=3, global_attn_indexes=[1], mlp_dim=32, initializer_range=0.3,
    )  # fmt: skip
    padded = np.full((9, 9), 64)
    padded[:8, :8] = np.arange(64).reshape(8, 8)
    steps = [grid(windows(padded, 3)), grid(np.arange(64)[None])]
    return Case(
        hf.SamVisionModel(config), {"pixel_values": pixels(1, 16)}, steps, {"pixel_values": np.arange(64)},
        lambda output: output.last_hidden_state[:, 3, 2, 5],
    )  # fmt: skip


def dinov3():
    config = hf.DINOv3ViTConfig(**SEEING, num_register_tokens=2)
    steps = [grid(np.arange(19)[None])] * 2
    case = Case(hf.DINOv3ViTModel(config), {"pixel_values": pixels()}, steps, {"pixel_values": np.arange(19)})
    case.target = lambda output: output.last_hidden_state[:, 0, 0]
    return case


CASES = [
    llava, paligemma, idefics3, smolvlm, internvl, qwen2_vl, qwen2_5_vl, qwen3_vl, blip2, instructblip,
    llava_onevision, swin, swin_in_windows, swinv2, sam, dinov3,
]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    known = {}

    def case(make):
        if make not in known:
            torch.manual_seed(0)
            known[make] = make()
            known[make].model = known[make].model.double().eval()
            known[make].ran = ran(known[make].model, known[make].inputs, known[make].target)
        return known[make]

    return case


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("correction", ["complete", "positive", "absolute"])
def test_every_token_has_what_the_equations_give(made, make, correction):
    case = made(make)
    flow, start = walked(case.ran, case.steps, case.tokens, correction)
    e = heedmap.explain(case.model, case.inputs, case.target, correction=correction)
    assert set(e.streams) == set(case.streams)
    assert_same(e, case, flow, start)


BASELINES = {
    "gae": gae,
    "raw": raw,
    "rollout": rollout,
    "gmar": gmar,
    "gradcam-attention:all": gradcam_attention,
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", BASELINES)
def test_other_methods_follow_by_the_same_ways(made, make, method):
    case = made(make)
    if (method, make) == ("gae", instructblip):
        with pytest.raises(UnsupportedError, match="gae takes models in which tokens that are moved read one another"):
            heedmap.explain(case.model, case.inputs, case.target, method=method)
        return
    e = heedmap.explain(case.model, case.inputs, case.target, method=method)
    assert_same(e, case, *BASELINES[method](case.ran, case.steps, case.tokens))


def assert_same(e, case, flow, start):
    """Of each stream what each of its tokens has; a stream that is left out has nothing."""
    scale = np.abs(flow).max()
    for stream, numbers in case.streams.items():
        if stream not in e.streams:
            assert not flow[np.setdiff1d(numbers, np.concatenate([case.streams[s].ravel() for s in e.streams]))].any()
            continue
        found, begun = e[stream].numpy(), e.starts[stream].numpy()
        np.testing.assert_allclose(found.reshape(numbers.shape), flow[numbers], rtol=0, atol=1e-9 * scale)
        np.testing.assert_allclose(begun.reshape(numbers.shape), start[numbers], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [llava, swin, idefics3], ids=lambda make: make.__name__)
def test_in_less_precision_tokens_go_the_same_way(made, make, dtype):
    case = made(make)
    expected = heedmap.explain(case.model, case.inputs, case.target)
    rough = copy.deepcopy(case.model).to(dtype)
    inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in case.inputs.items()}
    e = heedmap.explain(rough, inputs, case.target)
    for stream in e.streams:
        alike = torch.cosine_similarity(e[stream].double().flatten(), expected[stream].double().flatten(), dim=0)
        assert alike > 0.99


def test_what_is_saved_knows_which_streams_are_of_what_entered(made, tmp_path):
    case = made(llava)
    e = heedmap.explain(case.model, case.inputs, case.target)
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed")
    assert opened.wiring.moved == e.wiring.moved
    assert set(opened.wiring.entered) == set(case.streams) < set(opened.wiring.tokens)


FOLLOWING = [name for name, method in OURS.items() if method.follows]
FEW = {"dix": {"steps": 2}, "ig": {"steps": 2}}


@pytest.mark.parametrize("method", FOLLOWING)
def test_examples_of_a_batch_are_what_each_is_alone(made, method):
    case = made(swin)
    two = {"pixel_values": torch.cat([pixels(1, 16), pixels(1, 16).flip(-1)])}
    few = FEW.get(method, {})
    both = heedmap.explain(case.model, two, case.target, method=method, **few)
    for i in (0, 1):
        alone = heedmap.explain(
            case.model, {"pixel_values": two["pixel_values"][i : i + 1]}, case.target, method=method, **few
        )
        torch.testing.assert_close(both["pixel_values"][i], alone["pixel_values"][0], equal_nan=True)


@pytest.mark.parametrize("method", FOLLOWING)
def test_many_targets_are_what_each_is_alone(made, method):
    case = made(internvl)
    targets = [word, lambda output: output.logits[:, 4, 11] - output.logits[:, 4, 2]]
    few = FEW.get(method, {})
    together = heedmap.explain_each(case.model, case.inputs, targets, method=method, **few)
    for target, e in zip(targets, together, strict=True):
        alone = heedmap.explain(case.model, case.inputs, target, method=method, **few)
        assert e.streams == alone.streams
        for stream in e.streams:
            torch.testing.assert_close(e[stream], alone[stream], equal_nan=True)
