"""Figures made anew: on few scenes, but whole; the verdict comes from the numbers; what is there is not made again."""

import json
import re
import warnings

import pytest
import torch
import transformers
from PIL import Image

import heedmap
from heedmap import menagerie
from heedmap.cli import main
from heedmap.guidance import GuideWarning
from heedmap.menagerie import KINDS
from heedmap.reproduce import Setting, figures, make, report
from heedmap.reproduce.attention_and_gradient import guides, removals
from heedmap.reproduce.reports import findings, number
from heedmap.reproduce.worlds import SEEDS, singles

NAMES = list(figures("attention-and-gradient"))
FEW = Setting(scenes=8, few=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every figure on a handful of scenes."""
    out = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(removals, "LEAST", 2)
        return out, {name: make(name, figure, out, FEW) for name, figure in figures("attention-and-gradient").items()}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A classifier of the menagerie that knows nothing."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=96, patch_size=8,
        initializer_range=0.2, id2label=dict(enumerate(KINDS)), label2id={kind: i for i, kind in enumerate(KINDS)},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 96, "width": 96}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for seed in (1, 2):
        menagerie.scene(["dog", "fish"], seed, 120).image.save(folder / f"{seed}.png")
    return tuple(sorted(folder.iterdir()))


def test_every_figure_of_the_paper_that_measures_is_there():
    assert [name.rpartition("-")[2] for name in NAMES] == [str(i) for i in range(3, 14)]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_what_is_claimed_what_was_measured_and_by_which_rule(made, name):
    out, records = made
    record = records[name]
    assert record == json.loads((out / f"{name.rpartition('/')[2]}.json").read_text())
    assert len(record["claim"]) > 40
    assert record["says"]
    assert record["holds"] == all(part["holds"] for part in record["parts"])
    for part in record["parts"]:
        assert part["says"].endswith(".")
        assert part["rule"]
        assert part["measured"]
        for each in part["measured"].values():  # of one or two scenes a part may say nothing
            if each["scenes"] > 1:
                assert each["low"] <= each["mean"] <= each["high"]
            else:
                assert each["low"] is each["high"] is None
                assert (each["mean"] is None) == (each["scenes"] == 0)
    assert {f"figure-{name.rpartition('-')[2]}.{ending}" for ending in ("png", "html")} <= {*record["files"]}
    assert all((out / file).stat().st_size > 1000 for file in record["files"])


def test_one_scene_decides_nothing(made):
    """Figure 9 has a tenth of the scenes for each part: here one."""
    *parts, _ = made[1]["attention-and-gradient/figure-9"]["parts"]
    assert {each["measured"]["balance of the deciding parts"]["scenes"] for each in parts} == {1}
    assert not any(each["holds"] for each in parts)
    assert number(parts[0]["measured"]["balance of the deciding parts"]).count(" ") == 0
    assert number({"mean": None, "low": 1.5, "high": None, "scenes": 3}) == "-"


def test_a_map_without_a_negative_may_tell_two_models_apart_too(made):
    """What it says of a head can only be how much of it lies there: its balance is 1, whatever the model."""
    _, _, part, _ = made[1]["attention-and-gradient/figure-10"]["parts"]
    told = {name.partition(": ")[2]: each["mean"] for name, each in part["measured"].items()}
    assert told["kite, positive (GAE)"] > 0
    assert told["kite, absolute"] > 0


def test_a_guide_that_is_hardly_seen_is_counted_once_a_scene(tmp_path):
    white = str(tmp_path / "white.png")
    Image.new("RGB", (96, 96), "white").save(white)
    name, vit, unseen = "attention-and-gradient/figure-8", heedmap.load("zoo:vit"), 0
    for each in singles(8, SEEDS + 8_000, without=guides.shows(vit, white)):
        with warnings.catch_warnings(record=True) as met:
            warnings.simplefilter("always", GuideWarning)
            vit.explain(each.image, target=each.animals[0].kind, guide=white)
        unseen += any("hardly" in str(one.message) for one in met)
    assert unseen > 5  # those that are shown are explained twice
    note = make(name, figures(name)[name], tmp_path, Setting(scenes=8, guide=white))["note"]
    assert f"hardly saw it beside {unseen} of the 8." in note


def test_scenes_of_the_kind_that_a_photograph_shows_are_left_out_as_of_a_drawn_one(tmp_path):
    menagerie.scene("owl", 3).image.save(tmp_path / "guide.png")
    vit = heedmap.load("zoo:vit")
    assert guides.shows(vit, str(tmp_path / "guide.png")) == "owl"
    assert guides.shows(vit, "menagerie:dog") == "dog"


def test_what_was_made_is_not_made_again_unless_it_would_differ(made):
    out, _ = made

    def never(setting):
        raise AssertionError("made again")

    name = NAMES[0]
    assert make(name, never, out, FEW)["figure"] == name
    with pytest.raises(AssertionError, match="made again"):
        make(name, never, out, Setting(scenes=9, few=2))
    with pytest.raises(AssertionError, match="made again"):
        make(name, never, out, Setting(scenes=8, few=2, guide="menagerie:owl"))


def test_a_figure_cut_short_is_made_again(made, tmp_path):
    (tmp_path / "figure-3.json").write_text('{"figure": "attention-and')
    record = make(NAMES[0], figures(NAMES[0])[NAMES[0]], tmp_path, Setting(scenes=2))
    assert record["holds"] in (True, False)


@pytest.mark.parametrize("figure", ["figure-3", "figure-5", "figure-8", "figure-13"])
@pytest.mark.filterwarnings("ignore::heedmap.guidance.GuideWarning")
def test_of_a_model_that_knows_nothing_the_claims_do_not_hold(figure, untrained, tmp_path):
    name = f"attention-and-gradient/{figure}"
    record = make(name, figures(name)[name], tmp_path, Setting(scenes=24, few=2, model=untrained))
    assert record["holds"] is False


@pytest.mark.filterwarnings("ignore::heedmap.guidance.GuideWarning")
def test_pictures_without_ground_truth_are_shown_and_nothing_is_claimed(untrained, photographs, tmp_path):
    setting = Setting(model=untrained, images=photographs)
    for figure in ("figure-3", "figure-4", "figure-5", "figure-7", "figure-8", "figure-9", "figure-10", "figure-13"):
        name = f"attention-and-gradient/{figure}"
        record = make(name, figures(name)[name], tmp_path, setting)
        assert record["holds"] is None
        assert record["parts"] == []
        assert record["files"] == [f"{figure}.png", f"{figure}.html"]


def test_experiments_take_pictures_too(untrained, photographs, tmp_path):
    setting = Setting(model=untrained, images=photographs)
    own = untrained.rpartition("/")[2]
    for figure, drawings in (("figure-6", ["1-logits", "2-logits"]), ("figure-11", ["1", "2"]), ("figure-12", [own])):
        name = f"attention-and-gradient/{figure}"
        record = make(name, figures(name)[name], tmp_path, setting)
        assert record["holds"] is None
        assert record["files"] == [f"{figure}.png", f"{figure}.html", *(f"{figure}-{each}.png" for each in drawings)]


def test_the_report_has_every_figure_and_fetches_nothing(made):
    out, records = made
    page = report(list(records.values()), out, "All of it")
    for name, record in records.items():
        assert f"id={name.rpartition('/')[2]}" in page
        for part in record["parts"]:
            assert part["says"].split("'")[0] in page.replace("&#x27;", "'")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    pictures = sum(file.endswith(".png") for record in records.values() for file in record["files"])
    assert page.count("data:image/png;base64,") == pictures
    held = sum(record["holds"] for record in records.values())
    assert f"{held} of {len(records)} claims hold whole" in page


def test_the_table_has_a_line_for_every_part(made):
    records = list(made[1].values())
    table = findings(records).splitlines()
    assert len(table) == 2 + sum(len(record["parts"]) for record in records)
    assert all(line.count("|") == 5 for line in table)


def test_the_command_makes_a_figure_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "attention-and-gradient/figure-7", "--scenes", "8"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.search(r"figure-7: (holds|does not hold) \(\d+ s\)", said)
    assert "Open out/reproduce/attention-and-gradient/index.html in a browser." in said
    folder = tmp_path / "out/reproduce/attention-and-gradient"
    before = (folder / "figure-7.json").stat().st_mtime_ns
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["figure"].endswith("figure-7")
    assert (folder / "figure-7.json").stat().st_mtime_ns == before
    assert main(["reproduce", "attention-and-gradient/figure-3", "--scenes", "4"]) == 0
    page = (folder / "index.html").read_text()
    assert "id=figure-3" in page
    assert "id=figure-7" in page


def test_a_slip_is_answered_with_what_was_meant(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "attention-and-gradient/figure5"]) == 2
    assert "Did you mean attention-and-gradient/figure-5?" in capsys.readouterr().err
    assert main(["reproduce", "attention-and-gradient", "--model", "google/vit-base-patch16-224"]) == 2
    assert "Give --images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
