"""The detector's recipe: its parts, a few steps of it, and going on after a stop."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from heedmap import menagerie
from heedmap.zoo.regions import overlap, regions

pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[2]))
detr, detection = import_module("training.detr"), import_module("training.detection")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Little blocks, and figures on few scenes."""
    monkeypatch.setattr(detr, "BLOCK", 32)
    monkeypatch.setattr(detr, "BATCH", 4)
    monkeypatch.setattr(detr, "SCENES", 4)
    detr.drawn_block.cache_clear()
    yield
    detr.drawn_block.cache_clear()


@pytest.fixture
def scenes():
    return list(menagerie.scenes(4, 3_000_000))


def run(folder, *options):
    detr.main(["--threads", "1", "--out", str(folder / "detr"), "--state", str(folder / "state.pt"), *options])


def test_the_processor_gives_what_training_sees():
    pixels, _ = detr.batch(0)
    order = detr.np.random.default_rng((detr.FIRST_SEED, 0, 0)).permutation(detr.BLOCK)[: detr.BATCH]
    images = [next(menagerie.scenes(1, detr.FIRST_SEED + int(i))).image for i in order]
    given = detr.processor()(images=images, return_tensors="pt")
    assert set(given) == {"pixel_values"}
    assert torch.allclose(given["pixel_values"], pixels, atol=1e-6)


def test_a_mirrored_view_mirrors_its_boxes():
    per_view = detr.BLOCK // detr.BATCH
    pixels, known = detr.batch(per_view)  # the first batch of the second view
    whole, plain = detr.drawn_block(0)
    order = detr.np.random.default_rng((detr.FIRST_SEED, 0, 1)).permutation(detr.BLOCK)[: detr.BATCH]
    assert torch.equal(pixels.flip(-1), detr.normalised(whole[order]))
    assert torch.allclose(known.boxes[..., 0], 1 - plain.boxes[order][..., 0])
    assert torch.equal(known.boxes[..., 1:], plain.boxes[order][..., 1:])


def test_perfect_answers_cost_nothing_but_certainty(scenes):
    truth = detr.truth(scenes)
    kinds = torch.full((1, len(scenes), detr.QUERIES, detr.NOTHING + 1), 0.0)
    kinds[..., detr.NOTHING] = 50.0
    boxes = torch.full((1, len(scenes), detr.QUERIES, 4), 0.5)
    colours = torch.zeros(len(scenes), detr.QUERIES, len(detr.COLOURS))
    for image, animal in truth.there.nonzero().tolist():
        query = 3 * animal + 1
        kinds[0, image, query, detr.NOTHING] = 0.0
        kinds[0, image, query, truth.labels[image, animal]] = 50.0
        boxes[0, image, query] = truth.boxes[image, animal]
        colours[image, query, truth.colours[image, animal]] = 50.0
    _, image, query, animal = detr.match(kinds, boxes, truth)
    assert sorted(zip(image.tolist(), animal.tolist(), strict=True)) == sorted(
        map(tuple, truth.there.nonzero().tolist())
    )
    assert (query == 3 * animal + 1).all()
    assert detr.set_loss((kinds, boxes, colours), truth) < 1e-4


def test_the_checkpoint_computes_what_was_learned():
    torch.manual_seed(1)
    learner = detr.Learner(detr.config())
    pixels, _ = detr.batch(0)
    learner(pixels)  # the batch norms take note
    with torch.no_grad():
        kinds, boxes, _ = learner.eval()(pixels)
        output = detr.finished(learner)(pixels)
    near = 0.1 if detr.fastest_dtype("cpu") == torch.bfloat16 else 1e-4
    assert torch.allclose(output.logits, kinds[-1], atol=near)
    assert torch.allclose(output.pred_boxes, boxes[-1], atol=near)


def test_the_image_has_144_tokens():
    model = detr.finished(detr.Learner(detr.config()))
    with torch.no_grad():
        output = model(torch.zeros(1, 3, detr.SIZE, detr.SIZE))
    assert output.encoder_last_hidden_state.shape[1] == 144


def test_a_few_steps_write_a_checkpoint_with_its_card(tmp_path):
    run(tmp_path, "--steps", "6")
    card = json.loads((tmp_path / "detr" / "card.json").read_text())
    assert set(card["measured"]) == {"box AP", "box AP50", "scenes read exactly"}
    assert card["class"] == "DetrForObjectDetection"
    assert not (tmp_path / "state.pt").exists()


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "whole", "--steps", "8")
    taken, calls = detr.taken, []

    def stopping(*arguments):
        calls.append(taken(*arguments))
        if len(calls) == 5:
            import signal

            signal.raise_signal(signal.SIGTERM)
        return calls[-1]

    monkeypatch.setattr(detr, "taken", stopping)
    with pytest.raises(SystemExit, match="stopped after step 5"):
        run(tmp_path / "parts", "--steps", "8")
    run(tmp_path / "parts", "--steps", "8")
    assert len(calls) == 8
    names = "model.safetensors"
    assert (tmp_path / "whole/detr" / names).read_bytes() == (tmp_path / "parts/detr" / names).read_bytes()


def test_perfect_detections_have_an_ap_of_one(scenes):
    truths = [detection.ground_truth(scene) for scene in scenes]
    found = [[(label, 0.9, [side / 96 for side in box]) for label, box in animals] for animals in truths]
    assert detection.score(truths, found, 96) == {"box AP": pytest.approx(1), "box AP50": pytest.approx(1)}
    shifted = [[(label, sure, [side + 0.5 for side in box]) for label, sure, box in one] for one in found]
    assert detection.score(truths, shifted, 96)["box AP50"] == 0


def test_regions_are_sure_and_each_animal_comes_once():
    class Detector:
        def __call__(self, pixel_values):
            boxes = torch.tensor(
                [[[0.3, 0.3, 0.4, 0.4], [0.31, 0.3, 0.4, 0.4], [0.8, 0.8, 0.2, 0.2], [0.5, 0.1, 0.1, 0.1]]]
            )
            logits = torch.zeros(1, 4, 3)
            logits[0, 0, 0], logits[0, 1, 1], logits[0, 2, 1], logits[0, 3, 2] = 4, 5, 6, 9
            states = torch.arange(8.0).view(1, 4, 2)
            return type("Output", (), {"logits": logits, "pred_boxes": boxes, "last_hidden_state": states})()

    (found,) = regions(Detector(), torch.zeros(1, 3, 8, 8))
    assert found.labels.tolist() == [1, 1]
    assert found.features.tolist() == [[4, 5], [2, 3]]
    assert torch.allclose(found.boxes[0], torch.tensor([0.7, 0.7, 0.9, 0.9]))
    (none_sure,) = regions(Detector(), torch.zeros(1, 3, 8, 8), threshold=0.999)
    assert len(none_sure) == 1
    assert overlap(found.boxes, found.boxes).diagonal().tolist() == pytest.approx([1, 1])
