"""A guide beside the picture: where both lie, that nothing but cutting happens to the numbers, and when it warns."""

import warnings

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import heedmap
from heedmap import menagerie
from heedmap.errors import InputError
from heedmap.evaluation.localisation import spread
from heedmap.guidance import SIDES, GuideWarning, guide, guides, pair, stitch
from heedmap.layouts import Grid

RED, BLUE = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
PART = {  # rows and columns of a 12 x 12 grid that each side leaves to the picture
    "right": (slice(0, 12), slice(0, 6)),
    "left": (slice(0, 12), slice(6, 12)),
    "below": (slice(0, 6), slice(0, 12)),
    "above": (slice(6, 12), slice(0, 12)),
}


@pytest.fixture(scope="module")
def vit():
    return heedmap.load("zoo:vit")


@pytest.fixture(scope="module")
def snail():
    return menagerie.scene("snail", 21).image


def folder_of(path, processor, side, patch):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=side,
        patch_size=patch, initializer_range=0.3, id2label={i: f"kind {i}" for i in range(12)},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(path)
    processor.save_pretrained(path)
    return heedmap.load(str(path))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [None, (96, 96), (97, 95)])
def test_the_picture_is_where_the_window_says_and_the_guide_elsewhere(side, size):
    made = stitch(RED, BLUE, side, size)
    pixels = np.asarray(made.image)
    if size is None:
        assert made.image.size == ((80, 30) if side in ("left", "right") else (40, 60))
    else:
        assert made.image.size == size
    left, top, right, bottom = (
        round(share * whole) for share, whole in zip(made.window, made.image.size * 2, strict=True)
    )
    inside = np.zeros(pixels.shape[:2], bool)
    inside[top:bottom, left:right] = True
    assert (pixels[inside] == (255, 0, 0)).all()
    assert (pixels[~inside] == (0, 0, 255)).all()
    assert abs(inside.mean() - 0.5) < 0.02


def test_an_unknown_side_is_refused():
    with pytest.raises(InputError, match=r"side is 'under'. heedmap expected one of right, left, below, above"):
        stitch(RED, BLUE, "under")


def test_what_is_said_of_the_picture_is_what_is_said_of_its_part_of_the_pair(vit, snail):
    for side, (rows, columns) in PART.items():
        (made,) = pair(vit, [snail], guide("menagerie:zebra"), side)
        whole = vit.explain(made.image, target="snail")
        cut = vit.explain(snail, target="snail", guide="menagerie:zebra", side=side)
        grid = whole["pixel_values"][0, 1:].reshape(12, 12)
        torch.testing.assert_close(cut["pixel_values"][0, 1:], grid[rows, columns].flatten(), rtol=0, atol=0)
        torch.testing.assert_close(cut["pixel_values"][0, 0], whole["pixel_values"][0, 0], rtol=0, atol=0)
        assert cut.value == whole.value
        (shown,) = cut.shown
        assert shown.layouts["pixel_values"].window == (0.0, 0.0, 1.0, 1.0)
        assert (shown.picture == np.asarray(snail)).all()


def test_the_guide_moves_relevance_onto_the_animal(vit):
    """The reason it is there. Measured, with intervals, by `heedmap reproduce`."""
    from heedmap.evaluation import localisation

    gained = []
    for scene in menagerie.scenes(12, 610_000, animals=(1, 1), kinds=("snail", "dog", "turtle", "owl")):
        (animal,) = scene.animals
        alone = vit.explain(scene.image, target=animal.kind)
        led = vit.explain(scene.image, target=animal.kind, guide="menagerie:zebra")
        before, after = (localisation.balance(localisation.spread(e), animal.mask) for e in (alone, led))
        gained.append(after - before)
    assert np.mean(gained) > 0.2


def test_without_a_target_the_prediction_of_the_picture_alone_is_explained(vit, snail):
    found = vit.explain(snail, guide="menagerie:zebra")
    assert found.predicted == ("snail",)
    assert found.shown[0].answer == "snail, guided by zebra"
    assert found.metadata["guide seen as"].startswith("zebra, 0.")


def test_pictures_together_are_as_alone(vit, snail):
    dog = menagerie.scene("dog", 3).image
    both = vit.explain([snail, dog], guide="menagerie:zebra")
    for i, one in enumerate((snail, dog)):
        alone = vit.explain(one, guide="menagerie:zebra")
        torch.testing.assert_close(both["pixel_values"][i], alone["pixel_values"][0], rtol=1e-4, atol=1e-5)
        assert both.predicted[i] == alone.predicted[0]


def test_an_answer_against_another_is_guided_too(vit, snail):
    found = vit.explain(snail, target="snail", against="slug", guide="menagerie:zebra")
    assert found.shown[0].answer == "snail rather than slug, guided by zebra"


def test_a_guide_of_the_explained_class_is_warned_of(vit, snail):
    with pytest.warns(GuideWarning, match="shows snail, the class that is explained"):
        vit.explain(snail, guide="menagerie:snail")


def test_a_guide_that_the_model_does_not_see_is_warned_of(vit, snail):
    with pytest.warns(GuideWarning, match=r"is hardly seen beside the picture: \d+\.\d%, number \d+"):
        vit.explain(snail, target="snail", guide=Image.new("RGB", (96, 96), "white"))


def test_a_column_that_the_seam_halves_goes_with_neither(tmp_path):
    model = folder_of(tmp_path, transformers.ViTImageProcessor(size={"height": 40, "width": 40}), 40, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuideWarning)
        grid = model.explain(RED, target="kind 3", guide=BLUE).shown[0].layouts["pixel_values"]
    assert isinstance(grid, Grid)
    assert (grid.rows, grid.columns) == (5, 2)
    assert grid.window == pytest.approx((0, 0, 0.8, 1))


def test_a_processor_that_crops_leaves_the_part_that_the_model_sees(tmp_path):
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model = folder_of(tmp_path, processor, 32, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuideWarning)
        grid = model.explain(RED, target="kind 3", guide=BLUE).shown[0].layouts["pixel_values"]
    # Of the pair's 40 columns the middle 32 are seen, so of the picture's 20 those from the 4th on.
    assert (grid.rows, grid.columns) == (4, 2)
    assert grid.window == pytest.approx((0.2, 0.1, 1.0, 0.9), abs=0.03)


def test_how_likely_a_guide_is_follows_how_the_model_was_trained(tmp_path):
    """Classes that do not exclude one another have a probability each, as `predict` tells it."""
    model = folder_of(tmp_path, transformers.ViTImageProcessor(size={"height": 32, "width": 32}), 32, 8)
    model.config.problem_type = "multi_label_classification"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuideWarning)
        found = model.explain(RED, target="kind 3", guide=BLUE)
    label = model.predict(BLUE)[0][0].label
    (made,) = pair(model, [RED], BLUE)
    told = {answer.label: answer.value for answer in model.predict(made.image, top=12)[0]}
    assert found.metadata["guide seen as"].startswith(f"{label}, {told[label]:.3f}, number ")


def test_what_was_guided_is_kept_and_drawn(vit, snail, tmp_path):
    found = vit.explain(snail, target="snail", guide="menagerie:zebra")
    for suffix in ("heed", "png", "html"):
        found.save(tmp_path / f"x.{suffix}")
    again = heedmap.open(tmp_path / "x.heed")
    assert torch.equal(again["pixel_values"], found["pixel_values"])
    assert again.shown[0].layouts == found.shown[0].layouts
    assert again.metadata == found.metadata


def test_guides_that_come_with_heedmap_are_the_drawn_kinds():
    assert guides()[0] == "menagerie:zebra"
    assert len(guides()) == 16
    assert guide("menagerie:owl").size == (96, 96)
    with pytest.raises(InputError, match=r"'zebre' is not one of the menagerie's 16 kinds\. Did you mean 'zebra'"):
        guide("menagerie:zebre")
    with pytest.raises(InputError, match=r"There is no picture 'nowhere.png'"):
        guide("nowhere.png")


def test_a_guide_wants_a_classifier():
    lxmert = heedmap.load("zoo:lxmert")
    with pytest.raises(InputError, match=r"does visual-question-answering. A guide steers models that classify"):
        lxmert.explain(menagerie.scene("dog", 3).image, "is there a dog?", guide="menagerie:zebra")


def test_captions_can_be_guided():
    clip = heedmap.load("zoo:clip")
    found = clip.explain(
        menagerie.scene("dog", 3).image, ["a dog", "a cat"], target="a dog", guide="menagerie:zebra", side="below"
    )
    assert found.shown[0].layouts["pixel_values"].rows == 6


def test_without_a_caption_the_one_that_fits_the_picture_alone_is_explained():
    """Beside the guide, the guide's own caption may fit better: nobody asked for that."""
    clip = heedmap.load("zoo:clip")
    captions = ["a zebra", "a dog", "a snail"]
    animals = [menagerie.scene(kind, 5).image for kind in ("dog", "snail")]
    for side in SIDES:
        found = clip.explain(animals, captions, guide="menagerie:zebra", side=side)
        asked = clip.explain(animals, captions, target=["a dog", "a snail"], guide="menagerie:zebra", side=side)
        assert found.predicted == ("a dog", "a snail")
        assert [example.answer for example in found.shown] == ["a dog", "a snail"]
        torch.testing.assert_close(found["pixel_values"], asked["pixel_values"])


def test_the_command_guides_warns_and_refuses(tmp_path, monkeypatch, capsys, snail):
    from heedmap.cli import main

    monkeypatch.chdir(tmp_path)
    snail.save("snail.png")
    command = ["explain", "snail.png", "-m", "zoo:vit", "-T", "snail", "-q"]
    assert main([*command, "--guide", "menagerie:zebra", "--side", "below"]) == 0
    said = capsys.readouterr()
    assert "snail, guided by zebra" in said.out
    assert said.err == ""
    assert (tmp_path / "out" / "snail.snail-guided-by-zebra.png").exists()
    assert main([*command, "--guide", "snail.png"]) == 0
    assert "The guide shows snail, the class that is explained" in capsys.readouterr().err
    assert main(["compare", "snail.png", "-m", "zoo:vit", "--guide", "menagerie:zebra"]) == 0
    assert "snail, guided by zebra" in capsys.readouterr().out
    for wrong, line in (
        (["--guide", "nowhere.png"], "--guide: There is no picture 'nowhere.png'. Check the path."),
        (
            ["--guide", "menagerie:zebre"],
            "--guide: 'zebre' is not one of the menagerie's 16 kinds. Did you mean 'zebra'?",
        ),
        (
            ["--guide", "snail.png", "--side", "lft"],
            "--side 'lft' is not one of right, left, below, above. Did you mean left?",
        ),
        (["--side", "left"], "--side says where a guide stands. Give --guide too."),
    ):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.strip() == line


@pytest.mark.parametrize(("side", "there"), [("right", np.s_[:, :, :48]), ("above", np.s_[:, 48:])])
def test_pixels_are_cut_with_the_patches(vit, snail, side, there):
    alone = vit.explain(snail, target="snail", guide="menagerie:zebra", side=side, method="inputxgradient")
    (both,) = pair(vit, [snail], guide("menagerie:zebra"), side)
    whole = vit.explain(both.image, target="snail", method="inputxgradient")
    assert torch.equal(alone.pixels, whole.pixels[there])
    assert spread(alone).sum() == pytest.approx(float(alone.pixels.sum()), rel=1e-4)
