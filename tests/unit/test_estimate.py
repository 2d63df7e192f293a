"""The estimate is told from shapes alone, and is near what an explanation takes."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTForImageClassification

import heedmap
from heedmap.errors import InputError, UnsupportedError

MEASURE = """
import torch, heedmap
from transformers import ViTConfig, ViTForImageClassification
torch.set_num_threads(1)
model = ViTForImageClassification(ViTConfig(hidden_size=128, num_hidden_layers=12, num_attention_heads=2,
    intermediate_size=512, image_size=512, patch_size=16, num_labels=10)).eval()
x = {"pixel_values": torch.randn(4, 3, 512, 512)}
told = heedmap.estimate(model, x).total
def read(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
heedmap.explain(model, {"pixel_values": x["pixel_values"][:1, :, :, :]}, 1, verify=False)
open("/proc/self/clear_refs", "w").write("5")
before = read("VmRSS")
heedmap.explain(model, x, 1, verify=False)
print(told, read("VmHWM") - before)
"""


def vit():
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32)
    return ViTForImageClassification(config).eval()


def test_more_examples_take_more():
    model = vit()
    one, four = (heedmap.estimate(model, {"pixel_values": torch.randn(n, 3, 32, 32)}) for n in (1, 4))
    assert four.graph == pytest.approx(4 * one.graph, rel=0.05)
    assert four.total == four.graph + four.workspace


def test_memory_grows_with_the_tokens_not_with_their_square():
    """At 65,536 tokens a single attention map of one head would be 17 GB; nothing of the size is allocated here."""
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=65536, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    short, long = (heedmap.estimate(model, {"input_ids": torch.ones(1, n, dtype=torch.long)}) for n in (4096, 65536))
    assert long.graph == pytest.approx(16 * short.graph, rel=0.05)


def test_it_reads_as_a_sentence():
    assert str(heedmap.estimate(vit(), torch.randn(1, 3, 32, 32))).startswith("about ")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_is_near_what_an_explanation_takes():
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    told, taken = map(int, run.stdout.split())
    assert 0.5 * taken < told < 2 * taken


def test_a_course_that_hangs_on_numbers_is_refused():
    class Halting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0] if bool(x.sum() > 0) else x

    with pytest.raises(UnsupportedError, match=r"depends on the numbers.*explain a smaller input"):
        heedmap.estimate(Halting().eval(), torch.ones(1, 4, 8))


def test_a_function_is_no_module():
    with pytest.raises(InputError, match=r"expected a torch.nn.Module"):
        heedmap.estimate(torch.nn.functional.relu, torch.ones(1, 4, 8))
