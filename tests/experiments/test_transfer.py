"""Attention weights that descend a logit: the numbers against a forward pass written by hand, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import heedmap
from heedmap import menagerie
from heedmap.cli import main
from heedmap.errors import InputError, LabelError
from heedmap.experiments import filming
from heedmap.experiments.transfer import Transfer, centre, transfer

TARGET, OTHER = "zebra", "elephant"


@pytest.fixture(scope="module")
def scene():
    return menagerie.scene([TARGET, OTHER], seed=7)


@pytest.fixture(scope="module")
def vit():
    return heedmap.load("zoo:vit", device="cpu")


@pytest.fixture(scope="module")
def moved(vit, scene) -> Transfer:
    return transfer(vit, scene.image, TARGET, OTHER, steps=60)


# ---- by hand: a ViT whose attention is a list of leaves


def attended(vit, pixels: Tensor, edits: dict[int, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The logits, and the weights that were used: those given, else the softmax of queries and keys."""
    body, heads = vit.vit, vit.config.num_attention_heads
    x = body.embeddings(pixels)
    used = []
    for i, layer in enumerate(body.layers):
        a, y = layer.attention, layer.layernorm_before(x)
        q, k, v = (f(y).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (a.q_proj, a.k_proj, a.v_proj))
        used.append(edits[i] if i in edits else (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        x = x + a.o_proj((used[-1] @ v).transpose(1, 2).flatten(2))
        x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layernorm_after(x))))
    return vit.classifier(body.layernorm(x)[:, 0]), used


def explained(logit: Tensor, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The row of CLS in the product of (I + mean over heads of gradient * weights), less its start; the gradients."""
    gradients = torch.autograd.grad(logit, weights, retain_graph=True)
    identity = torch.eye(weights[0].shape[-1], dtype=torch.float64)
    relevance = identity
    for gradient, each in zip(gradients, weights, strict=True):
        relevance = (identity + (gradient * each)[0].mean(0)) @ relevance
    return (relevance - identity)[0].detach(), list(gradients)


@pytest.mark.parametrize("layers", [None, (1, 4)])
def test_every_step_is_exact(scene, layers):
    """In float64: logits, probabilities and both explanations, step by step, with all weights free or a few."""
    model = heedmap.load("zoo:vit", device="cpu", dtype=torch.float64)
    rate = 0.002
    found = transfer(model, scene.image, TARGET, OTHER, steps=3, rate=rate, layers=layers)
    pixels = model.inputs(scene.image)[0]["pixel_values"]
    pair = [model.labels.index(TARGET), model.labels.index(OTHER)]
    own = attended(model.module, pixels, {})[1]
    free = {i: own[i].detach() for i in layers or range(len(own))}
    assert found.layers == tuple(free)
    assert len(found.steps) == 4
    for step in found.steps:
        logits, used = attended(model.module, pixels, {i: each.requires_grad_() for i, each in free.items()})
        row, gradients = explained(logits[0, pair[0]], used)
        other, _ = explained(logits[0, pair[1]], used)
        close(step.target["pixel_values"][0], row)
        close(step.other["pixel_values"][0], other)
        close(torch.tensor(step.logits, dtype=torch.float64), logits[0, pair].detach())
        assert step.probability == pytest.approx(logits.softmax(-1)[0, pair].tolist(), abs=1e-6)
        free = {i: (each - rate * gradients[i]).detach() for i, each in free.items()}


def close(mine: Tensor, true: Tensor) -> None:
    torch.testing.assert_close(mine, true, rtol=0, atol=1e-9)


def test_step_0_is_the_model_as_it_stands(vit, scene, moved):
    """Its logits; its explanation only nearly: free weights pass no gradient on to queries and keys."""
    plain = vit.explain_each(scene.image, targets=[TARGET, OTHER])
    first = moved.steps[0]
    for mine, own in zip((first.target, first.other), plain, strict=True):
        assert mine.value.item() == pytest.approx(own.value.item(), abs=1e-4)
        assert mine.shown[0].answer == own.shown[0].answer
        alike = F.cosine_similarity(mine["pixel_values"], own["pixel_values"]).item()
        assert 0.9 < alike < 1


def test_the_model_is_left_as_it_was(vit, scene, moved):
    before = vit.explain(scene.image, target=TARGET)
    transfer(vit, scene.image, TARGET, OTHER, steps=2)
    after = vit.explain(scene.image, target=TARGET)
    assert torch.equal(before["pixel_values"], after["pixel_values"])
    assert all(parameter.grad is None for parameter in vit.module.parameters())


# ---- what becomes of a scene


def share(explanation, mask: np.ndarray) -> float:
    """How much of the positive relevance lies in patches that show more of the animal than not."""
    heat = explanation["pixel_values"][0, 1:].reshape(12, 12).clamp(min=0).numpy()
    inside = mask.reshape(12, 8, 12, 8).mean((1, 3)) > 0.25
    return float(heat[inside].sum() / heat.sum())


def test_the_logit_falls_and_attention_goes_to_the_other_animal(scene, moved):
    logits = np.array([step.logits for step in moved.steps])
    assert (np.diff(logits[:, 0]) < 0).all(), "every step descends"
    first, last = moved.steps[0], moved.steps[-1]
    assert first.logits[0] - last.logits[0] > 5
    assert last.probability[0] < 0.01 < first.probability[0]
    zebra, elephant = (animal.mask for animal in scene.animals)
    assert share(first.target, zebra) > 0.6 > 0.1 > share(first.target, elephant)
    assert share(last.target, elephant) > 0.25 > 0.1
    assert share(last.target, zebra) < share(first.target, zebra) - 0.3
    assert last.centre[0] > first.centre[0] + 0.1, "the elephant stands to the right"


def test_what_is_not_named_is_what_the_model_finds_likeliest(vit, scene):
    likeliest = [answer.label for answer in vit.predict(scene.image, top=2)[0]]
    found = transfer(vit, scene.image, steps=0)
    assert [found.target, found.other] == likeliest
    assert transfer(vit, scene.image, other=likeliest[0], steps=0).target == likeliest[1]


def test_it_stops_where_it_is_told(vit, scene):
    found = transfer(vit, scene.image, OTHER, TARGET, until=lambda step: step.logits[1] > step.logits[0])
    assert 1 < len(found.steps) < 60
    passed = [step.logits[1] > step.logits[0] for step in found.steps]
    assert passed == [False] * (len(passed) - 1) + [True]


def test_the_kept_steps_are_spread_evenly(moved):
    assert [step.number for step in moved.kept(4)] == [0, 20, 40, 60]
    assert [step.number for step in moved.kept(1000)] == list(range(61))
    with pytest.raises(InputError, match="expected at least 2"):
        moved.kept(1)


def test_the_centre_is_that_of_a_grid():
    scene = menagerie.scene([TARGET], seed=3)
    e = heedmap.load("zoo:vit", device="cpu").explain(scene.image, target=TARGET)
    flowed = torch.full((1, 145), -1.0)
    flowed[0, 1 + 12 * 2 + 5] = 3.0  # third row, sixth column
    assert centre(replace(e, relevance={"pixel_values": flowed})) == pytest.approx((5.5 / 12, 2.5 / 12))
    assert centre(replace(e, relevance={"pixel_values": -flowed.abs()})) is None


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"target": "zebre"}, LabelError, "Did you mean 'zebra'"),
        ({"target": TARGET, "other": TARGET}, InputError, "both 'zebra'. Name two"),
        ({"layers": [6]}, InputError, r"layers are \[6\].*0 to 5"),
        ({"layers": []}, InputError, r"layers are \[\]"),
        ({"rate": -1}, InputError, "a rate above 0"),
        ({"rate": 1e30}, InputError, "no longer finite.*smaller rate"),
    ],
)
def test_what_cannot_be_is_refused(vit, scene, options, error, says):
    with pytest.raises(error, match=says):
        transfer(vit, scene.image, **{"steps": 3, **options})


def test_pictures_go_one_at_a_time(vit, scene):
    with pytest.raises(InputError, match="2 pictures"):
        transfer(vit, [scene.image, scene.image])


# ---- drawn


def test_the_strip_shows_the_kept_steps(moved):
    narrow, wide = filming.strip(moved, keep=4, side=100), filming.strip(moved, keep=6, side=100)
    assert wide.width - narrow.width == 2 * (100 + 16)


def test_the_animation_has_its_frames_in_colour_and_rests_on_the_last(moved, tmp_path):
    filming.animation(moved, tmp_path / "moved.gif", frames=7, side=120)
    with Image.open(tmp_path / "moved.gif") as film:
        assert film.n_frames == 7
        times, sizes, reds = [], set(), []
        for i in range(film.n_frames):
            film.seek(i)
            times.append(film.info["duration"])
            sizes.add(film.size)
            frame = np.asarray(film.convert("RGB"), dtype=int)
            reds.append((frame[..., 0] - frame[..., 1:].max(-1)).max())
            assert (frame[:4] == 255).all(), "around the panels there is no tint"
    assert times == [filming.PACE] * 6 + [filming.REST]
    assert len(sizes) == 1
    assert min(reds) > 120, "red stays red among so much grey"


# ---- the command


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, scene):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEEDMAP_MODEL", raising=False)
    scene.image.save("savanna.png")

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["transfer", "savanna.png", "--model", "zoo:vit", "--device", "cpu", *arguments])
        return code, *capsys.readouterr()

    return command


def test_the_command_writes_what_it_names(run, tmp_path):
    code, out, err = run("--from", TARGET, "--to", OTHER, "--steps", "12", "--keep", "3", "--out", "made")
    assert (code, err) == (0, "")
    made = {path.name for path in (tmp_path / "made").iterdir()}
    stem = "savanna.zebra-to-elephant.transfer"  # `rewrite` calls its files savanna.zebra-to-elephant
    assert made == {f"{stem}.{ending}" for ending in ("png", "gif", "chart.png", "html", "json")}
    assert all(name in out for name in made)
    assert "from zebra to elephant in 12 steps of 0.0004" in out
    with Image.open(tmp_path / "made" / f"{stem}.gif") as film:
        assert film.n_frames == 13
    record = json.loads((tmp_path / "made" / f"{stem}.json").read_text(encoding="utf-8"))
    assert [step["step"] for step in record["steps"]] == list(range(13))
    assert record["steps"][-1]["logits"][0] < record["steps"][0]["logits"][0]
    html = (tmp_path / "made" / f"{stem}.html").read_text(encoding="utf-8")
    assert html.count("step 12") >= 2


def test_json_prints_the_numbers_and_nothing_else(run, tmp_path):
    code, out, _ = run("--from", TARGET, "--to", OTHER, "--steps", "2", "--layers", "0,5", "--json")
    record = json.loads(out)
    assert code == 0
    assert (record["target"], record["other"], record["layers"], record["files"]) == (TARGET, OTHER, [0, 5], [])
    assert not (tmp_path / "out").exists()


def test_it_stops_when_the_other_answer_is_likelier(run):
    code, out, err = run("--from", OTHER, "--to", TARGET, "--stop", "--json")
    last = json.loads(out)["steps"][-1]
    assert (code, err) == (0, "")
    assert last["logits"][1] > last["logits"][0]
    _, _, err = run("--from", OTHER, "--to", TARGET, "--stop", "--json", "--steps", "1")
    assert err == "zebra did not pass elephant in 1 steps. Give more --steps.\n"
    _, out, err = run("--from", TARGET, "--to", OTHER, "--stop", "--json")  # what is predicted is the elephant
    assert len(json.loads(out)["steps"]) == 1
    assert err == "elephant is likelier than zebra from the first: nothing moved. Leave --stop out.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--from", "zebre"), 2, "Label 'zebre' is not one of this model's 16 labels. Did you mean 'zebra'?"),
        (("--from", "zebra", "--to", "Zebra"), 2, "--from and --to are both 'zebra'. Name two different answers."),
        (("--from", " "), 2, "--from wants a label or an index. What was given is empty."),
        (("--layers", "a"), 2, "--layers 'a' are not numbers of calls. Write them with commas, such as 0,1,2."),
        (("--layers", "9"), 1, "layers are [9]. heedmap expected some of the model's calls, 0 to 5."),
        (("--rate", "0"), 2, "--rate 0 descends nothing. Give a number above 0."),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, arguments, code, says):
    found, _, err = run(*arguments, "--json")
    assert (found, err) == (code, says + "\n")
