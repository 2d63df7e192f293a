"""Perturbation, on a model of which it is known what it needs, on the zoo, and as a person uses it."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import heedmap
from heedmap import menagerie
from heedmap.cli import main, talk
from heedmap.cli.evaluate import perturbation as cli_perturbation
from heedmap.dropping import kept
from heedmap.errors import InputError
from heedmap.evaluation.folders import Labelled, scenes
from heedmap.evaluation.masking import check_drop, counts, fill, hidden, left, places, upsampled
from heedmap.evaluation.perturbation import RULE, STEPS, Curve, area, perturbation
from heedmap.layouts import Grid, Shown

SIDE, PATCH = 4, 2  # patches in a row, pixels in a patch
NEEDED = (3, 6, 12)  # patches of which the model needs every one
HIDDEN = [0, 1, 3, 4, 6, 8, 9, 11, 12, 14]  # of 16 patches at each tenth


class Needs(torch.nn.Module):
    """Says class 1 while each of some patches is still bright, else class 0."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, pixel_values):
        self.seen.append(pixel_values)
        patches = torch.nn.functional.avg_pool2d(pixel_values.mean(1, keepdim=True), PATCH).flatten(1)
        least = patches[:, list(NEEDED)].min(1).values
        return SimpleNamespace(logits=torch.stack([torch.full_like(least, 0.5), least], 1))


class Handmade:
    """As much of a model as perturbation asks for; `maps` are what its methods say, method by method."""

    task, source, labels = "image-classification", "handmade", ("dark", "bright")
    config = SimpleNamespace(patch_size=PATCH)
    processor = SimpleNamespace(
        image=SimpleNamespace(do_normalize=True, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.25, 0.1])
    )

    def __init__(self, **maps):
        self.module, self.maps, self.asked = Needs(), maps, []

    def _shown(self, count):
        return (Shown({"pixel_values": Grid(SIDE, SIDE, 1, special={0: "[CLS]"})}),) * count

    def inputs(self, images):
        pixels = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) / 255.0 for one in images])
        look = self.processor.image
        mean, std = (torch.tensor(one)[:, None, None] for one in (look.image_mean, look.image_std))
        return {"pixel_values": (pixels - mean) / std}, self._shown(len(images))

    def explain(self, images, target, method):
        self.asked.append(target)
        flowed = torch.tensor([99.0, *self.maps[method.replace(":", "_")]]).repeat(
            len(images), 1
        )  # CLS is never ranked

        class Explained(dict):
            shown, relevance = self._shown(len(images)), {"pixel_values": flowed}

        return Explained(pixel_values=flowed)


def white(count=3):
    image = Image.new("RGB", (SIDE * PATCH,) * 2, "white")
    return [Labelled(image, 1, "bright", f"picture {i}") for i in range(count)]


def needed(for_them=1.0, others=0.0):
    return [for_them if i in NEEDED else others for i in range(SIDE * SIDE)]


def values(curve):
    return [each.value for each in curve.accuracy]


# ---- known curves


def test_a_perfect_and_an_inverted_map_give_the_curves_that_they_must():
    model = Handmade(heed=needed(), heed_positive=needed(-1.0))
    result = perturbation(model, white(), ["heed", "heed:positive"])
    # The first patch that goes is needed, and from then on the answer is wrong.
    at_once = [1.0, *[0.0] * 9]
    # 13 patches are not: all of 12 at 0.8, and 14 at 0.9 take one that is.
    late = [*[1.0] * 9, 0.0]
    assert values(result.curve("heed", "positive")) == at_once
    assert values(result.curve("heed", "negative")) == late
    assert values(result.curve("heed:positive", "positive")) == late
    assert values(result.curve("heed:positive", "negative")) == at_once
    assert result.curve("heed", "positive").auc.value == pytest.approx(5.0)  # a triangle, 0.1 wide
    assert result.curve("heed", "negative").auc.value == pytest.approx(85.0)  # 0.8 in full, and a triangle
    assert result.difference("heed", "heed:positive", "positive").value == pytest.approx(-80.0)
    assert result.pictures == 3


def test_a_random_ranking_gives_the_curve_that_its_seed_says():
    result = perturbation(Handmade(), white(5), ["random"], ["positive", "negative"], seed=11)
    for order, sign in (("positive", -1), ("negative", 1)):
        expected = []
        for i in range(5):
            chance = np.random.default_rng([11, i]).random(16)
            first = min(np.argsort(sign * chance).tolist().index(patch) for patch in NEEDED)
            expected.append([count <= first for count in HIDDEN])
        assert result.curve("random", order).hits.tolist() == expected
    again = perturbation(Handmade(), white(5), ["random"], seed=11, batch=2)
    assert (again.curve("random", "positive").hits == result.curve("random", "positive").hits).all()
    other = perturbation(Handmade(), white(5), ["random"], seed=12)
    assert (other.curve("random", "positive").hits != result.curve("random", "positive").hits).any()


def test_the_label_decides_whether_an_answer_is_right_and_target_what_is_explained():
    model = Handmade(heed=needed())
    dark = [Labelled(one.picture, 0, "dark", one.name) for one in white(2)]
    assert values(perturbation(model, dark, ["heed"], ["positive"]).curves[0]) == [0.0, *[1.0] * 9]
    assert model.asked[0].index == (0, 0)
    perturbation(model, dark, ["heed"], ["positive"], target="predicted")
    assert model.asked[1] is None


def test_a_method_explains_once_and_each_batch_is_asked_once_per_step():
    model = Handmade(heed=needed())
    perturbation(model, white(5), ["heed", "random"], batch=2)
    assert len(model.asked) == 3  # batches
    assert len(model.module.seen) == 3 * (1 + 2 * 2 * 9)  # clean, then methods x orders x steps


def test_unscored_tokens_come_last_in_either_order():
    half = [float("nan")] * 8 + list(range(8))
    chance = np.random.default_rng(0).random((1, 16))
    for order, expected in (("positive", range(15, 7, -1)), ("negative", range(8, 16))):
        ranked = np.argsort(places(np.array([half]), chance, order)[0]).tolist()
        assert ranked[:8] == list(expected)
        assert sorted(ranked[8:], key=lambda i: chance[0, i]) == ranked[8:]


def test_ties_fall_by_chance_and_only_ties():
    scores, chance = np.array([[1.0, 2.0, 1.0, 2.0, 1.0]]), np.array([[0.9, 0.5, 0.1, 0.2, 0.4]])
    assert np.argsort(places(scores, chance, "positive")[0]).tolist() == [3, 1, 2, 4, 0]
    assert np.argsort(places(scores, chance, "negative")[0]).tolist() == [2, 4, 0, 3, 1]


# ---- what is hidden


@pytest.mark.parametrize(("mask", "colour"), [("mean", [0, 0, 0]), ("zero", [-1.0, -1.6, -3.0])])
def test_hidden_patches_have_the_masks_colour_and_the_others_their_own(mask, colour):
    model = Handmade(heed=[float(i) for i in range(16)])
    perturbation(model, white(1), ["heed"], ["positive"], mask=mask)
    for pixels, count in zip(model.module.seen, HIDDEN, strict=True):
        gone = range(16 - count, 16)  # the highest scores
        for y in range(SIDE * PATCH):
            for x in range(SIDE * PATCH):
                patch = y // PATCH * SIDE + x // PATCH
                own = [(1 - m) / s for m, s in zip([0.5, 0.4, 0.3], [0.5, 0.25, 0.1], strict=True)]
                assert pixels[0, :, y, x].tolist() == pytest.approx(colour if patch in gone else own, rel=1e-6)


def test_what_a_processor_does_not_do_is_not_assumed():
    plain = SimpleNamespace(do_normalize=False)
    assert fill(plain, "zero").flatten().tolist() == [0.0]
    with pytest.raises(InputError, match=r"has no mean colour\. Take mask='zero'"):
        fill(plain, "mean")


def test_of_pixels_as_many_are_hidden_as_the_published_protocol_hides():
    published = [0, 5017, 10035, 15052, 20070, 25088, 30105, 35123, 40140, 45158]
    assert counts(224 * 224, STEPS) == published
    assert counts(16, STEPS) == HIDDEN
    assert counts(10, STEPS) == list(range(10))


def test_pixels_are_ranked_by_the_map_made_bilinear_and_turn_black():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=16)
    model = Handmade(heed=scores.tolist())
    perturbation(model, white(1), ["heed"], ["positive", "negative"], unit="pixel")
    size = SIDE * PATCH
    slow = np.zeros((size, size))  # pixel centres between patch centres, edges held
    for y in range(size):
        for x in range(size):
            down, across = (min(max((p + 0.5) / PATCH - 0.5, 0), SIDE - 1) for p in (y, x))
            i, j = int(down), int(across)
            k, m = min(i + 1, SIDE - 1), min(j + 1, SIDE - 1)
            a, b = down - i, across - j
            cell = scores.reshape(SIDE, SIDE)
            slow[y, x] = (1 - a) * ((1 - b) * cell[i, j] + b * cell[i, m]) + a * ((1 - b) * cell[k, j] + b * cell[k, m])
    assert upsampled(scores.reshape(1, SIDE, SIDE), size, size)[0] == pytest.approx(slow, abs=1e-6)
    black = torch.tensor([-1.0, -1.6, -3.0])
    seen = model.module.seen[1:]
    for run, sign in enumerate((-1, 1)):
        ranked = np.argsort(sign * slow.ravel())
        for step in range(1, 10):
            is_black = torch.isclose(seen[run * 9 + step - 1][0], black[:, None, None]).all(0).flatten()
            assert sorted(is_black.nonzero().flatten().tolist()) == sorted(ranked[: int(size * size * step / 10)])


@pytest.fixture(scope="module")
def vit():
    return heedmap.load("zoo:vit")


def test_a_dropped_token_is_a_shorter_sequence(vit):
    inputs, _ = vit.inputs([scene.image for scene in menagerie.scenes(2, 650_010, animals=(1, 1))])
    pixels = inputs["pixel_values"]
    where = torch.zeros(2, 12, 12, dtype=torch.bool)
    where[0, :, :5], where[1, :5, :] = True, True
    with torch.no_grad():
        with kept(vit.module, left(Grid(12, 12, 1), 145, where)):
            got = vit.module(pixel_values=pixels).logits
        model = vit.module
        for i in range(2):
            states = model.vit.embeddings(pixels[i : i + 1])
            stay = [0, *(1 + p for p in range(144) if not where[i].flatten()[p])]
            states = states[:, stay]
            assert states.shape[1] == 85
            for layer in model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer:
                states = layer(states)
                states = states[0] if isinstance(states, tuple) else states
            by_hand = model.classifier(model.vit.layernorm(states)[:, 0])
            assert torch.allclose(got[i], by_hand[0], atol=1e-5)
        assert not torch.allclose(got, model(pixel_values=pixels).logits, atol=1e-2)  # and the hook is gone
    assert not model.vit.embeddings._forward_hooks


def test_drop_is_refused_where_a_token_is_known_by_more_than_its_embedding(vit):
    pixels, grid = vit.inputs(menagerie.scene("cat", 5).image)[0]["pixel_values"], Grid(12, 12, 1)
    check_drop(vit.module, pixels, grid, 145)
    layers = vit.module.vit.layers if hasattr(vit.module.vit, "layers") else vit.module.vit.encoder.layer

    def placed(_, given):  # not the same in all channels, or it would be normalised away
        ramp = torch.linspace(0, 1, given[0].shape[1])[None, :, None]
        return (given[0] + ramp * (torch.arange(given[0].shape[2]) % 2), *given[1:])

    hook = layers[0].register_forward_pre_hook(placed)
    try:
        with pytest.raises(
            InputError, match="ViTForImageClassification: its answer changes when they are merely moved"
        ):
            check_drop(vit.module, pixels, grid, 145)
    finally:
        hook.remove()
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    told = hf.BeitConfig(**small, image_size=32, patch_size=8, use_relative_position_bias=True)
    beit = hf.BeitForImageClassification(told).eval()
    for parameter in beit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # loud enough for places to matter
    with pytest.raises(InputError, match=r"No token can be dropped from BeitForImageClassification.*Take mask='mean'"):
        check_drop(beit, torch.rand(1, 3, 32, 32), Grid(4, 4, 1), 17)
    with pytest.raises(InputError, match="no embeddings in the place"):
        check_drop(Needs(), pixels, grid, 145)


def test_hiding_is_in_the_models_own_pixels():
    pixels = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    where = torch.tensor([[[True, False, False], [False, False, True]], [[False] * 3, [False] * 3]])
    got = hidden(pixels, where, torch.tensor([-1.0, -2.0, -3.0])[:, None, None])
    assert (got[1] == pixels[1]).all()
    assert (got[0, :, :2, :2] == torch.tensor([-1.0, -2.0, -3.0])[:, None, None]).all()
    assert (got[0, :, 2:, 4:] == torch.tensor([-1.0, -2.0, -3.0])[:, None, None]).all()
    assert (got[0, :, :2, 2:] == pixels[0, :, :2, 2:]).all()


# ---- the area


def test_the_area_is_the_trapezoid_by_hand_and_of_each_picture():
    hits = np.random.default_rng(0).random((20, 10)) < 0.5
    curve = Curve("heed", "positive", STEPS, hits)
    by_hand = 100 * sum(0.1 * (a + b) / 2 for a, b in zip(hits.mean(0), hits.mean(0)[1:], strict=False))
    assert curve.auc.value == pytest.approx(by_hand)
    assert area((0, 0.5, 1.0), np.array([1.0, 0.0, 0.5])) == pytest.approx(100 * (0.25 + 0.125))
    assert curve.auc.low < curve.auc.value < curve.auc.high
    assert "not" not in RULE
    assert "times 100" in RULE


# ---- the zoo, with a guide


def test_the_pair_is_what_is_hidden_and_the_label_is_the_pictures_own(vit):
    pictures = [
        *scenes(8, vit.labels, 650_000),
        *(one for one in scenes(60, vit.labels, 650_000) if one.label == "zebra"),
    ]
    result = perturbation(vit, pictures, ["heed", "gae", "heed:positive"], guide="menagerie:zebra", steps=(0, 0.1))
    zebras = sum(one.label == "zebra" for one in pictures)
    assert (result.guide, result.left_out, result.pictures) == ("zebra", zebras, len(pictures) - zebras)
    assert zebras > 0
    # GAE has no sign: with one kind of token it is the positive correction.
    for order in ("positive", "negative"):
        assert (result.curve("gae", order).hits == result.curve("heed:positive", order).hits).all()
    from heedmap.guidance import guide, pair

    image = pair(vit, [next(one.picture for one in pictures if one.label != "zebra")], guide("menagerie:zebra"))[
        0
    ].image
    with torch.no_grad():
        answer = vit.module(**vit.inputs(image)[0]).logits.argmax().item()
    first = next(one for one in pictures if one.label != "zebra")
    assert result.curves[0].hits[0, 0] == (answer == first.index)


def test_the_batch_makes_no_difference(vit):
    pictures = scenes(5, vit.labels, 650_000)
    one, many = (perturbation(vit, pictures, ["heed"], steps=(0, 0.5, 0.9), batch=batch) for batch in (1, 5))
    assert all((a.hits == b.hits).all() for a, b in zip(one.curves, many.curves, strict=True))


def test_what_cannot_be_read_is_told_and_left_out(vit, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    good = scenes(2, vit.labels, 650_000)
    done = []
    mixed = [good[0], Labelled(bad, 0, vit.labels[0], "bad.png"), good[1]]
    result = perturbation(vit, mixed, ["random"], ["positive"], steps=(0, 0.5), progress=done.append)
    assert result.pictures == 2
    assert list(result.skipped) == ["bad.png"]
    assert "not a picture" in result.skipped["bad.png"]
    assert sum(done) == 3
    # A picture's chance is its own, whatever else was read.
    alone = perturbation(vit, [good[0]], ["random"], ["positive"], steps=(0, 0.5))
    assert (alone.curves[0].hits[0] == result.curves[0].hits[0]).all()
    with pytest.raises(InputError, match="None of 1 pictures was measured: 1 could not be read"):
        perturbation(vit, [mixed[1]], ["random"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["gradcamera"]}, "No method is called 'gradcamera'"),
        ({"methods": []}, "at least one"),
        ({"methods": ["heed", "heed"]}, "each once"),
        ({"orders": ["up"]}, "order is 'up'. heedmap expected one of positive, negative"),
        ({"mask": "blur"}, "mask is 'blur'"),
        ({"unit": "word"}, "unit is 'word'"),
        ({"unit": "pixel", "mask": "drop"}, "A pixel cannot be dropped"),
        ({"target": "other"}, "target is 'other'"),
        ({"steps": (0.1, 0.5)}, "rise from 0 to at most 1"),
        ({"batch": 0}, "batch is 0"),
        ({"guide": "menagerie:zebra", "side": "behind"}, "side is 'behind'"),
        ({"guide": "menagerie:zebra", "guide_label": "oryx"}, "'oryx' is none of the model's 16"),
        ({"guide": "menagerie:zebra", "guide_label": "zebar"}, "Did you mean 'zebra'?"),
        (
            {"guide": "menagerie:zebra", "guide_label": scenes(1, menagerie.KINDS, 650_000)[0].label},
            "1 is of the guide's own",
        ),
        ({"guide": "menagerie:oryx"}, "'oryx' is not one of the menagerie's"),
    ],
)
def test_what_cannot_be_measured_is_refused(vit, given, said):
    with pytest.raises(InputError, match=said):
        perturbation(vit, scenes(1, vit.labels, 650_000), **given)


def test_a_model_that_does_not_classify_is_refused():
    with pytest.raises(
        InputError, match=r"'zoo:detr' does object-detection\. heedmap expected a model that classifies"
    ):
        perturbation(heedmap.load("zoo:detr"), [])


# ---- as a person uses it


@pytest.fixture
def evaluate(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEEDMAP_MODEL", raising=False)

    def command(*arguments):
        capsys.readouterr()
        code = main(["evaluate", "perturbation", *map(str, arguments)])
        return code, *capsys.readouterr()

    return command


def test_scenes_beside_a_guide(evaluate, tmp_path):
    code, out, err = evaluate("-m", "zoo:vit", "--scenes", 4, "--guide", "menagerie:zebra", "--order", "negative")
    assert (code, err) == (0, "")
    assert "4 pictures, zebra on the right. Explained" in out  # none were left out
    assert RULE in out
    assert "heed - gae" in out
    record = json.loads((tmp_path / "out" / "perturbation.zoo-vit.json").read_text())
    assert [(one["method"], one["order"]) for one in record["curves"]] == [("heed", "negative"), ("gae", "negative")]
    assert (record["unit"], record["mask"], record["steps"][-1]) == ("token", "mean", 0.9)
    with Image.open(tmp_path / "out" / "perturbation.zoo-vit.png") as image:
        assert image.size == (640, 340)


def test_of_one_picture_there_is_a_curve_and_no_interval(evaluate, tmp_path):
    code, out, _ = evaluate("-m", "zoo:vit", "--scenes", 1, "--order", "negative")
    assert code == 0
    assert "(of one picture alone), picture by picture" in out
    assert "nan" not in out
    record = json.loads((tmp_path / "out" / "perturbation.zoo-vit.json").read_text())
    assert record["differences"][0]["auc"] == {"value": pytest.approx(5.0), "low": None, "high": None}


def test_a_narrow_terminal_has_the_areas_whole(evaluate, monkeypatch):
    from rich.console import Console

    for module in (cli_perturbation, talk):
        monkeypatch.setattr(module, "console", lambda: Console(width=60, highlight=False))
    _, out, _ = evaluate("-m", "zoo:vit", "--scenes", 3, "--methods", "heed:positive,random")
    rows = [line for line in out.splitlines() if line.startswith(("positive  ", "negative  "))]
    assert len(rows) == 4
    assert all(re.search(r"(heed:positive|random) +\d+\.\d  \d+\.\d to \d+\.\d", row) for row in rows)


def test_a_folder_with_a_bad_picture(evaluate, tmp_path):
    for seed in (1, 2):
        place = tmp_path / "animals" / "dog" / f"{seed}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        menagerie.scene("dog", seed).image.save(place)
    (tmp_path / "animals" / "dog" / "3.png").write_bytes(b"?")
    code, out, err = evaluate("-m", "zoo:vit", "--images", "animals", "--methods", "random", "--json", "--mask", "drop")
    assert code == 1
    assert "dog/3.png" in err
    assert len(err.splitlines()) == 1
    record = json.loads(out)
    assert record["pictures"] == 2
    assert list(record["skipped"]) == ["dog/3.png"]
    assert record["files"] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-m", "./a-model"], "./a-model"),
        (["-m", "zoo:vit", "--images", "nowhere"], "There is no folder 'nowhere'"),
        (["-m", "zoo:vit", "--images", ".", "--scenes", "3"], "--images and --scenes"),
        (["-m", "zoo:vit", "--limit", "3"], "--limit belongs to --images"),
        (["-m", "zoo:vit", "--images", ".", "--truth", "list.txt"], "There is no file 'list.txt'. --truth"),
        (["-m", "zoo:vit", "--order", "positve"], "Did you mean positive?"),
        (["-m", "zoo:vit", "--methods", "head"], "No method is called 'head'"),
        (["-m", "zoo:vit", "--methods", ","], "--methods is empty"),
        (["-m", "zoo:vit", "--unit", "pixel", "--mask", "drop"], "--mask drop leaves tokens out"),
        (["-m", "zoo:vit", "--guide", "menagerie:oryx"], "--guide: 'oryx'"),
        (["-m", "zoo:vit", "--guide", "none.png"], "There is no picture 'none.png'"),
        (["-m", "zoo:vit", "--guide-label", "zebra"], "Give --guide too"),
        (["-m", "zoo:vit", "--side", "rigth"], "Did you mean right?"),
        (["-m", "zoo:vit", "--side", "left"], "--side says where a guide stands. Give --guide too."),
        (["-m", "zoo:vit", "--methods", "hed"], "Did you mean 'heed'? Beside them there is random."),
        (["-m", "zoo:vit", "--methods", "heed,gea"], "Did you mean 'gae'? Beside them there is random."),
    ],
)
def test_mistakes_are_told_in_a_line_before_anything_is_done(evaluate, tmp_path, given, said):
    code, out, err = evaluate(*given)
    assert code == 2
    assert said in err
    assert (len(err.splitlines()), out) == (1, "")
    assert not list(tmp_path.iterdir())


def test_a_model_that_matches_captions_has_no_labels_to_measure(evaluate):
    code, _, err = evaluate("-m", "zoo:clip", "--scenes", 1)
    assert code == 1
    assert "'zoo:clip' does zero-shot-image-classification. heedmap expected a model that classifies" in err


def test_folders_that_fit_no_label_are_told(evaluate, tmp_path):
    (tmp_path / "pictures" / "oryx").mkdir(parents=True)
    (tmp_path / "pictures" / "oryx" / "a.png").write_bytes(b"")
    code, _, err = evaluate("-m", "zoo:vit", "--images", "pictures")
    assert code == 1
    assert "'oryx' is no folder of a class of this model; 0 of 1 are" in err
