"""Labelled pictures on disk, laid out as people and ImageNet lay them out."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from heedmap import menagerie
from heedmap.errors import InputError
from heedmap.evaluation.folders import labelled, scenes
from heedmap.menagerie.export import export

LABELS = ("tench, Tinca tinca", "great white shark, white shark", "crane", "crane", "zebra")
WNIDS = ("n01440764", "n01484850", "n02012849", "n03126707", "n02391049")


@pytest.fixture
def tree(tmp_path):
    """Makes empty pictures: what lies where is all that is read."""

    def make(*paths, inside="pictures"):
        for path in paths:
            place = tmp_path / inside / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
        return tmp_path / inside

    return make


def told(pictures):
    return [(one.name, one.index) for one in pictures]


def test_folders_go_by_label_by_a_name_in_it_or_by_index(tree):
    folder = tree("zebra/a.png", "White_Shark/b.JPEG", "0/images/c.jpg", "zebra/notes.txt", ".git/x.png", "empty/x.txt")
    found = labelled(folder, LABELS)
    assert told(found) == [("0/images/c.jpg", 0), ("White_Shark/b.JPEG", 1), ("zebra/a.png", 4)]
    assert [one.label for one in found] == [LABELS[0], LABELS[1], "zebra"]
    assert found[2].picture == folder / "zebra" / "a.png"


def test_models_without_labels_go_by_index(tree):
    assert told(labelled(tree("7/a.png"), ())) == [("7/a.png", 7)]


@pytest.mark.parametrize("kind", ["synsets", "keras", "json"])
def test_imagenets_names_go_through_a_label_map(tree, tmp_path, kind):
    folder = tree(*(f"{wnid}/x.JPEG" for wnid in WNIDS))
    if kind == "synsets":  # LOC_synset_mapping.txt
        path = tmp_path / "map.txt"
        path.write_text("".join(f"{wnid} {label}\n" for wnid, label in zip(WNIDS, LABELS, strict=True)))
    elif kind == "keras":  # imagenet_class_index.json
        path = tmp_path / "map.json"
        path.write_text(json.dumps({str(i): [wnid, "any_name"] for i, wnid in enumerate(WNIDS)}))
    else:
        path = tmp_path / "map.json"
        path.write_text(json.dumps(dict(zip(WNIDS, ["tench", "white shark", 2, "3", "Zebra"], strict=True))))
    # Two classes are called crane: their place in a map of all classes, or an index, tells which.
    assert dict(told(labelled(folder, LABELS, path))) == {f"{wnid}/x.JPEG": i for i, wnid in enumerate(WNIDS)}


def test_a_map_of_imagenets_own_name_is_found_beside_the_folder(tree, tmp_path):
    folder = tree("n02391049/x.JPEG")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n02391049 zebra\n")
    assert told(labelled(folder, LABELS)) == [("n02391049/x.JPEG", 4)]


def test_unknown_folders_are_refused_with_how_many_match(tree):
    with pytest.raises(InputError, match=r"'oryx' is no folder of a class of this model; 1 of 2 are\. The model's 5"):
        labelled(tree("zebra/a.png", "oryx/a.png"), LABELS)
    with pytest.raises(InputError, match="'crane' is no folder"):  # two classes have this name
        labelled(tree("crane/a.png", inside="cranes"), LABELS)
    with pytest.raises(InputError, match=r"and 1 more are no folders.*0 of 4 are\. Give a label map"):
        labelled(tree(*(f"{wnid}/x.png" for wnid in WNIDS[:4]), inside="wnids"), LABELS)


def val(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


def test_the_solution_of_imagenets_localisation_task(tree, tmp_path):
    folder = tree(*map(val, (1, 2)))
    (folder / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000002,n02391049 85 1 499 272 3 4 5 6\nILSVRC2012_val_00000001,n01440764 1 2 3 4 \n"
    )
    (tmp_path / "map.txt").write_text("n01440764\ttench\nn02391049\tzebra\n")
    assert told(labelled(folder, LABELS, tmp_path / "map.txt")) == [(val(1), 0), (val(2), 4)]
    with pytest.raises(InputError, match=r"'n01440764', 'n02391049' of LOC_val_solution.csv are no classes"):
        labelled(folder, LABELS)


def test_a_list_of_names_and_indices(tree):
    folder = tree("a.png", "b.png")
    (folder / "val.txt").write_text("b.png 4\na.png 0\nelsewhere.png 1\n")
    assert told(labelled(folder, LABELS)) == [("a.png", 0), ("b.png", 4)]
    (folder / "val.txt").write_text("b.png 4\n")
    with pytest.raises(InputError, match=r"val.txt does not name 'a.png'; it names 1 of the 2 pictures"):
        labelled(folder, LABELS)
    (folder / "val.txt").write_text("b.png 4\na.png 5\n")
    with pytest.raises(InputError, match=r"'5' of val\.txt is no class of this model"):
        labelled(folder, LABELS)


def test_bare_numbers_are_those_of_imagenets_kit_and_want_a_map(tree, tmp_path):
    folder = tree(*map(val, (1, 3)))
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n1\n")
    with pytest.raises(InputError, match=r"bare numbers.*another order than models do.*label map"):
        labelled(folder, LABELS)
    (tmp_path / "ids.json").write_text(json.dumps({"1": "zebra", "2": "tench"}))
    # Some of the pictures: each has the line of its number.
    assert told(labelled(folder, LABELS, tmp_path / "ids.json")) == [(val(1), 0), (val(3), 4)]
    truth.write_text("2\n")
    with pytest.raises(InputError, match="1 lines, and there is a picture number 3"):
        labelled(folder, LABELS, tmp_path / "ids.json")


def test_a_label_a_line(tree):
    folder = tree("a.png", "b.png")
    (folder / "val.txt").write_text("zebra\ntench\n")
    assert told(labelled(folder, LABELS)) == [("a.png", 4), ("b.png", 0)]
    (folder / "val.txt").write_text("zebra\n")
    with pytest.raises(InputError, match="1 lines for 2 pictures"):
        labelled(folder, LABELS)


def test_pictures_that_two_orders_put_differently_have_no_line(tree):
    """By name img10 stands before img2, by number behind it: a line for each picture says not which."""
    folder = tree("img1.png", "img2.png", "img10.png", "val.txt")
    (folder / "val.txt").write_text("zebra\ntench\nzebra\n")
    with pytest.raises(InputError, match=r"names no pictures, and 'img10.png' stands before 'img2.png' by name"):
        labelled(folder, LABELS)
    (folder / "val.txt").write_text("img1.png zebra\nimg2.png tench\nimg10.png white shark\n")
    assert told(labelled(folder, LABELS)) == [("img1.png", 4), ("img10.png", 1), ("img2.png", 0)]
    padded = tree("a.png", "a1.png", "a01b.png", "b-02.png", "b-10.png", "val.txt", inside="padded")
    (padded / "val.txt").write_text("zebra\ntench\nzebra\nzebra\nzebra\n")
    with pytest.raises(InputError, match=r"'a01b\.png' stands before 'a1\.png'"):
        labelled(padded, LABELS)
    (padded / "a01b.png").unlink()
    (padded / "val.txt").write_text("zebra\ntench\nzebra\nzebra\n")
    assert [index for _, index in told(labelled(padded, LABELS))] == [4, 0, 4, 4]


def test_two_pictures_that_differ_in_their_ending_are_two(tree):
    folder = tree("a.png", "a.jpg", "b.png", "val.txt")
    (folder / "val.txt").write_text("a.png zebra\na.jpg tench\nb.JPEG zebra\n")
    assert told(labelled(folder, LABELS)) == [("a.jpg", 0), ("a.png", 4), ("b.png", 4)]
    (folder / "a.png").rename(folder / "a.webp")
    with pytest.raises(InputError, match=r"does not name 'a.webp'"):
        labelled(folder, LABELS)


def test_the_menageries_own_export(tmp_path):
    out = export("classification", 6, 100, tmp_path / "animals")
    found = labelled(out, menagerie.KINDS)
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert {one.name: one.label for one in found} == {line["file_name"]: line["label"] for line in lines}


def test_what_is_no_such_folder_is_said(tree, tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        labelled(tmp_path / "nowhere", LABELS)
    with pytest.raises(InputError, match="neither a folder per class with pictures in it nor a list"):
        labelled(tree("a.png"), LABELS)
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        labelled(tree("a.png"), LABELS, tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        labelled(tree("a.png"), LABELS, tmp_path / "list.json")
    (tmp_path / "empty.txt").write_text("one\n")
    with pytest.raises(InputError, match="holds no names"):
        labelled(tree("a.png"), LABELS, tmp_path / "empty.txt")
    with pytest.raises(InputError, match="limit is 0"):
        labelled(tree("a.png"), LABELS, limit=0)


def test_a_limit_samples_evenly_and_the_seed_decides(tree):
    folder = tree(*(f"{i}/{n}.png" for i, count in enumerate((50, 50, 2, 50, 50)) for n in range(count)))
    some = labelled(folder, LABELS, limit=31, seed=4)
    many = Counter(one.index for one in some)
    assert len(some) == 31
    assert many[2] == 2  # all that there are
    assert sorted(many[i] for i in (0, 1, 3, 4)) == [7, 7, 7, 8]
    assert [one.name for one in some] == [one.name for one in labelled(folder, LABELS) if one.name in dict(told(some))]
    state = random.getstate()
    assert told(labelled(folder, LABELS, limit=31, seed=4)) == told(some)
    assert random.getstate() == state
    assert told(labelled(folder, LABELS, limit=31, seed=5)) != told(some)
    assert told(labelled(folder, LABELS, limit=31, seed=4))[:9] != told(labelled(folder, LABELS))[:9]
    assert len(labelled(folder, LABELS, limit=10_000)) == 202


def test_drawn_scenes_have_one_animal_each_and_are_those_of_their_seeds():
    drawn = scenes(4, menagerie.KINDS, 650_000)
    again = list(menagerie.scenes(4, 650_000, animals=(1, 1)))
    assert [one.label for one in drawn] == [scene.animals[0].kind for scene in again]
    assert all(isinstance(one.picture, Image.Image) for one in drawn)
    assert drawn[1].picture.tobytes() == again[1].image.tobytes()
    assert drawn[1].name == "scene 650001"
    with pytest.raises(InputError, match="The model has no label"):
        scenes(1, LABELS, 650_000)
