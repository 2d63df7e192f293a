"""Exports: what the field's own readers find in them, and what a person meets at the command line."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from heedmap.menagerie import KINDS, scenes
from heedmap.menagerie.__main__ import main
from heedmap.menagerie.asking import answers, questions
from heedmap.menagerie.export import MANIFEST, Features, export
from heedmap.menagerie.rle import encode

# of pycocotools itself, under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pixels(path):
    return np.asarray(Image.open(path))


def described(pictures):
    """Stand-in for a detector: one region for the first picture of a batch, two for the others."""
    counts = [1 if i == 0 else 2 for i in range(len(pictures))]
    return [(np.full((n, 4), 0.25, np.float32), np.full((n, 3), i, np.float32)) for i, n in enumerate(counts)]


# ------------------------------------------------------------------------------------------------------------- masks


def shapes():
    rng = np.random.default_rng(0)
    yield "none", np.zeros((7, 5), dtype=bool)
    yield "all", np.ones((7, 5), dtype=bool)
    yield "first pixel", np.eye(6, 9, dtype=bool)
    yield "board", np.indices((8, 8)).sum(0) % 2 == 0
    yield "one long run", np.arange(300 * 400).reshape(300, 400) == 7
    for percent in (1, 10, 50, 90, 99):
        yield f"{percent} percent", rng.integers(0, 100, (61, 47)) < percent


@pytest.mark.parametrize(("name", "mask"), list(shapes()), ids=lambda value: value if isinstance(value, str) else "")
def test_masks_are_packed_as_coco_packs_them(name, mask):
    packed = encode(mask)
    theirs = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert packed == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    assert (mask_api.decode(packed).astype(bool) == mask).all()


# --------------------------------------------------------------------------------------------------------- detection


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return export("detection", 12, 200_000, tmp_path_factory.mktemp("detection") / "new")


def test_pycocotools_loads_the_instances_and_decodes_our_masks(coco):
    truth = COCO(str(coco / "annotations" / "instances.json"))
    drawn = list(scenes(12, 200_000))
    assert truth.getImgIds() == [scene.seed for scene in drawn]
    assert [(c["id"], c["name"]) for c in truth.loadCats(truth.getCatIds())] == list(enumerate(KINDS, start=1))
    for scene in drawn:
        (image,) = truth.loadImgs(scene.seed)
        assert (image["width"], image["height"]) == scene.image.size
        assert (pixels(coco / "images" / image["file_name"]) == np.asarray(scene.image)).all()
        found = truth.loadAnns(truth.getAnnIds(imgIds=scene.seed))
        assert len(found) == len(scene.animals)
        for one, animal in zip(found, scene.animals, strict=True):
            left, top, right, bottom = animal.box
            assert (truth.annToMask(one).astype(bool) == animal.mask).all()
            assert one["bbox"] == [left, top, right - left, bottom - top]
            assert one["bbox"] == mask_api.toBbox(one["segmentation"]).tolist()
            assert one["area"] == animal.mask.sum() == mask_api.area(one["segmentation"])
            assert (one["iscrowd"], one["colour"]) == (0, animal.colour)
            assert KINDS[one["category_id"] - 1] == animal.kind
            assert one["parts"].keys() == animal.parts.keys()
            for part, mask in animal.parts.items():
                assert (mask_api.decode(one["parts"][part]).astype(bool) == mask).all()


def test_animals_bounds_how_many_there_are(tmp_path):
    record = read(export("detection", 9, 0, tmp_path / "new", animals=(2, 3)) / "annotations" / "instances.json")
    counts = [sum(one["image_id"] == image["id"] for one in record["annotations"]) for image in record["images"]]
    assert set(counts) == {2, 3}


# ---------------------------------------------------------------------------------------------------- classification


def test_classification_is_a_folder_for_each_kind(tmp_path):
    out = export("classification", 20, 0, tmp_path / "new", size=48)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    drawn = {f"{scene.animals[0].kind}/{scene.seed}.png": scene for scene in scenes(20, 0, (1, 1), 48)}
    assert files == drawn.keys()
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert {line["file_name"] for line in lines} == files
    for line in lines:
        scene = drawn[line["file_name"]]
        assert (pixels(out / line["file_name"]) == np.asarray(scene.image)).all()
        assert (line["label"], line["kinds"]) == (scene.animals[0].kind, [scene.animals[0].kind])
        assert (line["colours"], line["seed"]) == ([scene.animals[0].colour], scene.seed)
    assert tuple((out / "classes.txt").read_text().splitlines()) == KINDS


def test_classification_of_several_animals_names_them_all(tmp_path):
    out = export("classification", 5, 0, tmp_path / "new", animals=(2, 2))
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [line["kinds"] for line in lines] == [[a.kind for a in each.animals] for each in scenes(5, 0, (2, 2))]
    assert all(line["label"] == line["kinds"][0] == line["file_name"].split("/")[0] for line in lines)


# --------------------------------------------------------------------------------------------------------- questions


@pytest.fixture(scope="module")
def vqa(tmp_path_factory):
    return export(
        "questions", 40, 300_000, tmp_path_factory.mktemp("vqa") / "new", features=Features("test", described)
    )


def test_questions_and_annotations_are_those_of_vqa(vqa):
    asked, told = read(vqa / "questions.json"), read(vqa / "annotations.json")
    head = {"info", "license", "data_type", "data_subtype"}
    assert asked.keys() == head | {"task_type", "questions"}
    assert told.keys() == head | {"annotations"}
    kinds_of_answer = {"exists": "yes/no", "both": "yes/no", "count": "number", "colour": "other", "left": "other"}
    for entry, one, (scene, question) in zip(
        asked["questions"], told["annotations"], questions(40, 300_000), strict=True
    ):
        assert entry == {"image_id": scene.seed, "question": question.text, "question_id": scene.seed}
        assert (one["question_id"], one["image_id"]) == (scene.seed, scene.seed)
        assert (one["question_type"], one["answer_type"]) == (question.type, kinds_of_answer[question.type])
        assert one["multiple_choice_answer"] == question.answer
        assert [answer["answer_id"] for answer in one["answers"]] == list(range(1, 11))
        assert {(answer["answer"], answer["answer_confidence"]) for answer in one["answers"]} == {
            (question.answer, "yes")
        }
        assert [region["animal"] for region in one["regions"]] == list(question.regions)
        masks = [mask_api.decode(region["segmentation"]).astype(bool) for region in one["regions"]]
        assert (np.any([np.zeros((96, 96), bool), *masks], axis=0) == question.mask(scene)).all()
        assert (pixels(vqa / f"images/{scene.seed:012}.png") == np.asarray(scene.image)).all()
    assert tuple((vqa / "answers.txt").read_text().splitlines()) == answers()


def test_features_say_whose_they_are_and_which_picture_each_row_belongs_to(vqa):
    with np.load(vqa / "features.npz") as arrays:
        assert arrays["source"] == "test"
        ids, boxes, features = arrays["image_id"], arrays["boxes"], arrays["features"]
    lonely = {300_000, 300_032}  # the first of each batch of 32
    assert ids.tolist() == [id for id in range(300_000, 300_040) for _ in range(1 if id in lonely else 2)]
    assert (boxes.shape, features.shape) == ((78, 4), (78, 3))
    assert features[ids == 300_005].tolist() == [[5.0] * 3] * 2
    assert read(vqa / MANIFEST)["features"] == "test"


def test_without_features_no_file_pretends_to_be_them(tmp_path):
    out = export("questions", 3, 0, tmp_path / "new")
    assert not (out / "features.npz").exists()
    assert read(out / MANIFEST)["features"] is None


# ----------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("task", ["classification", "detection", "questions"])
def test_the_same_options_write_the_same_bytes(tmp_path, task):
    features = Features("test", described) if task == "questions" else None
    first = export(task, 4, 7, tmp_path / "first", features=features)
    again = export(task, 4, 7, tmp_path / "second", features=features)
    other = export(task, 4, 8, tmp_path / "third", features=features)
    assert hashes(first) == hashes(again) != hashes(other)
    assert read(first / MANIFEST)["files"] == [*sorted(hashes(first).keys() - {MANIFEST}), MANIFEST]


def test_an_earlier_export_is_replaced_and_what_was_added_stays(tmp_path):
    out = export("classification", 8, 0, tmp_path / "new")
    (out / "notes.txt").write_text("mine")
    export("detection", 3, 0, out)
    fresh = export("detection", 3, 0, tmp_path / "fresh")
    assert hashes(out) == hashes(fresh) | {"notes.txt": hashlib.sha256(b"mine").hexdigest()}
    assert {path.name for path in out.iterdir()} == {"annotations", "images", "notes.txt", MANIFEST}


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not empty and not an earlier export"):
        export("detection", 1, 0, tmp_path)
    (tmp_path / MANIFEST).write_text('{"files": 3}')
    with pytest.raises(FileExistsError, match="is not empty and not an earlier export"):
        export("detection", 1, 0, tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        export("detection", 1, 0, tmp_path / "thesis.txt")
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", MANIFEST}


def test_an_edited_list_of_files_deletes_nothing_elsewhere(tmp_path):
    out = export("detection", 1, 0, tmp_path / "new")
    outside = tmp_path / "outside.txt"
    outside.write_text("keep")
    manifest = read(out / MANIFEST)
    manifest["files"].append("../outside.txt")
    (out / MANIFEST).write_text(json.dumps(manifest))
    export("detection", 1, 0, out)
    assert outside.read_text() == "keep"


def test_half_an_export_is_never_left(tmp_path):
    def fails(pictures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export("questions", 3, 0, tmp_path / "new", features=Features("test", fails))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_will_do(tmp_path):
    assert export("detection", 1, 0, tmp_path) == tmp_path
    assert (tmp_path / MANIFEST).exists()


# ------------------------------------------------------------------------------------------------------ command line


def run(capsys, *words):
    """The exit code, and what was said on either stream."""
    try:
        code = main([*map(str, words)])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_entry_writes_what_export_writes(tmp_path, capsys):
    words = ("export", "--task", "detection", "--count", 3, "--seed", 5, "--size", 64, "--animals", "2-3")
    code, said, wrong = run(capsys, *words, "--out", tmp_path / "a")
    assert (code, wrong) == (0, "")
    assert "3 scenes for detection" in said
    assert str(tmp_path / "a") in said
    assert hashes(tmp_path / "a") == hashes(export("detection", 3, 5, tmp_path / "b", 64, (2, 3)))


def test_one_number_of_animals_is_a_range_too(tmp_path, capsys):
    run(capsys, "export", "--task", "detection", "--count", 3, "--animals", 2, "--out", tmp_path / "a")
    assert hashes(tmp_path / "a") == hashes(export("detection", 3, 0, tmp_path / "b", animals=(2, 2)))


def test_questions_without_regions(tmp_path, capsys):
    code, said, _ = run(
        capsys, "export", "--task", "questions", "--count", 2, "--regions", "none", "--out", tmp_path / "a"
    )
    assert code == 0
    assert "regions from" not in said
    assert hashes(tmp_path / "a") == hashes(export("questions", 2, 0, tmp_path / "b"))


def test_a_missing_detector_is_said_plainly_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    describing = pytest.importorskip("heedmap.zoo.describing")
    monkeypatch.setattr(describing, "path", lambda name: tmp_path / "nowhere")
    describing.detector.cache_clear()
    code, _, wrong = run(capsys, "export", "--task", "questions", "--count", 2, "--out", tmp_path / "a")
    assert code == 2
    assert "There is no detector at" in wrong
    assert "`--regions none`" in wrong
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("exprot",), "'exprot' is not an action: it is export. Did you mean export?"),
        (("--task", "detecton"), "'detecton' is not a task: it is classification, detection, questions. Did you"),
        (("--cuont", "5"), "--cuont is not an option. Did you mean --count?"),
        (("--cuont=5",), "--cuont=5 is not an option. Did you mean --count?"),
        (("--count", "many"), "'many' is not a whole number from 0 up."),
        (("--seed", "-1"), "--seed"),
        (("--animals", "4-1"), "'4-1' is not a number of animals, such as 2, or a range, such as 1-4."),
        (("--animals", "0"), "'0' is not a number of animals"),
        (("--regions", "dert"), "'dert' is not a source of regions: it is detr, none. Did you mean detr?"),
        (("--task", "detection"), "--count --out must be given."),
        ((), "export --task --count --out must be given."),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_is_meant(capsys, words, message):
    action = ("export",) if words and words[0].startswith("--") else ()
    code, said, wrong = run(capsys, *action, *words)
    assert (code, said) == (2, "")
    assert message in wrong
    assert "--help" in wrong
    assert "Traceback" not in wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "detection", "--count", 0), "count 0 leaves nothing to write"),
        (("--task", "detection", "--count", 1, "--animals", 99), "99"),
        (("--task", "detection", "--count", 1, "--size", 3), "too small"),
        (
            ("--task", "questions", "--count", 1, "--animals", 2, "--regions", "none"),
            "animals has no use for questions",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, capsys, words, message):
    code, _, wrong = run(capsys, "export", *words, "--out", tmp_path / "new")
    assert code == 2
    assert message in wrong
    assert not (tmp_path / "new").exists()


def test_a_full_folder_is_refused_at_the_entry_too(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, wrong = run(capsys, "export", "--task", "detection", "--count", 1, "--out", tmp_path)
    assert (code, "not an earlier export" in wrong) == (2, True)


def test_help_lists_the_options(capsys):
    code, said, _ = run(capsys, "--help")
    assert code == 0
    for option in ("--task", "--count", "--seed", "--out", "--size", "--animals", "--regions"):
        assert option in said


def test_features_for_another_task_are_refused(tmp_path):
    with pytest.raises(ValueError, match="features have no use for detection"):
        export("detection", 1, 0, tmp_path / "new", features=Features("test", described))


def test_a_mistyped_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'vqa' is not a task: they are classification, detection, questions"):
        export("vqa", 1, 0, tmp_path / "new")
