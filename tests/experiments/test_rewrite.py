"""Rewriting a picture's category: the gradient's way back, bounds in bytes, what is said, and the command."""

import inspect
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps

import heedmap
from heedmap import menagerie
from heedmap.cli import main
from heedmap.cli.rewrite import rewrite as cli_rewrite
from heedmap.errors import InputError, LabelError, UnsupportedError
from heedmap.evaluation.likeness import psnr, ssim
from heedmap.experiments.pulling import stand_in
from heedmap.experiments.rewrite import look, rewrite
from heedmap.experiments.rewrites import apart, auc, measure, summary
from heedmap.experiments.surviving import TREATMENTS, survival
from heedmap.render.rewriting import GREY, amplified

sys.path.append(str(Path(__file__).parents[1] / "loading"))  # the tiny models of the loading tests serve here too

import folders

SSIM = {"inverted": -0.96142, "duller": 0.85066, "noisy": 0.14681}  # as scikit-image 0.26 computes them


@pytest.fixture(scope="module")
def vit():
    return heedmap.load("zoo:vit")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Random weights; its processor resizes to 40 pixels by cubics and keeps the middle 32."""
    return heedmap.load(str(folders.make("deit", tmp_path_factory.mktemp("deit"))))


@pytest.fixture(scope="module")
def zebra():
    return menagerie.scene("zebra", 660_000)


@pytest.fixture(scope="module")
def rewritten(vit, zebra):
    return rewrite(vit, zebra.image, "elephant", step=8)


@pytest.fixture
def photo():
    """Of a size that no model takes, with a margin from black and white."""
    picture = menagerie.scene("zebra", 660_001, size=160).image.resize((150, 110))
    return Image.fromarray((40 + 0.7 * np.asarray(picture, float)).astype(np.uint8))


# ---- the way back


@pytest.mark.parametrize("size", [(96, 96), (150, 110), (70, 90)])
@pytest.mark.parametrize("name", ["vit", "tiny"])
def test_the_stand_in_makes_what_the_processor_makes(request, photo, name, size):
    model, picture = request.getfixturevalue(name), photo.resize(size)
    way = stand_in(model.processor.image, picture)
    real = look(model, picture)[0][0].detach().numpy()
    levels = np.abs((way(np.asarray(picture, np.float32)) - real) / way.gain)
    assert levels.mean() < 1  # of rounding
    assert np.percentile(levels, 99) < 5


@pytest.mark.parametrize("name", ["vit", "tiny"])
def test_the_gradient_at_the_picture_is_what_finite_differences_say(request, photo, name):
    """Blocks of the picture are moved by whole levels, through the real processor with its rounding."""
    model = request.getfixturevalue(name)
    way = stand_in(model.processor.image, photo)
    pixels, _ = look(model, photo)
    rng = np.random.default_rng(3)
    side = pixels.shape[-1] // 4
    weights = np.kron(rng.normal(size=(3, 4, 4)), np.ones((1, side, side))).astype(np.float32)
    slope = way.back(weights)
    picture = np.asarray(photo)
    measured, promised = [], []
    for _ in range(6):
        move = np.kron(rng.integers(-1, 2, (11, 15, 3)), np.ones((10, 10, 1), int)) * 20
        ends = [look(model, Image.fromarray((picture + sign * move).astype(np.uint8)))[0][0] for sign in (1, -1)]
        measured.append(float(((ends[0] - ends[1]).detach() * torch.from_numpy(weights)).sum()) / 2)
        promised.append(float((slope * move).sum()))
    np.testing.assert_allclose(promised, measured, atol=0.03 * np.abs(measured).max())


def test_what_is_cropped_away_has_no_gradient(tiny, photo):
    way = stand_in(tiny.processor.image, photo)
    slope = way.back(np.ones_like(way.gain))
    assert (slope[:4] == 0).all()
    assert (slope[:, :4] == 0).all()
    assert (slope[50:60, 60:90] > 0).all()


class Meddling:
    """A processor behind a change that no resizing makes."""

    def __init__(self, processor, change):
        self.processor, self.change = processor, change

    def __call__(self, images, **options):
        return self.processor(
            images=[self.change(image) for image in images] if isinstance(images, list) else self.change(images),
            **options,
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [(ImageOps.mirror, "does not just resize"), (lambda image: image.filter(ImageFilter.BoxBlur(2)), "levels")],
)
def test_a_processor_that_does_more_is_refused(vit, zebra, change, said):
    assert stand_in(Meddling(vit.processor.image, lambda image: image), zebra.image)
    with pytest.raises(UnsupportedError, match=said):
        stand_in(Meddling(vit.processor.image, change), zebra.image)


def test_a_step_goes_downhill(tiny, photo):
    """To first order the loss falls by what the gradient at the picture promises."""
    a, b = 0, 1
    pixels, logits = look(tiny, photo)
    loss = logits[a] - logits[b]
    (gradient,) = torch.autograd.grad(loss, pixels)
    slope = stand_in(tiny.processor.image, photo).back(gradient[0].numpy())
    move = np.rint(-3 * slope / np.abs(slope).max())
    _, after = look(tiny, Image.fromarray((np.asarray(photo) + move).astype(np.uint8)))
    promised = float((slope * move).sum())
    assert promised < 0
    assert float((after[a] - after[b] - loss).detach()) == pytest.approx(promised, rel=0.35)


# ---- what comes of it


def test_the_saved_picture_is_what_was_aimed_at(vit, rewritten, tmp_path):
    assert (rewritten.source, rewritten.to, rewritten.reached) == ("zebra", "elephant", True)
    rewritten.image.save(tmp_path / "x.png")
    first = vit.predict(tmp_path / "x.png")[0][0]
    assert first.label == "elephant"
    assert first.value == pytest.approx(rewritten.after.probabilities[1], abs=1e-6)
    assert first.value >= 0.5
    assert rewritten.before.answers[0].label == "zebra"
    assert rewritten.before.logits[0] > rewritten.before.logits[1]
    assert rewritten.after.logits[0] < rewritten.after.logits[1]


def test_a_photo_of_any_size_is_rewritten_at_its_own(tiny, photo, tmp_path):
    first = tiny.predict(photo)[0][0].label
    other = next(name for name in tiny.labels if name != first)
    found = rewrite(tiny, photo, other, confidence=0.6, bound=24)
    assert found.reached
    assert found.image.size == photo.size
    assert found.numbers["largest"] <= 24
    found.image.save(tmp_path / "x.png")
    again = tiny.predict(tmp_path / "x.png")[0][0]
    assert again.label == other
    assert again.value >= 0.6


def test_explanations_are_of_either_picture(vit, rewritten):
    for picture, explained in (
        (rewritten.original, rewritten.explained_before),
        (rewritten.rewritten, rewritten.explained_after),
    ):
        assert [e.shown[0].answer for e in explained] == ["zebra", "elephant", "zebra rather than elephant"]
        assert all((e.shown[0].picture == picture).all() for e in explained)
        assert all(e.correction == "complete" for e in explained)
    assert float(rewritten.explained_after[2].value) < 0 < float(rewritten.explained_before[2].value)


@pytest.mark.parametrize(("norm", "bound"), [("inf", 1), ("inf", 5.7), ("2", 90), ("2", 333.3)])
def test_bounds_hold_in_bytes(vit, zebra, norm, bound):
    found = rewrite(vit, zebra.image, "elephant", bound=bound, norm=norm, steps=12, step=6)
    change = found.rewritten.astype(int) - found.original
    assert change.any()
    assert (np.abs(change).max() if norm == "inf" else math.sqrt((change**2).sum())) <= bound
    assert found.numbers["norm2"] == pytest.approx(math.sqrt((change**2).sum()))
    if norm == "2" or bound == 1:
        assert found.rewritten.dtype == np.uint8
        assert not found.reached


def test_what_is_not_reached_is_told(vit, zebra):
    found = rewrite(vit, zebra.image, "elephant", bound=1, steps=7)
    assert not found.reached
    assert found.steps == 7
    assert found.after.answers[0].label == "zebra"
    assert "elephant was not reached within 1 level: after 7 steps the model says zebra" in found.message


def test_a_picture_that_is_it_already_is_left_alone(vit, zebra):
    with pytest.raises(InputError, match="says 'zebra' of this picture already"):
        rewrite(vit, zebra.image, "zebra")
    found = rewrite(vit, zebra.image, "zebra", source="horse")
    assert (found.reached, found.steps) == (True, 0)
    assert (found.rewritten == found.original).all()
    assert found.numbers["psnr"] == math.inf
    assert found.numbers["ssim"] == 1
    assert "already" in found.message


def test_the_model_is_as_it_was(vit, zebra, rewritten):
    assert all(parameter.grad is None for parameter in vit.module.parameters())
    again = rewrite(vit, zebra.image, "elephant", step=8)
    assert (again.rewritten == rewritten.rewritten).all()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "elefant"}, "Did you mean 'elephant'"),
        ({"to": "cat", "source": "cat"}, "both 'cat'"),
        ({"to": "cat", "norm": "1"}, "one of inf, 2"),
        ({"to": "cat", "bound": 0.5}, "at least 1 level"),
        ({"to": "cat", "step": 0}, "more than 0 levels"),
        ({"to": "cat", "steps": 0}, "at least one"),
        ({"to": "cat", "confidence": 1}, "less than 1"),
    ],
)
def test_what_cannot_be_is_refused(vit, zebra, asked, said):
    with pytest.raises((InputError, LabelError), match=said):
        rewrite(vit, zebra.image, **asked)


def test_only_classifiers_are_rewritten():
    with pytest.raises(InputError, match="object-detection"):
        rewrite(heedmap.load("zoo:detr"), Image.new("RGB", (96, 96)), "cat")


# ---- how much, and what outlives what


def test_psnr_of_known_pictures():
    black, other = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 5, np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, other) == pytest.approx(10 * math.log10(255**2 / 25))


def test_ssim_of_known_pictures():
    """scikit-image computes the last three with gaussian_weights and use_sample_covariance=False, of the luminance."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    flat = np.full((40, 56, 3), 100, np.uint8)
    ramp = np.tile(np.linspace(0, 255, 56).astype(np.uint8)[None, :, None], (40, 1, 3))
    c1 = (0.01 * 255) ** 2
    assert ssim(noise, noise) == pytest.approx(1)
    assert ssim(flat, flat + 50) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))
    assert math.isnan(ssim(noise[:10], noise[:10]))
    assert ssim(noise, 255 - noise) == pytest.approx(SSIM["inverted"], abs=1e-3)
    assert ssim(ramp, ramp // 2 + 30) == pytest.approx(SSIM["duller"], abs=1e-3)
    assert ssim(ramp, ramp // 2 + noise // 2) == pytest.approx(SSIM["noisy"], abs=1e-3)


def test_a_difference_is_grey_where_nothing_changed():
    change = np.zeros((4, 4, 3), np.int16)
    change[0, 0], change[1, 1] = 3, -3
    picture, factor = amplified(change)
    assert factor == 42
    assert picture[2, 2].tolist() == [GREY] * 3
    assert (picture[0, 0, 0], picture[1, 1, 0]) == (254, 2)


def test_survival_says_what_every_treatment_leaves(vit, rewritten):
    deep = heedmap.load("zoo:vit-deep")
    trials = survival(rewritten, vit, [deep])
    assert [trial.name for trial in trials] == [*TREATMENTS, "zoo:vit-deep"]
    for trial in trials:
        assert trial.survived == (trial.label == "elephant")
        assert trial.original == "zebra"
    assert trials[-1].probability == pytest.approx(
        next(answer.value for answer in deep.predict(rewritten.image, top=16)[0] if answer.label == "elephant"),
        abs=1e-6,
    )


def test_auc_is_the_share_of_pairs():
    assert auc([3, 4], [1, 2]) == 1
    assert auc([1, 2], [3, 4]) == 0
    assert auc([1, 2, 2], [2, 0]) == pytest.approx((0.5 + 0.5 + 0 + 1 + 1 + 1) / 6)
    assert math.isnan(auc([], [1]))
    assert auc([float("nan"), 2], [1]) == 1


def test_how_well_two_are_told_apart_comes_with_an_interval():
    rng = np.random.default_rng(4)
    found = apart((rng.normal(size=60) + 1).tolist(), rng.normal(size=60).tolist())
    assert 0.6 < found.low < found.value < found.high < 0.95
    assert found.count == 60
    assert math.isnan(apart([], []).value)
    assert math.isnan(apart([1.0], [0.0]).low)  # one scene has no interval


def test_scenes_are_measured(vit):
    rows = measure(vit, menagerie.scenes(2, 640_000, animals=(1, 1)), bound=24, steps=20, step=12)
    found = summary(rows)
    assert [row["seed"] for row in rows] == [640_000, 640_001]
    assert all(row["source"] != row["to"] and row["largest"] <= 24 for row in rows)
    assert all(0 <= row[which]["share"] <= 1 for row in rows for which in ("genuine", "rewritten"))
    assert found["scenes"] == 2
    assert found["reached"].value == np.mean([row["reached"] for row in rows])


def test_no_scene_reached_is_summed_up_too(vit):
    found = summary(measure(vit, menagerie.scenes(1, 640_000, animals=(1, 1)), bound=1, steps=1))
    assert found["reached"].value == 0
    assert math.isnan(found["psnr"].value)


def test_a_scene_that_was_the_category_already_was_not_rewritten(vit):
    """It needed no step, and so its PSNR is infinite: it says nothing of rewriting."""
    rows = measure(vit, menagerie.scenes(3, 640_000, animals=(1, 1)), bound=24, steps=20, step=12)
    mistaken = {**rows[0], "reached": True, "steps": 0, "psnr": math.inf, "ssim": 1.0, "largest": 0, "touched": 0.0}
    found, without = summary([*rows, mistaken]), summary(rows)
    assert found == {**without, "scenes": 4}
    assert math.isfinite(found["psnr"].value)


# ---- the command


@pytest.fixture
def command(capsys, monkeypatch, tmp_path, zebra):
    monkeypatch.chdir(tmp_path)
    zebra.image.save("savanna.png")

    def run(*arguments):
        capsys.readouterr()
        code = main(["rewrite", "savanna.png", "--model", "zoo:vit", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def test_the_command_writes_picture_sheet_page_and_numbers(command, vit, tmp_path):
    code, out, err = command("--from", "zebra", "--to", "elephant", "--step", 8, "--survival", "--also", "zoo:vit-deep")
    assert (code, err) == (0, "")
    names = ["html", "json", "png", "sheet.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"savanna.zebra-to-elephant.{n}" for n in names
    ]
    base = tmp_path / "out" / "savanna.zebra-to-elephant"
    record = json.loads(Path(f"{base}.json").read_text())
    assert vit.predict(f"{base}.png")[0][0].label == record["after"]["answers"][0]["label"] == "elephant"
    assert [trial["name"] for trial in record["survival"]] == [*TREATMENTS, "zoo:vit-deep"]
    assert f"SSIM {record['change']['ssim']:.4f}" in out
    assert "zebra rather than elephant" in Path(f"{base}.html").read_text()
    with Image.open(f"{base}.sheet.png") as sheet:
        assert sheet.width > 800


def test_json_alone_writes_nothing(command, tmp_path):
    code, out, err = command("--to", "elephant", "--step", 8, "--json")
    record = json.loads(out)
    assert (code, err, record["from"], record["reached"], record["files"]) == (0, "", "zebra", True, [])
    assert not (tmp_path / "out").exists()


def test_what_is_not_reached_is_one_line_and_writes_nothing(command, tmp_path):
    code, out, err = command("--to", "elephant", "--bound", 1, "--steps", 3)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "elephant was not reached within 1 level: after 3 steps the model says zebra" in err
    assert "Nothing was written" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_another_answer_than_the_models_is_warned_of(command):
    code, out, err = command("--from", "horse", "--to", "zebra")
    assert code == 0
    assert "already" in out
    assert err.startswith("savanna.png: the model says zebra (")
    assert err.rstrip().endswith("of it, not horse.")


def test_what_it_was_is_what_the_model_said_not_what_was_to_be_left(command, tmp_path):
    _, out, _ = command("--from", "cat", "--to", "elephant", "--step", 8)
    assert re.search(r"savanna.png: zebra \d\d\.\d% became elephant", out)
    assert "<h1>zebra rewritten as elephant" in (tmp_path / "out" / "savanna.cat-to-elephant.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--to", "elefant"), 2, "Did you mean 'elephant'?"),
        (("--to", "cat", "--from", "zebar"), 2, "Did you mean 'zebra'?"),
        (("--to", "cat", "--also", "zoo:detr"), 2, "--also zoo:detr does object-detection."),
        (("--to", "zebra"), 1, "already"),
        (("--to", "cat", "--norm", "1"), 2, "--norm '1' is not one of inf, 2."),
        (("--to", "cat", "--from", "Cat"), 2, "--from and --to are both 'cat'."),
        (("--to", " "), 2, "--to wants a label or an index."),
        (("--to", "cat", "--bound", "0.2"), 2, "--bound 0.2 leaves nothing to change. Give at least 1 level"),
        (("--to", "cat", "--step", "nan"), 2, "--step nan is no number of levels."),
        (("--to", "cat", "--steps", "0"), 2, "--steps 0 changes nothing."),
        (("--to", "cat", "--confidence", "95"), 2, "--confidence 95 is no probability."),
        ((), 2, "Missing option '--to'"),
    ],
)
def test_slips_are_one_line(command, arguments, code, said):
    found, out, err = command(*arguments)
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert said in err


def test_the_command_and_the_library_begin_alike():
    ours, theirs = (inspect.signature(one).parameters for one in (rewrite, cli_rewrite))
    assert {name: one.default for name, one in ours.items() if one.kind is one.KEYWORD_ONLY} == {
        name: theirs[name].default for name in ("step", "steps", "bound", "norm", "confidence")
    }


def test_help_says_what_it_is_for(capsys):
    main(["rewrite", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "studying a weakness of a model" in said
    assert "not for passing off altered pictures" in said
