"""Every command does what its help says, on models of the zoo."""

import functools
import json
import sys

import numpy as np
import pytest
import transformers
from PIL import Image
from rich.text import Text

import heedmap
from heedmap import menagerie, zoo
from heedmap.cli.app import COMMANDS
from heedmap.cli.compare import by_reason
from heedmap.cli.talk import USAGE

VIT = ("--model", "zoo:vit")


def made(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


# ---- explain


def test_explain_says_what_it_explained_and_writes_a_picture(run, savanna, tmp_path):
    found = run("explain", savanna, *VIT, "--target", "zebra")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"{savanna}: zebra, ")
    assert made(tmp_path) == ["savanna.zebra.png"]
    assert "savanna.zebra.png" in found.out.splitlines()[-1]


def test_several_targets_stand_beside_one_another(run, savanna, tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a.png", "b.png"):
        menagerie.scene(["cat", "dog"], seed=ord(name[0])).image.save(tmp_path / "two" / name)
    asked = (*VIT, "-T", "zebra", "-T", "elephant", "-T", "zebra", "--against", "cat", "-q")
    found = run("explain", savanna, "two", *asked, "-f", "png,heed", "--json")
    assert (found.code, found.err) == (0, "")
    model = heedmap.load("zoo:vit")
    for result in found.json["results"]:
        said = [each["answer"] for each in result["explanations"]]
        assert said == ["zebra rather than cat", "elephant rather than cat"]
        for each, kind in zip(result["explanations"], ("zebra", "elephant"), strict=True):
            alone = model.explain(result["picture"], target=kind, against="cat")
            assert each["value"] == pytest.approx(float(alone.value), rel=1e-4)
            values = [unit["value"] for unit in each["streams"][0]["units"]]
            assert values == pytest.approx(alone["pixel_values"][0, 1:].tolist(), abs=1e-4)
    stem = "zebra-rather-than-cat.elephant-rather-than-cat"
    assert made(tmp_path) == sorted(
        f"{name}.{stem}{ending}" for name in ("a", "b", "savanna") for ending in (".png", "-1.heed", "-2.heed")
    )
    with Image.open(tmp_path / "out" / f"savanna.{stem}.png") as sheet:
        assert sheet.width > 3 * 320  # the picture and a column for each target


def test_many_targets_are_counted_in_the_name(run, savanna, tmp_path):
    every = [part for label in heedmap.load("zoo:vit").labels for part in ("-T", label)]
    assert run("explain", savanna, *VIT, *every, "-q").code == 0
    assert made(tmp_path) == ["savanna.zebra.horse.elephant.and-13-more.png"]


def test_several_targets_take_one_forward_pass(run, savanna, monkeypatch):
    passes = []
    forward = transformers.ViTForImageClassification.forward
    monkeypatch.setattr(
        transformers.ViTForImageClassification,
        "forward",
        functools.wraps(forward)(lambda *a, **k: passes.append(1) or forward(*a, **k)),
    )
    assert run("explain", savanna, *VIT, "-T", "zebra", "-T", "cat", "-T", "dog", "--json").code == 0
    assert len(passes) == 1


def test_a_detector_that_does_not_see_the_target_says_so(run, savanna):
    detr = ("-m", "zoo:detr", "--correction", "positive")
    found = run("explain", savanna, *detr, "-T", "horse", "-T", "zebra", "--json")
    assert found.code == 0
    assert "not sure of horse (" in found.line
    assert "zebra" not in found.line.removeprefix(str(savanna))
    horse, zebra = found.json["results"][0]["explanations"]
    assert horse["probability"] < 0.5 < zebra["probability"]
    seen = run("predict", savanna, "-m", "zoo:detr", "--json").json["results"][0]["answers"]
    assert zebra["probability"] == pytest.approx(next(each["value"] for each in seen if each["label"] == "zebra"))
    assert run("explain", savanna, *detr, "-T", "horse", "--threshold", "0", "--json").err == ""


def test_where_a_sign_says_little_it_is_told(run, savanna):
    def told(*given):
        return "the sign says little" in run("explain", savanna, *given, "-T", "zebra", "--json").err

    assert told("-m", "zoo:detr")
    assert told("-m", "zoo:detr", "--method", "heed:complete")
    assert not told("-m", "zoo:detr", "--method", "heed:absolute")
    assert not told("-m", "zoo:detr", "--method", "gae")
    assert not told(*VIT)


def test_without_a_target_the_prediction_is_explained_and_that_is_said(run, savanna, tmp_path):
    found = run("explain", savanna, *VIT)
    assert "(the prediction: no --target was given)" in found.out.splitlines()[0]
    assert made(tmp_path)[0] in ("savanna.zebra.png", "savanna.elephant.png")


def test_the_numbers_are_those_of_the_library(run, savanna):
    found = run("explain", savanna, *VIT, "--target", "zebra", "--against", "elephant", "--loss", "relative", "--json")
    result = found.json["results"][0]["explanations"][0]
    e = heedmap.load("zoo:vit").explain(image=savanna, target="zebra", against="elephant", loss="relative")
    assert result["value"] == pytest.approx(float(e.value))
    (stream,) = result["streams"]
    patches = [unit["value"] for unit in stream["units"]]
    assert stream["kind"] == "patches"
    assert patches == pytest.approx(e["pixel_values"][0, 1:].tolist(), abs=1e-6)
    assert min(patches) < 0 < max(patches)


def test_against_alone_is_the_prediction_against_it(run, savanna):
    found = run("explain", savanna, *VIT, "--against", "cat", "--json")
    predicted = run("predict", savanna, *VIT, "--json").json["results"][0]["answers"][0]["label"]
    assert found.json["results"][0]["explanations"][0]["target"] == f"logit({predicted!r}) - logit('cat')"


def test_an_index_is_as_good_as_a_label(run, savanna):
    labels = heedmap.load("zoo:vit").labels
    values = [
        run("explain", savanna, *VIT, "-T", target, "--json").json["results"][0]["explanations"][0]["value"]
        for target in ("zebra", labels.index("zebra"))
    ]
    assert values[0] == pytest.approx(values[1])


def test_every_format_is_written(run, savanna, tmp_path):
    found = run("explain", savanna, *VIT, "-T", "zebra", "--format", "png,svg,html,json,heed", "--quiet")
    assert found.code == 0, found.err
    out = tmp_path / "out"
    assert made(tmp_path) == [f"savanna.zebra.{ending}" for ending in ("heed", "html", "json", "png", "svg")]
    with Image.open(out / "savanna.zebra.png") as sheet:
        assert sheet.width > 100
    assert (out / "savanna.zebra.svg").read_text().startswith("<svg")
    assert "<html" in (out / "savanna.zebra.html").read_text()
    kept = json.loads((out / "savanna.zebra.json").read_text())
    opened = heedmap.open(out / "savanna.zebra.heed")
    assert kept["explanations"][0]["value"] == pytest.approx(float(opened.value))


def test_json_alone_writes_nothing(run, savanna, tmp_path):
    assert run("explain", savanna, *VIT, "--json").code == 0
    assert not (tmp_path / "out").exists()


def test_methods_and_corrections_have_names_of_their_own(run, savanna, tmp_path):
    run("explain", savanna, *VIT, "-T", "zebra", "-q")
    run("explain", savanna, *VIT, "-T", "zebra", "-q", "--method", "heed:positive")
    run("explain", savanna, *VIT, "-T", "zebra", "-q", "--correction", "absolute")
    assert made(tmp_path) == ["savanna.zebra.absolute.png", "savanna.zebra.heed-positive.png", "savanna.zebra.png"]


def test_a_method_without_a_correction_takes_none(run, savanna):
    found = run("explain", savanna, *VIT, "--method", "raw", "--correction", "positive")
    assert (found.code, found.out) == (USAGE, "")
    assert "--method raw takes no --correction" in found.err


def test_methods_that_refuse_for_one_reason_share_a_line():
    refused = {
        "tam:upper": "It reads another. tam takes ViT.", "bi:head": "It reads another. bi takes ViT.",
        "flow:mean": "Moved. 'flow:mean' does not follow tokens; these do: heed.", "odam:a": "None. odam takes DETR.",
    }  # fmt: skip
    assert by_reason(refused) == {
        "It reads another. Each takes ViT.": ["tam:upper", "bi:head"],
        "Moved. 'flow:mean' does not follow tokens; these do: heed.": ["flow:mean"],
        "None. odam takes DETR.": ["odam:a"],
    }


def test_special_tokens_are_shown_when_asked_for(run, savanna):
    plain, special = (
        run("explain", savanna, *VIT, "--json", *more).json["results"][0]["explanations"][0]["streams"][0]["units"]
        for more in ((), ("--special",))
    )
    assert len(special) == len(plain) + 1


@pytest.mark.parametrize("asked", [("--target", "zebra"), ()])
def test_many_pictures_together_are_as_each_alone(run, tmp_path, asked):
    (tmp_path / "photos").mkdir()
    for number, kinds in enumerate((["zebra"], ["cat", "dog"], ["snail"])):
        menagerie.scene(kinds, seed=number).image.save(tmp_path / "photos" / f"{number}.png")
    together, alone = (
        run("explain", "photos", *VIT, *asked, "--json", "--batch", batch).json["results"] for batch in (8, 1)
    )
    assert len(together) == 3
    for one, other in zip(together, alone, strict=True):
        a, b = one["explanations"][0], other["explanations"][0]
        for name in ("answer", "target", "predicted"):
            assert a[name] == b[name]
        assert one["picture"] == other["picture"]
        assert a["value"] == pytest.approx(b["value"], rel=1e-4)
        values = ([unit["value"] for unit in each["streams"][0]["units"]] for each in (a, b))
        assert next(values) == pytest.approx(next(values), abs=1e-4)


def test_a_bar_shows_how_far_it_is_and_keeps_out_of_the_results(run, savanna, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(savanna.read_bytes())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    found = run("explain", "photos", *VIT, "-T", "zebra", "-q")
    assert found.code == 0, found.err
    assert "3/3" in found.err
    assert found.out.count("written: ") == 3


# ---- predict


def test_predict_gives_labels_with_probabilities(run, savanna):
    found = run("predict", savanna, *VIT, "--top", 3, "--json")
    answers = found.json["results"][0]["answers"]
    assert {answers[0]["label"], answers[1]["label"]} == {"zebra", "elephant"}
    assert len(answers) == 3
    assert 1 >= answers[0]["value"] >= answers[1]["value"] >= answers[2]["value"] >= 0
    told = run("predict", savanna, *VIT).out
    assert answers[0]["label"] in told
    assert "%" in told


# ---- compare


def test_compare_has_a_row_for_each_method_and_a_column_for_each_answer(run, savanna, tmp_path):
    asked = ("--target", "zebra", "--target", "elephant", "--methods", "heed,heed:positive")
    found = run("compare", savanna, *VIT, *asked)
    assert (found.code, found.err) == (0, "")
    assert "heed:positive" in found.out
    assert made(tmp_path) == ["savanna.zebra.elephant.compared.png"]
    record = run("compare", savanna, *VIT, *asked, "--json").json
    assert {name: len(row) for name, row in record["results"].items()} == {"heed": 2, "heed:positive": 2}
    assert record["agreement"]["heed"] == pytest.approx([1, 1])
    assert all(-1 <= cosine < 1 for cosine in record["agreement"]["heed:positive"])


def test_compare_all_takes_every_method_and_every_form_of_ours(run, savanna, monkeypatch):
    """Of what is slow only GAE and ODAM are left here; each method's own tests have the rest."""
    for name in set(heedmap.METHODS) - {"heed", "gae", "odam"}:
        monkeypatch.delitem(heedmap.METHODS, name)
    found = run("compare", savanna, *VIT, "-T", "zebra", "--json")
    assert found.code == 0
    ours = {f"heed:{variant}" for variant in heedmap.METHODS["heed"].variants}
    assert {*found.json["results"], *found.json["failed"]} == ours | {"gae:clean", "odam:memory"}
    assert {name.partition(":")[0] for name in found.json["failed"]} == {"heed", "odam"}  # the noise link, and ODAM


def test_compare_says_how_alike_of_what_both_speak_of(run, savanna):
    """ODAM knows the boxes only; its cosine leaves the words out."""
    asked = ("-m", "zoo:lxmert", "--text", "is there a zebra?", "--methods", "heed:positive,odam")
    record = run("compare", savanna, *asked, "--json").json
    ours, odam = (record["results"][name][0]["streams"] for name in ("heed:positive", "odam"))
    boxes = next(each for each in ours if each["stream"] == "visual_feats")
    assert [each["stream"] for each in odam] == ["visual_feats"]
    a, b = (np.array([unit["value"] for unit in each["units"]]) for each in (boxes, odam[0]))
    assert record["agreement"]["odam"] == pytest.approx([a @ b / np.linalg.norm(a) / np.linalg.norm(b)])


def test_compare_says_what_it_left_out_after_the_table_and_in_its_own_words(run, savanna, monkeypatch):
    for name in set(heedmap.METHODS) - {"heed", "odam"}:
        monkeypatch.delitem(heedmap.METHODS, name)
    found = run("compare", savanna, *VIT, "-T", "zebra")
    assert found.code == 0
    noise, odam = found.err.splitlines()
    assert noise.startswith("Left out: heed:positive+noise. ")
    assert "noise=" not in noise
    assert odam.startswith("Left out: odam:memory. ")
    assert "DETR, LXMERT" in odam
    assert run("compare", savanna, *VIT, "-T", "zebra", "--json").err == ""
    asked = run("compare", savanna, *VIT, "-T", "zebra", "--methods", "heed,heed:positive+noise")
    assert asked.code == 1


def test_compare_explains_every_object_of_a_detector_and_says_where_it_is(run, savanna, tmp_path):
    asked = (savanna, "-m", "zoo:detr", "--methods", "heed,heed:positive")
    record = run("compare", *asked, "--json").json
    answers = {name: [(each["answer"], each["box"]) for each in row] for name, row in record["results"].items()}
    assert sorted(name for name, _ in answers["heed"]) == ["elephant", "zebra"]
    assert answers["heed"] == answers["heed:positive"]
    told = run("compare", *asked)
    assert (told.code, told.err) == (0, "")
    first = told.out.splitlines()[:3]
    assert first[0].endswith("the 2 objects it sees (no --target was given)")
    assert {line.split()[0] for line in first[1:]} == {"zebra", "elephant"}
    assert all(" at 0." in line for line in first[1:])
    assert made(tmp_path) == ["savanna.detections.compared.png"]
    unsure = run("compare", *asked, "--threshold", "1")
    assert unsure.out.splitlines()[0].endswith("the object it is surest of (no --target was given)")
    assert "no object is 100% sure" in unsure.line


# ---- what a model is


def test_wiring_prints_the_table_of_the_library(run, savanna):
    assert str(heedmap.load("zoo:vit").wiring(image=savanna)) in run("wiring", savanna, *VIT).out
    plain = run("wiring", *VIT, "--json").json
    assert plain["calls"][0]["seam"]
    assert plain["streams"] == {"pixel_values": 145}
    assert plain["given"] == "a picture of noise, since none was given"
    assert run("wiring", *VIT).out.splitlines()[-1] == f"Tried with {plain['given']}."
    assert run("wiring", savanna, *VIT).out.splitlines()[-1] == f"Tried with {savanna}."


def test_doctor_tells_what_can_be_explained(run):
    found = run("doctor", *VIT, "--json")
    assert found.code == 0
    record = found.json
    assert record["explained"] is True
    assert record["problems"] == []
    assert list(record["streams"]["pixel_values"]["special"]) == ["0"]
    assert record["memory"] > 0
    assert record["methods"]["heed:complete"] == "yes"
    assert sum(record["seams"].values()) == record["calls"] > 0
    assert run("doctor", *VIT).out.splitlines()[-1] == "Its prediction can be explained."


def test_doctor_says_what_it_tried_and_folds_what_is_alike(run, savanna):
    found = run("doctor", "-m", "zoo:detr").out
    assert "tried with  a picture of noise, since none was given" in found
    assert "special: object queries 0 to 15\n" in found
    assert f"tried with  {savanna}" in run("doctor", savanna, *VIT).out
    told = run("doctor", savanna, "-m", "zoo:lxmert").out
    assert f"tried with  {savanna}; the text 'what is this?', since none was given" in told


def test_doctor_says_why_not(run, monkeypatch):
    from heedmap.errors import WiringError

    def refuse(*_, **__):
        raise WiringError("Tokens are mixed.")

    monkeypatch.setattr("heedmap.families.Model.explain", refuse)
    found = run("doctor", *VIT)
    assert found.code == 1
    assert "Tokens are mixed." in found.out
    assert found.out.splitlines()[-1] == "Its prediction cannot be explained."


def test_doctor_says_once_why_nothing_works(run, monkeypatch):
    from heedmap.errors import WiringError

    def refuse(*_, **__):
        raise WiringError("Tokens are mixed.")

    for step in ("explain", "wiring"):
        monkeypatch.setattr(f"heedmap.families.Model.{step}", refuse)
    told = run("doctor", *VIT).out
    assert told.count("Tokens are mixed.") == 1
    assert "attention   not known" in told
    assert "method      heed:complete, heed:positive" in told


# ---- what there is


def test_models_lists_the_zoo(run):
    record = run("models", "--json").json
    assert [each["model"] for each in record["models"]] == [f"zoo:{name}" for name in zoo.names()]
    assert "zoo:vit" in run("models").out


def test_methods_lists_the_table(run):
    assert [each["method"] for each in run("methods", "--json").json["methods"]] == list(heedmap.METHODS)


def test_menagerie_export_writes_scenes(run, tmp_path):
    asked = ("menagerie", "export", "--task", "classification", "--count", 2, "--out", "scenes")
    assert run(*asked, "--json").json["count"] == 2
    assert len(list((tmp_path / "scenes").glob("*/*.png"))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    found = run("menagerie", "export", "--task", "detection", "--count", 1, "--out", "mine")
    assert found.code == 2
    assert "not an earlier export" in found.line


@pytest.mark.parametrize("name", [*COMMANDS, "menagerie", "menagerie export", "evaluate", "evaluate perturbation"])
def test_every_command_helps_with_examples(run, name):
    found = run(*name.split(), "--help")
    assert found.code == 0
    assert "Examples" in Text.from_ansi(found.out).plain


@pytest.mark.parametrize("name", [*COMMANDS, "menagerie export", "evaluate perturbation"])
def test_every_command_can_print_json(run, name):
    assert "--json" in Text.from_ansi(run(*name.split(), "--help").out).plain


def test_version(run):
    assert run("--version").out == f"heedmap {heedmap.__version__}\n"
