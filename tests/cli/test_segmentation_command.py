"""`heedmap evaluate segmentation` as a person uses it."""

import json

import pytest

from heedmap.menagerie.export import export

COMMAND = ("evaluate", "segmentation", "--device", "cpu")


def test_drawn_scenes_are_measured_told_and_written(run, tmp_path):
    said = run(*COMMAND, "-m", "zoo:detr", "--scenes", 4, "--methods", "gae,heed", "--threshold-scale", "1,0.3")
    assert (said.code, said.err) == (0, "")
    assert "4 pictures" in said.out
    assert "Masks over 0.3 times Otsu's threshold" in said.out
    assert "same kind" in said.out
    assert "in the paper" not in said.out  # those numbers are of COCO
    record = json.loads((tmp_path / "out" / "segmentation.zoo-detr.json").read_text())
    assert [(one["method"], one["scale"]) for one in record["scores"]] == [
        ("gae", 1.0), ("heed", 1.0), ("gae", 0.3), ("heed", 0.3)
    ]  # fmt: skip
    assert (tmp_path / "out" / "segmentation.zoo-detr.png").stat().st_size > 10_000


def test_an_export_and_a_picture_that_is_broken(run, tmp_path):
    folder = export("detection", 3, 661_000, tmp_path / "world")
    first = sorted((folder / "images").iterdir())[0]
    first.write_bytes(b"")
    asked = ("-m", "zoo:detr", "--coco", folder, "--methods", "gae", "--official", "--json")
    said = run(*COMMAND, *asked, "--annotations", folder / "annotations" / "instances.json")
    assert said.code == 1
    assert first.name in said.line
    assert said.json["pictures"] == 2
    assert said.json["official"]
    assert said.json["files"] == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("-m", "zoo:dtr"), "Did you mean zoo:detr"),
        (("-m", "facebook/detr-resnet-50"), "--coco"),
        (("-m", "zoo:detr", "--methods", "gae,oddam"), "Did you mean 'odam'"),
        (("-m", "zoo:detr", "--threshold", "mean"), "not one of otsu"),
        (("-m", "zoo:detr", "--threshold-scale", "0.3;1"), "no number over 0"),
        (("-m", "zoo:detr", "--threshold-scale", "0"), "no number over 0"),
        (("-m", "zoo:detr", "--sure", "1"), "--sure 1 leaves no query"),
        (("-m", "zoo:detr", "--coco", "nowhere"), "There is no folder 'nowhere'"),
        (("-m", "zoo:detr", "--coco", ".", "--scenes", 3), "Name one of them"),
        (("-m", "zoo:detr", "--annotations", "a.json"), "--annotations belongs to --coco"),
        (("-m", "zoo:detr", "--coco", ".", "--annotations", "a.json"), "There is no file 'a.json'"),
    ],
)
def test_what_cannot_be_asked_is_told_before_a_model_is_loaded(run, asked, told, monkeypatch):
    monkeypatch.setattr("heedmap.cli.evaluate.segmentation.loaded", lambda *a: pytest.fail("the model was loaded"))
    said = run(*COMMAND, *asked)
    assert said.code == 2
    assert told in said.line


def test_folders_and_models_that_do_not_fit(run, tmp_path):
    said = run(*COMMAND, "-m", "zoo:vit", "--scenes", 2)
    assert said.code == 1
    assert "expected a detector" in said.line
    said = run(*COMMAND, "-m", "zoo:detr", "--coco", tmp_path)
    assert said.code == 1
    assert "No annotations were found" in said.line
