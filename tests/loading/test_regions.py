"""Regions of a picture: from arrays, .npz files, and the TSV files of bottom-up attention."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import KINDS
from PIL import Image

import heedmap
from heedmap.errors import InputError
from heedmap.layouts import Joined

DRAW = np.random.default_rng(4)
PICTURE = DRAW.integers(0, 256, (50, 100, 3), dtype=np.uint8)
SHARES = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.4, 0.9]], np.float32)
PIXELS = SHARES * np.array([100, 50, 100, 50], np.float32)
FEATURES = DRAW.standard_normal((3, 12)).astype(np.float32)
QUESTION = "is there a zebra?"


@pytest.fixture(scope="module", params=["lxmert", "visual-bert"])
def model(request, folder):
    return heedmap.load(folder(request.param))


def boxes(model, found, **more):
    shown = model.explain(PICTURE, QUESTION, target="cat", regions=found, **more).shown[0]
    layouts = list(shown.layouts.values())
    part = layouts[0].parts[1][2] if isinstance(layouts[0], Joined) else shown.layouts["visual_feats"]
    return np.array(part.boxes), part


def line(image, *, lxmert=False, boxes=PIXELS, size=(100, 50)):
    packed = [base64.b64encode(rows.astype(np.float32).tobytes()).decode() for rows in (boxes, FEATURES)]
    middle = [str(len(boxes)), *packed]
    width, height = map(str, size)
    return "\t".join([image, height, width, "o", "c", "a", "c", *middle] if lxmert else [image, width, height, *middle])


@pytest.mark.parametrize(
    "found",
    [
        {"boxes": SHARES, "features": FEATURES},
        {"boxes": PIXELS, "features": FEATURES},
        {"bbox": torch.tensor(PIXELS), "x": torch.tensor(FEATURES)},
        {"boxes": PIXELS * 2, "features": FEATURES, "image_w": 200, "image_h": 100},
    ],
    ids=["shares", "pixels", "tensors", "other size"],
)
def test_arrays(model, found):
    np.testing.assert_allclose(boxes(model, found)[0], SHARES, atol=1e-6)


def test_names(model):
    found = {"boxes": SHARES, "features": FEATURES, "names": np.array(["a", "b", "c"])}
    assert boxes(model, found)[1].names == ("a", "b", "c")
    assert boxes(model, {"boxes": SHARES, "features": FEATURES})[1].names == ("", "", "")


def test_npz(model, tmp_path):
    np.savez(tmp_path / "r.npz", bbox=PIXELS, x=FEATURES, image_w=100, image_h=50, num_bbox=3)
    np.testing.assert_allclose(boxes(model, tmp_path / "r.npz")[0], SHARES, atol=1e-6)
    np.testing.assert_allclose(boxes(model, str(tmp_path / "r.npz"))[0], SHARES, atol=1e-6)


@pytest.mark.parametrize("lxmert", [False, True])
def test_tsv(model, tmp_path, lxmert):
    rows = [line("7", boxes=PIXELS[::-1], lxmert=lxmert), line("42", lxmert=lxmert), line("x_9", lxmert=lxmert)]
    (tmp_path / "r.tsv").write_text("\n".join(rows) + "\n")
    Image.fromarray(PICTURE).save(tmp_path / "COCO_val2014_000000000042.png")
    path = tmp_path / "COCO_val2014_000000000042.png"
    e = model.explain(path, QUESTION, target="cat", regions=tmp_path / "r.tsv")
    same = model.explain(path, QUESTION, target="cat", regions={"boxes": SHARES, "features": FEATURES})
    for stream in e.streams:
        torch.testing.assert_close(e[stream], same[stream], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"has 3 rows, and none with the id None"):
        model.explain(PICTURE, QUESTION, regions=tmp_path / "r.tsv")
    (tmp_path / "one.tsv").write_text(rows[1])
    np.testing.assert_allclose(boxes(model, tmp_path / "one.tsv")[0], SHARES, atol=1e-6)


def test_a_batch_is_padded(model):
    few = {"boxes": SHARES[:2], "features": FEATURES[:2]}
    many = {"boxes": SHARES, "features": FEATURES}
    both = model.explain([PICTURE, PICTURE], QUESTION, target="cat", regions=[few, many])
    alone = model.explain(PICTURE, QUESTION, target="cat", regions=few)
    for stream in alone.streams:
        tokens = alone[stream].shape[1]
        torch.testing.assert_close(both[stream][:1, :tokens], alone[stream], rtol=1e-4, atol=1e-5)
    layout = list(both.shown[0].layouts.values())[-1]
    assert list(layout.special.values())[-1] == "[PAD]"
    assert layout.special.keys() - list(both.shown[1].layouts.values())[-1].special.keys()


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (None, r"reads regions of a picture, not its pixels. Give regions=: a mapping"),
        ({"boxes": SHARES}, r"The regions hold boxes. heedmap expected 'boxes' and 'features'"),
        ({"boxes": SHARES, "features": FEATURES[:2]}, r"boxes \(3, 4\) and features \(2, 12\)"),
        ({"boxes": SHARES[:0], "features": FEATURES[:0]}, "n at least 1"),
        ({"boxes": SHARES, "features": FEATURES[:, :5]}, "features of a region are 5 numbers; this model reads 12"),
        ({"boxes": SHARES, "features": FEATURES * np.nan}, "not finite"),
        ("nothing.npz", r"There is no file of regions 'nothing.npz'"),
        (3, "regions is a int. heedmap expected a mapping"),
        ([{"boxes": SHARES, "features": FEATURES}] * 2, "Regions of 2 pictures were given for 1 pictures"),
    ],
)
def test_what_is_refused(model, found, match):
    with pytest.raises(InputError, match=match):
        model.explain(PICTURE, QUESTION, regions=found)


def test_bad_files(model, tmp_path):
    bad = {
        "x.npz": (b"no zip", "cannot be read as plain arrays"),
        "x.tsv": (b"a\tb\tc\n", "a row of 3 columns"),
        "y.tsv": (b"1\t100\t50\t3\tAAAA\tBBB\n", "a damaged row for '1'"),
        "x.csv": (b"1,2", "heedmap reads regions from .npz and .tsv files"),
    }
    for name, (content, match) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=match):
            model.explain(PICTURE, QUESTION, regions=tmp_path / name)
    np.savez(tmp_path / "pickled.npz", boxes=np.array([{}, {}], dtype=object), features=FEATURES)
    with pytest.raises(InputError, match=r"cannot be read|expected 'boxes'"):
        model.explain(PICTURE, QUESTION, regions=tmp_path / "pickled.npz")


def test_shares_that_are_over_one_by_rounding_are_no_pixels():
    from PIL import Image

    from heedmap.families import regions

    boxes = np.array([[0.5, 0.25, 1 + 1e-6, 1.0]], np.float32)
    (given,) = regions.read({"boxes": boxes, "features": FEATURES[:1]}, [Image.fromarray(PICTURE)], [None], "x")
    assert given.boxes.tolist() == [[0.5, 0.25, 1.0, 1.0]]


def test_the_zoo_s_lxmert_has_its_regions_found(folder, monkeypatch):
    from heedmap.families import regions
    from heedmap.zoo import describing

    monkeypatch.setattr(describing, "path", lambda name: Path(folder(name)))
    describing.detector.cache_clear()
    try:
        found = regions.read(None, [Image.fromarray(PICTURE)], [None], "zoo:lxmert")[0]
        seen = describing.describe([Image.fromarray(PICTURE)])[0]
    finally:
        describing.detector.cache_clear()
    np.testing.assert_allclose(found.boxes, seen.boxes)
    np.testing.assert_allclose(found.features, seen.features)
    assert set(found.names) <= set(KINDS)
    assert len(found.names) == len(found.boxes) > 0


def test_questions(model):
    found = {"boxes": SHARES, "features": FEATURES}
    with pytest.raises(InputError, match=r"it needs a question\. Give text="):
        model.explain(PICTURE, regions=found)
    several = model.explain(PICTURE, ["is there a zebra?", "a cat?"], target="cat", regions=found)
    assert [shown.text for shown in several.shown] == ["is there a zebra?", "a cat?"]
    with pytest.raises(InputError, match="2 pictures and 3 texts were given"):
        model.explain([PICTURE] * 2, ["a", "b", "c"], regions=[found] * 2)
