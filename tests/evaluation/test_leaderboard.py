"""The leaderboard: each measure on a case of which the answer is known, records that are kept, and what is written."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import heedmap
from heedmap.evaluation.folders import scenes
from heedmap.evaluation.leaderboard import Job, board, contestants, counts, markdown, page, running
from heedmap.evaluation.leaderboard.board import best, stays
from heedmap.evaluation.leaderboard.cascade import layers, randomised
from heedmap.evaluation.leaderboard.cases import worth
from heedmap.evaluation.leaderboard.kinds import trial
from heedmap.evaluation.leaderboard.measures import (
    MEASURES,
    Measure,
    agrees,
    cost,
    detail,
    hide,
    place,
    ranked,
    sanity,
    scenewise,
    stable,
    unmoved,
)
from heedmap.evaluation.leaderboard.trials import SEEDS
from heedmap.evaluation.perturbation import perturbation
from heedmap.methods import METHODS, Method
from heedmap.methods.raw import raw


@pytest.fixture(scope="module")
def vit():
    return trial(heedmap.load("zoo:vit", device="cpu"))


@pytest.fixture
def says(monkeypatch):
    """A method called "told" that says of pixels what it is told to, one map after the other."""

    def told(*maps):
        waiting = list(maps)

        def run(model, inputs, targets, **options):
            (explanation,) = raw(model, inputs, targets, **options)
            values = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            return [replace(explanation, pixels=torch.as_tensor(values, dtype=torch.float32))]

        monkeypatch.setitem(METHODS, "told", Method(run, {"maps": {}}, "what it is told to"))
        return "told"

    return told


def constant(count, value=1.0):
    return np.full((count, 96, 96), value)


# ---- the measures


def test_the_true_mask_points_at_the_target_and_its_opposite_never_does(vit, says):
    cases = vit.placed(4)
    truth = np.stack([case.target * 1.0 - case.others for case in cases])
    assert place(vit, says(truth), 4) == {"pointing": [1.0] * 4, "on target": [1.0] * 4, "against others": [1.0] * 4}
    assert place(vit, says(-truth), 4) == {"pointing": [0.0] * 4, "on target": [0.0] * 4, "against others": [0.0] * 4}


def test_a_map_without_sign_has_no_share_of_negative(vit, says):
    found = place(vit, says(constant(3)), 3)
    assert np.isnan(found["against others"]).all()
    np.testing.assert_allclose(found["on target"], [case.target.mean() for case in vit.placed(3)], rtol=1e-5)


def test_detail_asks_for_the_sign_of_what_hiding_does(vit, says):
    cases = vit.details(4)
    does = worth(vit.fed(cases), vit.model.module, vit.hidden(cases, [case.part for case in cases]))
    turned = worth(vit.fed(cases, turned=True), vit.model.module, vit.hidden(cases, [case.part for case in cases]))
    np.testing.assert_allclose(turned, -does, rtol=1e-4)
    assert (does > 0).sum() >= 2  # the parts do decide
    assert detail(vit, says(constant(4), -constant(4)), 4) == {"detail": (does > 0).astype(float).tolist()}
    assert detail(vit, says(constant(4)), 4) == {"detail": [0.5] * 4}
    assert agrees([1, -1, 0, float("nan")], [-2, -2, 1, 1])[:2] == [0.0, 1.0]


def test_hiding_is_that_of_the_perturbation_protocol(vit):
    count = 3
    pictures = scenes(count, vit.model.labels, SEEDS + 10_000)
    known = perturbation(vit.model, pictures, ["heed"])
    for order, areas in hide(vit, "heed", count).items():
        np.testing.assert_allclose(areas, known.curve("heed", order).areas)


def test_hiding_takes_pixels_where_a_method_scores_them(vit, says):
    cases = vit.single(3)
    shape = [drawn.mask * 1.0 for case in cases for drawn in _animals(case.scene)]
    found = hide(vit, says(np.stack(shape)), 3)
    assert np.mean(found["positive"]) < np.mean(found["negative"])
    other = hide(vit, says(-np.stack(shape)), 3)
    assert np.mean(other["positive"]) > np.mean(other["negative"])


def _animals(seed):
    (drawn,) = heedmap.menagerie.scenes(1, seed, animals=(1, 1))
    return drawn.animals


def test_random_weights_lower_the_rank_correlation_and_not_that_of_a_constant(vit, says):
    before = {name: tensor.clone() for name, tensor in vit.model.module.state_dict().items()}
    found = sanity(vit, "heed", 2)
    assert next(iter(found)) == "cascade 1 of 10"
    assert np.mean(found["sanity"]) < 0.5
    for name, tensor in vit.model.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert set(sanity(vit, says(constant(2)), 2)["sanity"]) == {1.0}


def test_layers_are_drawn_anew_from_the_top(vit):
    import copy

    module = copy.deepcopy(vit.model.module)
    inputs = vit.fed(vit.placed(1)).inputs
    groups = layers(module, lambda: module(**inputs))
    names = list(groups)
    assert names[0] == "classifier"
    assert "embeddings" in names[-1]
    numbers = [int(found[1]) for name in names if (found := re.search(r"\.(\d+)$", name))]
    assert numbers == sorted(numbers, reverse=True)
    held = dict(module.named_parameters())
    before = {name: weight.clone() for name, weight in held.items()}
    steps = randomised(list(groups.values()))
    assert next(steps) == 1
    changed = {name for name, weight in held.items() if not torch.equal(weight, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert list(steps)[-1] == len(groups)
    touched = {id(weight) for some in groups.values() for each in some for weight in each.parameters(recurse=False)}
    still = [n for n, w in held.items() if id(w) in touched and w.std() > 0 and torch.equal(w, before[n])]
    assert still == []


def test_a_constant_is_stable_and_chance_is_not(vit, says):
    assert stable(vit, says(constant(3)), 3) == {"stability": [1.0] * 3}
    assert max(stable(vit, "random", 3)["stability"]) < 0.5
    assert min(stable(vit, "heed", 3)["stability"]) > 0.9


def test_cost_is_a_number_for_each_time_it_was_measured(vit):
    assert np.shape(cost(vit, "heed", 2)["cost"]) == (2,)


def test_how_two_maps_are_compared():
    nan = float("nan")
    a, b = np.array([1.0, 5.0, 2.0, 2.0, nan]), np.array([10.0, 11.0, 90.0, 90.0, 1.0])
    ranks = np.array([1, 4, 2.5, 2.5]), np.array([1, 2, 3.5, 3.5])
    assert ranked(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert ranked(a, 2 * a + 1) == pytest.approx(1.0)
    assert ranked(a, -a) == pytest.approx(-1.0)
    assert ranked(a, np.ones(5)) == 0.0
    assert ranked(np.ones(5), np.ones(5)) == 1.0
    assert np.isnan(ranked(a, np.full(5, nan)))
    assert unmoved(np.zeros(2), np.zeros(2)) == 1.0
    assert unmoved(np.ones(2), np.zeros(2)) == 0.0
    assert unmoved(np.array([1.0, 0, nan]), np.array([1.0, 1, 7])) == pytest.approx(2**-0.5)


def test_a_scene_counts_once_however_many_cases_it_has(vit):
    one = vit.placed(1)[0]
    cases = [replace(one, scene=scene) for scene in (1, 1, 2, 3)]
    found = scenewise(cases, [0.0, 1.0, 0.25, float("nan")])
    assert found[:2] == [0.5, 0.25]
    assert np.isnan(found[2])


# ---- the other kinds of model


@pytest.mark.parametrize("name", ["detr", "clip", "lxmert"])
def test_every_kind_of_model_has_cases_that_fit_its_maps(name):
    asked = trial(heedmap.load(f"zoo:{name}", device="cpu"))
    for cases in (asked.placed(3), asked.details(3)[: asked.detailed]):
        assert cases
        one = asked.fed(cases)
        explanation = one.explained(asked.model.module, "heed")
        for i, case in enumerate(cases):
            units = asked.units(explanation, i)
            assert units.shape == (case.target if case.other is None else case.part).shape
            assert np.abs(units).sum() > 0
            assert asked.tokens(explanation, i).ndim == 1
        torch.testing.assert_close(explanation.value, one.value(asked.model.module), rtol=1e-4, atol=1e-5)
    assert set(hide(asked, "heed", 2)) == {"positive", "negative"}


@pytest.mark.parametrize("name", ["vit", "detr", "clip"])
def test_a_model_knows_its_animals_until_they_are_hidden(name):
    asked = trial(heedmap.load(f"zoo:{name}", device="cpu"))
    cases = asked.single(4)
    one = asked.fed(cases)
    with torch.no_grad():
        assert asked.knows(one, one.inputs["pixel_values"]).mean() > 0.6
        assert asked.knows(one, torch.zeros_like(one.inputs["pixel_values"])).mean() < 0.5


# ---- records


@pytest.fixture
def counted(monkeypatch):
    """Two measures in the place of all, which cost nothing; how often each was taken."""
    taken = []

    def measure(name, columns):
        def run(asked, method, count):
            taken.append((method, name))
            if method == "odam":
                raise heedmap.errors.UnsupportedError("No such thing.  Ask heed.")
            if method == "raw" and name == "hide":
                raise ZeroDivisionError("by zero")
            return {each: [0.25, 0.75, float("nan")] for each in columns}

        return Measure(run, columns)

    monkeypatch.setattr(running, "_trial", lambda model: None)
    monkeypatch.setitem(MEASURES, "place", measure("place", ("pointing", "on target", "against others")))
    monkeypatch.setitem(MEASURES, "hide", measure("hide", ("positive", "negative")))
    return taken


def test_what_is_there_is_not_made_again_and_what_is_torn_or_of_another_count_is(counted, tmp_path):
    job = Job("zoo:vit", "heed", {"place": 3, "hide": 3, "detail": 0}, tmp_path)
    heard = []
    running.run([job], 1, lambda name, failed: heard.append((name, failed)))
    assert counted == [("heed", "place"), ("heed", "hide")]
    running.run([job], 1, lambda name, failed: heard.append((name, failed)))
    assert len(counted) == 2
    assert heard == [("zoo:vit heed", "")] * 2
    job.file("hide").write_text('{"setting": ', encoding="utf-8")
    running.run([job], 1)
    assert counted[2:] == [("heed", "hide")]
    running.run([replace(job, counts={"place": 4, "hide": 3})], 1)
    assert counted[3:] == [("heed", "place")]


def test_a_refusal_is_kept_and_a_failure_is_told_and_tried_again(counted, tmp_path):
    refused, failing = (Job("zoo:vit", name, {"place": 3, "hide": 3}, tmp_path) for name in ("odam", "raw"))
    heard = {}
    running.run([refused, failing], 1, heard.__setitem__)
    assert heard == {"zoo:vit odam": "", "zoo:vit raw": "hide: ZeroDivisionError: by zero"}
    assert (refused.missing, failing.missing) == ([], ["hide"])
    made = board([refused, failing], ["heedmap leaderboard"], quick=False)
    left, measured = made["rows"]
    assert left["left_out"] == "No such thing. Ask heed."
    assert measured["found"]["pointing"] | {"low": 0, "high": 0} == {"mean": 0.5, "low": 0, "high": 0, "scenes": 2}
    assert "positive" not in measured["found"]


def test_all_methods_are_compared_unless_some_are_named():
    every = contestants()
    assert set(METHODS) <= set(every)
    assert {"heed:positive", "heed:absolute", "heed:positive+noise"} <= set(every)
    assert len(every) == len(set(every))
    assert contestants(["gae"]) == ["gae"]


def test_scenes_are_those_that_were_asked_for_and_slow_methods_have_fewer():
    assert counts("heed")["place"] == 500
    assert counts("heed")["hide"] == 100
    assert counts("flow")["place"] == counts("tis:noise")["hide"] == 30
    assert counts("heed", scenes=250) == {"place": 250, "detail": 25, "hide": 50, "sanity": 5, "stable": 10, "cost": 5}
    assert counts("tis", quick=True)["sanity"] == counts("tis", quick=True, scenes=1000)["sanity"] == 0


# ---- what is written


def made(**methods):
    def row(method, found):
        return {
            "model": "zoo:vit",
            "method": method,
            "anchor": method == "random",
            "counts": {"place": 9},
            "found": {
                name: {"mean": m, "low": low, "high": high, "scenes": 9} for name, (m, low, high) in found.items()
            },
            "cascade": {},
            "left_out": None,
            "without": {"hide": "No <room>."} if method == "gae" else {},
            "seconds": 1.0,
        }

    rows = [row(name, found) for name, found in methods.items()]
    return {"version": "1", "quick": True, "commands": ["heedmap leaderboard"], "columns": {}, "rows": rows}


BOARD = made(
    random={"on target": (0.2, 0.1, 0.3), "sanity": (1.0, 1.0, 1.0)},
    gae={"on target": (0.7, 0.6, 0.85), "sanity": (0.4, 0.3, 0.49), "positive": (20.0, 10.0, 30.0)},
    heed={"on target": (0.8, 0.7, 0.9), "sanity": (0.1, -0.1, 0.2), "positive": (40.0, 31.0, 50.0)},
)


def test_the_best_is_marked_with_all_that_reach_it_whoever_it_is():
    marked = best(BOARD["rows"])
    assert marked == {"on target": {"heed", "gae"}, "positive": {"gae"}}
    assert [stays(row["found"]["sanity"]) for row in BOARD["rows"]] == [True, False, False]


def test_markdown_has_a_row_a_method_and_blanks_where_nothing_was_measured():
    text = markdown(BOARD, "Board")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "[" in line]
    assert [row[0].strip("| ") for row in rows] == ["heed", "gae", "*random*"]
    assert rows[0][2] == "**0.80** [0.70, 0.90]"
    assert rows[0][3] == ""
    assert "1.00* [1.00, 1.00]" in text
    assert "* gae, hide: No <room>." in text
    assert "```\nheedmap leaderboard\n```" in text


def test_the_page_needs_nothing_and_says_what_it_sorts_by():
    text = page(BOARD, "Board")
    assert "default-src 'none'" in text
    assert re.findall(r"(?:src|href)=(?!#)", text) == []
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<tr>") == 1 + 3
    assert 'data-value="0.8"' in text
    assert "No &lt;room&gt;." in text
    assert json.dumps(BOARD)
