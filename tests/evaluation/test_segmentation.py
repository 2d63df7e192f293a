"""Weakly supervised segmentation: what COCOeval is given, what it makes of it, and the zoo's detector end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as runs

import heedmap
from heedmap import logit
from heedmap.errors import InputError
from heedmap.evaluation import detections
from heedmap.evaluation.coco import Annotated, Collection, company, decoded, drawn, numbers, outlined, read
from heedmap.evaluation.coco_scores import IOUS, NUMBERS, averages, scores
from heedmap.evaluation.coco_scores import _evaluated as evaluated
from heedmap.evaluation.coco_scores import _tallies as tallies
from heedmap.evaluation.cutouts import CELL, Cutter
from heedmap.evaluation.detections import classes
from heedmap.evaluation.localisation import share, spread
from heedmap.evaluation.masks import cells, mask
from heedmap.evaluation.segmentation import PAPER, check, segmentation, segmentations
from heedmap.evaluation.specimens import sheet
from heedmap.families.answering import Found
from heedmap.menagerie import KINDS, scenes
from heedmap.menagerie.export import export

SEED = 660_000
SIDE = 40
KIND = {1: "blob"}


@pytest.fixture(scope="module")
def detr():
    return heedmap.load("zoo:detr", device="cpu")


@pytest.fixture(scope="module")
def world():
    return drawn(company(6, SEED))


@pytest.fixture(scope="module")
def measured(detr, world):
    return segmentation(detr, world, ("gae", "heed"), (1.0, 0.3), batch=4)


# ---- what COCOeval makes of masks


def square(left, top, width, height):
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[top : top + height, left : left + width] = True
    return pixels


def encoded(pixels):
    return runs.encode(np.asfortranarray(pixels, np.uint8))


def picture(number, *masks, crowd=()):
    objects = [
        {
            "image_id": number,
            "category_id": 1,
            "area": float(one.sum()),
            "bbox": [0, 0, 1, 1],
            "segmentation": encoded(one),
            "iscrowd": int(i in crowd),
        }
        for i, one in enumerate(masks)
    ]
    return Annotated(number, Image.new("RGB", (SIDE, SIDE)), f"picture {number}", (SIDE, SIDE), tuple(objects))


def find(number, pixels, sure=0.9):
    return {"image_id": number, "category_id": 1, "score": sure, "segmentation": encoded(pixels)}


def test_a_perfect_mask_scores_one_and_ranges_without_objects_say_nothing():
    whole = square(4, 4, 34, 34)  # 1156 pixels: medium
    made = scores([picture(1, whole), picture(2, whole)], KIND, [find(1, whole), find(2, whole)])
    assert made.values["AP"] == made.values["AR"] == made.values["AP_m"] == pytest.approx(1)
    assert np.isnan(made.values["AP_l"])
    assert (made.number("AP").low, made.number("AP").high) == (pytest.approx(1), pytest.approx(1))


def test_overlaps_begin_at_a_fifth():
    whole, part = square(0, 0, 10, 10), square(0, 0, 10, 3) | square(0, 3, 1, 1)
    made = scores([picture(1, whole)], KIND, [find(1, part)])
    assert [made.values[name] for name in ("AP", "AR")] == pytest.approx([3 / 16] * 2)  # 0.31: 0.2, 0.25 and 0.3
    assert len(IOUS) == 16
    assert IOUS[0] == 0.2


def test_a_crowd_is_no_object_and_who_finds_it_is_not_wrong():
    crowd, own = square(20, 20, 20, 20), square(0, 0, 8, 8)
    with_crowd = [picture(1, own, crowd, crowd=(1,))]
    finds = [find(1, own, 0.6), find(1, square(22, 22, 9, 9), 0.9)]
    assert scores(with_crowd, KIND, finds).values["AP"] == pytest.approx(1)
    assert scores([picture(1, own)], KIND, finds).values["AP"] == pytest.approx(0.5)


def chance(count=12):
    """Pictures with finds that are shifted, of the wrong kind, twice, or missing."""
    rng = np.random.default_rng(3)
    kinds = {1: "a", 2: "b"}
    pictures, finds = [], []
    for number in range(1, count + 1):
        masks = [square(*rng.integers(0, 20, 2), *rng.integers(4, 20, 2)) for _ in range(rng.integers(1, 4))]
        one = picture(number, *masks, crowd=(2,))
        one = replace(one, objects=tuple({**each, "category_id": int(rng.integers(1, 3))} for each in one.objects))
        pictures.append(one)
        for each, pixels in zip(one.objects, masks, strict=True):
            for _ in range(rng.integers(0, 3)):
                made = find(number, np.roll(pixels, rng.integers(-4, 5), 1), float(rng.integers(1, 9)) / 10)
                finds.append(
                    {**made, "category_id": int(rng.integers(1, 3)) if rng.random() < 0.3 else each["category_id"]}
                )
    return pictures, kinds, finds


def judged(pictures, kinds, finds):
    from heedmap.evaluation.coco import indexed

    def sized(one):
        return {**one, "area": float(runs.area(one["segmentation"])), "bbox": [0, 0, 0, 0], "iscrowd": 0}

    truth = [one for each in pictures for one in each.objects]
    return evaluated(indexed(pictures, kinds, truth), indexed(pictures, kinds, [sized(one) for one in finds]))


def test_averages_taken_again_are_those_of_coco_where_a_picture_counts_twice():
    pictures, kinds, finds = chance()
    evaluator = judged(pictures, kinds, finds)
    expected = [evaluator.stats[place] for place in NUMBERS.values()]
    expected = [float("nan") if value < 0 else value for value in expected]
    times = np.ones(len(pictures), int)
    assert averages(tallies(evaluator), times) == pytest.approx(expected, nan_ok=True)
    again = [
        replace(one, id=one.id + 100, objects=tuple({**o, "image_id": one.id + 100} for o in one.objects))
        for one in pictures[:3]
    ]
    twice = [{**one, "image_id": one["image_id"] + 100} for one in finds if one["image_id"] <= 3]
    whole = judged([*pictures, *again], kinds, [*finds, *twice])
    times[:3] = 2
    expected = [float("nan") if whole.stats[place] < 0 else whole.stats[place] for place in NUMBERS.values()]
    assert averages(tallies(evaluator), times) == pytest.approx(expected, abs=0.01, nan_ok=True)  # but for equal scores


def test_intervals_hold_the_value_and_what_is_the_same_does_not_differ():
    pictures, kinds, finds = chance(30)
    made, half = scores(pictures, kinds, finds), scores(pictures, kinds, finds[::2])
    for name in ("AP", "AR"):
        told = made.number(name)
        assert told.low < told.value < told.high
    gap = made.less(made, "AP")
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    assert made.less(half, "AR").low > 0  # half of the finds recall less, whichever the pictures


# ---- what the detector finds, and what is said of it


def test_every_sure_query_is_explained_as_if_it_were_alone(detr, world):
    images = [one.picture for one in world.pictures[:3]]
    known = classes(detr, world)
    found = detections.seen(detr, images, ["heed:positive"], 0.5, known)
    inputs, _ = detr.inputs(images)
    with torch.no_grad():
        sure = detr.module(**inputs).logits.softmax(-1)[..., :-1].max(-1)
    for i, each in enumerate(found):
        expected = (sure.values[i] > 0.5).nonzero().flatten().tolist()
        assert sorted(one.query for one in each.sure) == expected
        assert len(each.sure) + len(each.unsure) == sure.values.shape[1]
        for one, said in zip(each.sure, each.said["heed:positive"], strict=True):
            assert one.index == sure.indices[i, one.query]
            alone = detr.explain(images[i], target=logit(one.index, query=one.query), correction="positive")
            torch.testing.assert_close(said["pixel_values"], alone["pixel_values"], rtol=1e-4, atol=1e-6)
    assert len({len(each.sure) for each in found}) > 1  # else nobody had to wait for the others


def test_a_class_that_is_nobodys_object_is_left_out(detr, world):
    one = world.pictures[0].picture
    known = classes(detr, world)
    (whole,) = detections.seen(detr, [one], [], 0.5, known)
    gone = whole.sure[0].index
    (less,) = detections.seen(detr, [one], [], 0.5, {index: kind for index, kind in known.items() if index != gone})
    assert [each.query for each in less.sure] == [each.query for each in whole.sure if each.index != gone]


def test_each_object_is_found_once_and_by_its_own_kind():
    size, known = (100, 200), {5: 1, 6: 2}
    given = [
        {"category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 0},
        {"category_id": 2, "bbox": [100, 50, 100, 50], "iscrowd": 0},
        {"category_id": 1, "bbox": [100, 0, 100, 50], "iscrowd": 1},
    ]
    finds = [
        Found(0, 5, 0.9, (0.0, 0.0, 0.5, 0.4)),  # 0.8 of the first
        Found(1, 5, 0.8, (0.0, 0.0, 0.5, 0.5)),  # all of it, but it is taken
        Found(2, 5, 0.8, (0.5, 0.5, 1.0, 1.0)),  # where another kind is
        Found(3, 5, 0.7, (0.5, 0.0, 1.0, 0.5)),  # a crowd
        Found(4, 6, 0.6, (0.5, 0.5, 0.7, 1.0)),  # too little of the second
        Found(5, 6, 0.6, (0.5, 0.5, 0.9, 1.0)),
    ]
    assert detections.objects(finds, given, size, known) == {0: 0, 5: 1}


def test_shares_are_of_the_first_place_that_has_a_pixel_and_of_what_speaks_for(detr, world):
    said = detections.seen(detr, [world.pictures[0].picture], ["heed"], 0.5, classes(detr, world))[0].said["heed"][0]
    flowed = torch.zeros_like(said["pixel_values"])
    flowed[0, [0, 5, 6, 143]] = torch.tensor([3.0, 2.0, -9.0, 5.0])  # cells of 8 x 8 pixels, 12 in a row
    said = replace(said, relevance={**said.relevance, "pixel_values": flowed})
    own, kind = np.zeros((96, 96), bool), np.zeros((96, 96), bool)
    own[:8, :8] = True
    kind[:8, :48] = True  # cell 0 too, which is the object's own
    everything = own | kind
    everything[88:, 92:] = True
    assert detections.shares(said, (own, kind, everything)) == pytest.approx([0.3, 0.2, 0.25, 0.25])


# ---- the protocol


def cutter(detr, world, official=False):
    return Cutter(world, ("gae",), (0.3,), official, classes(detr, world))


def test_what_coco_is_given(detr, world):
    one = world.pictures[0]
    known = classes(detr, world)
    (seen,) = detections.seen(detr, [one.picture], ["gae"], 0.5, known)
    clean = cutter(detr, world).cut(one, one.picture, seen, False)
    given = clean.detections[0.3, "gae"]
    assert [each["score"] for each in given] == [find.value for find in seen.sure]
    assert [world.categories[each["category_id"]] for each in given] == [detr.labels[find.index] for find in seen.sure]
    values, grid = cells(seen.said["gae"][0])
    assert np.array_equal(decoded(given[0]["segmentation"]), mask(values, 96, 96, 0.3, window=grid.window))
    assert clean.unit == pytest.approx(CELL**2 / 64)  # a cell of the zoo's detector is 8 x 8 pixels
    official = cutter(detr, world, official=True).cut(one, one.picture, seen, False).detections[0.3, "gae"]
    assert len(official) == 16  # every query, those that are not sure with nothing in their mask
    assert runs.area([each["segmentation"] for each in official[len(given) :]]).sum() == 0
    assert all(
        runs.area(large["segmentation"]) > runs.area(small["segmentation"])
        for large, small in zip(official, given, strict=False)
    )


def test_both_ways_at_once_are_each_by_itself(detr, world):
    both = segmentations(detr, world, ["gae"], [0.3], (False, True), batch=6)
    alone = [segmentation(detr, world, ["gae"], [0.3], official=official, batch=6) for official in (False, True)]
    assert [one.record() for one in both] == [one.record() for one in alone]
    assert both[0].sizes[0.3]["gae"].value < both[1].sizes[0.3]["gae"].value


def test_neighbours_are_what_the_masks_say(detr, world, measured):
    known = classes(detr, world)
    rows = []
    for one in world.pictures:
        (seen,) = detections.seen(detr, [one.picture], ["gae"], 0.5, known)
        masks, own = outlined(one, world.categories), []
        for i, place in detections.objects(seen.sure, one.objects, one.size, known).items():
            kind = [o["category_id"] for o in one.objects]
            others = [masks[k] for k in range(len(kind)) if kind[k] == kind[place] and k != place]
            if others:
                values = spread(seen.said["gae"][i])
                own.append([share(values, masks[place]), share(values, np.any(others, 0))])
        rows.append(np.mean(own, 0) if own else [np.nan, np.nan])
    found = measured.neighbours["gae"].shares
    np.testing.assert_allclose(found[:, :2], np.array(rows), rtol=1e-3, atol=1e-6)
    told = found[~np.isnan(found).any(1)]
    np.testing.assert_allclose(told.sum(1), 1)
    assert len(told) >= 3  # every second scene has two of a kind
    assert measured.companions >= len(told)


def test_the_record_is_plain_and_without_numbers_of_other_data(measured):
    record = json.loads(json.dumps(measured.record(), allow_nan=False))
    assert {(one["method"], one["scale"]) for one in record["scores"]} == {
        (name, scale) for name in ("gae", "heed") for scale in (1.0, 0.3)
    }
    assert record["overlaps"][0] == 0.2
    assert not record["coco"]
    assert all("paper" not in one for one in record["scores"])
    assert all(-0.001 <= one["AP"]["value"] <= 1 for one in record["scores"])
    beside = replace(measured, coco=True)
    assert beside.paper("gae", 1.0) == PAPER[1.0]["gae"] == beside.paper("gae:official", 1.0)
    assert beside.paper("heed", 1.0) is beside.paper("gae", 0.7) is None
    assert sheet(measured.specimens).width > 300


def test_an_export_gives_the_numbers_of_its_scenes(detr, tmp_path):
    folder = export("detection", 4, SEED, tmp_path / "world")
    drawn_here = drawn(scenes(4, SEED, (1, 4)))
    from_files = read(folder)
    assert [one.objects[0]["bbox"] for one in from_files.pictures] == [
        one.objects[0]["bbox"] for one in drawn_here.pictures
    ]
    told = [segmentation(detr, each, ("gae",), batch=4).record() for each in (from_files, drawn_here)]
    assert told[0] == told[1]


def test_what_cannot_be_read_is_told_and_its_objects_are_no_misses(detr, tmp_path):
    folder = export("detection", 3, SEED, tmp_path / "world")
    names = sorted(each.name for each in (folder / "images").iterdir())
    (folder / "images" / names[0]).write_bytes(b"no picture")
    Image.new("RGB", (50, 40)).save(folder / "images" / names[1])
    made = segmentation(detr, read(folder), ("gae",), (0.3,))
    alone = segmentation(detr, drawn(scenes(1, SEED + 2, (1, 4))), ("gae",), (0.3,))
    assert (made.pictures, list(made.skipped)) == (1, names[:2])
    assert "50 x 40, its annotations are of 96 x 96" in made.skipped[names[1]]
    assert made.scored[0.3]["gae"].values == pytest.approx(alone.scored[0.3]["gae"].values, nan_ok=True)
    (folder / "images" / names[2]).unlink()
    with pytest.raises(InputError, match="None of 3 pictures was measured"):
        segmentation(detr, read(folder), ("gae",))


def test_pictures_of_any_size_on_a_model_that_resizes_them(folder):
    model = heedmap.load(folder("detr"), device="cpu")
    assert model.labels
    pictures = []
    for number, (height, width) in enumerate([(60, 90), (60, 90), (75, 50)], start=1):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        whole = {"image_id": number, "category_id": 1, "area": height * width, "bbox": [0, 0, width, height]}
        outline = {"segmentation": [[0, 0, width, 0, width, height, 0, height]], "iscrowd": 0}
        pictures.append(Annotated(number, Image.fromarray(pixels), "", (height, width), ({**whole, **outline},)))
    categories = dict(enumerate(model.labels, start=1))
    for official in (False, True):
        made = segmentation(
            model, Collection(tuple(pictures), categories), ("gae", "odam"), official=official, sure=0.0
        )
        assert (made.pictures, made.finds) == (3, 15)


def test_which_class_is_which_category():
    some = Collection((), {3: "Bald Eagle", 9: "unheard of"})
    assert numbers(("N/A", "bald_eagle", "dog"), 3, some) == {1: 3}
    coco = Collection((), {1: "person", 17: "cat", 90: "toothbrush", **{100 + i: str(i) for i in range(77)}})
    assert coco.real
    assert numbers((), 91, coco)[17] == 17
    for labels, count, collection in [((), 91, some), ((), 80, coco), (("dog",), 1, some)]:
        with pytest.raises(InputError, match="is a class of this model"):
            numbers(labels, count, collection)


def test_every_second_scene_has_two_of_a_kind():
    drawn_here = company(8, SEED)
    assert [one.seed for one in drawn_here] == list(range(SEED, SEED + 8))
    for one in drawn_here[1::2]:
        kinds = [animal.kind for animal in one.animals]
        assert 2 <= len(kinds) <= 4
        assert len(set(kinds)) < len(kinds)
        assert set(kinds) <= set(KINDS)


# ---- what is wrong


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"methods": ["oddam"], "scales": [1.0]}, "Did you mean 'odam'"),
        ({"methods": [], "scales": [1.0]}, "at least one"),
        ({"methods": ["gae"], "scales": [0.0]}, "over 0"),
        ({"methods": ["gae"], "scales": [1.0], "sure": 1.0}, "under 1"),
        ({"methods": ["gae"], "scales": [1.0], "batch": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_asked(asked, told):
    with pytest.raises(InputError, match=told):
        check(**asked)


def test_a_model_that_finds_nothing_is_refused(world):
    with pytest.raises(InputError, match="heedmap expected a detector"):
        segmentation(heedmap.load("zoo:vit", device="cpu"), world)


IMAGE = {"id": 1, "file_name": "a.png", "height": 2, "width": 2}
CATEGORY = {"id": 1, "name": "a"}
SAID = {"image_id": 1, "caption": "a"}
DRAWN = {"image_id": 1, "category_id": 7, "segmentation": [], "area": 1, "bbox": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("[", "cannot be read as JSON"),
        ([], "has no list of images"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "number 0 of its images has no file_name"),
        ({"images": [IMAGE], "annotations": [SAID], "categories": [CATEGORY]}, "has no category_id"),
        ({"images": [IMAGE], "annotations": [DRAWN], "categories": [CATEGORY]}, "is of category 7"),
        ({"images": [IMAGE], "annotations": [], "categories": [CATEGORY]}, "None of the 1 pictures"),
    ],
)
def test_files_that_are_no_instances(tmp_path, record, told):
    file = tmp_path / "file.json"
    file.write_text(record if isinstance(record, str) else json.dumps(record))
    with pytest.raises(InputError, match=told):
        read(tmp_path, file)
    with pytest.raises(InputError, match="No annotations were found"):
        read(tmp_path)
