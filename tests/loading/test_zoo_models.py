"""The zoo, from a scene to what is shown."""

import pytest

import heedmap
from heedmap import menagerie
from heedmap.layouts import Grid, Regions, Words

SCENE = menagerie.scene(["zebra", "elephant"], seed=7)


def there(name):
    return heedmap.load(f"zoo:{name}")


@pytest.mark.parametrize("name", ["vit", "vit-deep", "vit-mislabelled"])
def test_classifiers(name):
    model = there(name)
    e = model.explain(SCENE.image, target="zebra", against="elephant")
    assert isinstance(e.shown[0].layouts["pixel_values"], Grid)
    assert e.shown[0].answer == "zebra rather than elephant"
    assert len(model.labels) == 16


def test_the_detector_finds_both_animals():
    model = there("detr")
    found = model.explain_detections(SCENE.image)
    assert sorted(e.shown[0].answer for e in found) == ["elephant", "zebra"]
    for e in found:
        animal = next(animal for animal in SCENE.animals if animal.kind == e.shown[0].answer)
        expected = [edge / SCENE.image.width for edge in animal.box]
        assert e.shown[0].box == pytest.approx(expected, abs=0.1)
        grid = e.shown[0].layouts["pixel_values"]
        assert grid.rows * grid.columns == e["pixel_values"].shape[1]
        assert grid.window == pytest.approx((0, 0, 1, 1))


def test_the_answerer_sees_the_regions_that_the_detector_finds():
    there("detr")
    model = there("lxmert")
    e = model.explain(SCENE.image, "is there a zebra?", against="no")
    assert e.predicted == ("yes",)
    words, regions = (e.shown[0].layouts[name] for name in ("input_ids", "visual_feats"))
    assert isinstance(words, Words)
    assert isinstance(regions, Regions)
    assert {"zebra", "elephant"} <= set(regions.names)
    assert [words.texts[token] for (token,) in words.words] == ["is", "there", "a", "zebra", "?"]


def test_captions():
    model = there("clip")
    texts = ["a zebra and an elephant", "a cat and a dog"]
    e = model.explain(SCENE.image, texts, against=texts[1])
    assert e.predicted == (texts[0],)
    assert e.streams == ("pixel_values", "input_ids", "input_ids (against)")
