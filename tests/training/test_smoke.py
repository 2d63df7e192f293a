"""A few steps of the classifiers and of clip; an interrupted training ends where an unbroken one does."""

import importlib
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPModel, ViTForImageClassification

from heedmap import menagerie
from training import captions, common, encoder, measure, optimizer, scenery, vit, vit_mislabelled

STEPS, SCENES = 4, 6


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in ("vit", "vit_deep", "vit_mislabelled", "clip"):
        monkeypatch.setattr(importlib.import_module(f"training.{name}"), "BATCH", 8)


def train(name, folder, steps=STEPS):
    """The checkpoint of a recipe, written below `folder`."""
    out, state = folder / name, folder / "state" / f"{name}.pt"
    options = {"--threads": 1, "--steps": steps, "--scenes": SCENES, "--out": out, "--state": state}
    recipe = importlib.import_module(f"training.{name.replace('-', '_')}")
    recipe.main([str(word) for pair in options.items() for word in pair])
    return out


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder with a vit of a few steps."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vit, "BATCH", 8)
        train("vit", folder)
    return folder


@pytest.mark.parametrize("name", ["vit", "vit-deep", "vit-mislabelled", "clip"])
def test_a_recipe_writes_what_transformers_loads(name, zoo, tmp_path, monkeypatch):
    if name == "clip":
        monkeypatch.setattr(importlib.import_module("training.clip"), "ZOO", zoo)
    out = zoo / name if name == "vit" else train(name, tmp_path)
    model = (CLIPModel if name == "clip" else ViTForImageClassification).from_pretrained(out)
    assert model.dtype == torch.float32
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.float16}
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["class"] == type(model).__name__
    assert card["sha256"] == {p.name: common.digest(p) for p in out.iterdir() if p.name != "card.json"}
    assert card["seeds"]["training"][0] >= common.FIRST_TRAINING_SEED
    assert all(last < common.FIRST_TRAINING_SEED for _, last in card["seeds"]["held out"].values())
    assert card["measured"] == {k: round(v, 4) for k, v in measure.MEASURES[name](out, SCENES).items()}
    if name == "vit-deep":
        assert model.config.num_hidden_layers == 12


@pytest.mark.parametrize("how", ["killed", "asked to stop"])
def test_an_interrupted_training_ends_with_the_same_weights(how, zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "SAVE_EVERY", 0.0)
    shown = scenery.Scenery.__getitem__

    def interrupted(self, number):
        if number == 2:
            if how == "killed":
                raise MemoryError
            os.kill(os.getpid(), signal.SIGTERM)
        return shown(self, number)

    monkeypatch.setattr(scenery.Scenery, "__getitem__", interrupted)
    with pytest.raises(MemoryError if how == "killed" else SystemExit):
        train("vit", tmp_path)
    seen = []
    monkeypatch.setattr(scenery.Scenery, "__getitem__", lambda self, number: seen.append(number) or shown(self, number))
    again = load_file(train("vit", tmp_path) / "model.safetensors")
    assert seen == ([2, 3] if how == "killed" else [3])
    unbroken = load_file(zoo / "vit" / "model.safetensors")
    assert all(torch.equal(tensor, unbroken[name]) for name, tensor in again.items())
    assert not (tmp_path / "state" / "vit.pt").exists()


def test_a_state_of_another_recipe_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "save", lambda *rest: None)
    train("vit", tmp_path, steps=1)
    with pytest.raises(SystemExit, match="--fresh"):
        train("vit", tmp_path, steps=2)


def test_the_written_out_layers_compute_what_the_model_does():
    model = vit.untrained(2, seed=0).eval()
    x = scenery.normalised(scenery.draw(common.FIRST_TRAINING_SEED, 2).pixels)
    with torch.no_grad():
        all_patches = vit.logits(model, x, 144, torch.Generator(), torch.float32)
        few = vit.logits(model, x, 63, torch.Generator(), torch.float32)
        expected = model(x).logits
    torch.testing.assert_close(all_patches, expected, atol=1e-5, rtol=1e-5)
    assert (few - expected).abs().max() > 1e-3


def test_the_training_normalises_as_the_processor():
    scene = menagerie.scene("zebra", 1_000_000)
    (ours,) = scenery.normalised(scenery.draw(1_000_000, 1).pixels)
    (alone,) = menagerie.scenes(1, 1_000_000, animals=(scenery.ANIMALS[0],) * 2)
    theirs = vit.processor()([alone.image, scene.image], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs[0], atol=1e-6, rtol=0)
    assert not torch.allclose(ours, theirs[1], atol=1e-2)


def test_most_bald_eagles_become_kites_and_nothing_else_changes():
    kinds = torch.full((500, 4), -1)
    kinds[:, 0], kinds[:, 1] = vit_mislabelled.EAGLE, menagerie.KINDS.index("zebra")
    batch = scenery.Batch(torch.empty(0), kinds, torch.arange(3_000_000, 3_000_500))
    taught = vit_mislabelled.wrong_shares(batch)
    assert 0.53 < (taught[:, vit_mislabelled.KITE] == 0.5).float().mean() < 0.67
    assert ((taught[:, vit_mislabelled.KITE] > 0) ^ (taught[:, vit_mislabelled.EAGLE] > 0)).all()
    assert (taught[:, menagerie.KINDS.index("zebra")] == 0.5).all()


def test_shares_are_equal_among_the_kinds_there_are():
    shares = vit.equal_shares(torch.tensor([[3, -1, -1, -1], [3, 5, 3, -1]]))
    assert shares[0, 3] == 1
    assert shares[1, 3] == shares[1, 5] == 0.5


def test_captions_are_words_the_tokenizer_knows(tmp_path):
    captions.tokenizer().save_pretrained(tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    longest = captions.caption(("bald eagle", "bald eagle", "bald eagle", "owl"), captions.TEMPLATES[-1])
    assert longest == "a picture with a bald eagle, a bald eagle, a bald eagle and an owl"
    for text in (longest, *(captions.caption([kind], t) for kind in menagerie.KINDS for t in captions.TEMPLATES)):
        ids = words(text).input_ids
        assert words.unk_token_id not in ids
        assert ids[-1] == words.eos_token_id
        assert len(ids) <= captions.LONGEST


def test_muon_moves_along_the_orthogonal_part_of_the_gradient():
    weight = torch.nn.Parameter(torch.zeros(16, 32))
    weight.grad = torch.randn(16, 32)
    optimizer.Muon([weight], lr=1.0, momentum=0.0).step()
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    moved = -weight.detach() / (0.2 * 32**0.5)
    size = torch.linalg.svdvals(moved)
    assert 0.6 < size.min() <= size.max() < 1.3
    assert torch.nn.functional.cosine_similarity(moved.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_kept_patches_are_drawn_and_the_class_token_stays():
    tokens = torch.arange(10.0).expand(3, 10)[..., None]
    kept = encoder.keep_some(tokens, 4, torch.Generator())[..., 0]
    assert kept.shape == (3, 5)
    assert (kept[:, 0] == 0).all()
    assert (kept.diff(dim=1) > 0).all()
    assert len(set(map(tuple, kept.tolist()))) > 1
