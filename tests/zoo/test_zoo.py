"""Every model of the zoo is what its card says."""

import hashlib
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from heedmap import zoo
from heedmap.errors import InputError

transformers = pytest.importorskip("transformers")
ROOT = Path(__file__).parents[2]

SAMPLE = 200
NEAR = 0.02  # a figure measured again on a sample lies this near to the card's


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def measured(name, scenes):
    return import_module("training.measure").MEASURES[name](zoo.path(name), scenes)


def test_the_names():
    assert zoo.names() == ("vit", "vit-deep", "vit-mislabelled", "detr", "lxmert", "clip")


@pytest.mark.parametrize("name", zoo.names())
def test_a_path_ends_in_the_name(name):
    assert zoo.path(name).name == name
    assert zoo.path(name).parent == Path(zoo.__file__).parent


@pytest.mark.parametrize(("typed", "meant"), [("vit-depe", "vit-deep"), ("DETR", "detr"), ("lxmart", "lxmert")])
def test_a_typing_error_is_answered_with_what_was_meant(typed, meant):
    with pytest.raises(InputError, match=rf"{typed!r}.*Did you mean '{meant}'.*The models are vit, vit-deep"):
        zoo.path(typed)


def test_a_name_unlike_any_is_answered_with_the_list():
    with pytest.raises(InputError, match=r"No model of the zoo is called 'ostrich'\. The models are vit") as error:
        zoo.card("ostrich")
    assert "Did you mean" not in str(error.value)


def test_knowing_the_names_loads_no_model_library():
    code = "import heedmap.zoo, sys; heedmap.zoo.path('vit'); sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", zoo.names())
def test_hashes_equal_the_card(name):
    card, folder = zoo.card(name), zoo.path(name)
    assert card["name"] == name
    files = {file.name for file in folder.iterdir() if file.is_file()} - {"card.json"}
    assert files == set(card["sha256"])
    for file, expected in card["sha256"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == expected, file


@pytest.mark.parametrize("name", zoo.names())
def test_no_held_out_seed_was_trained_on(name):
    seeds = zoo.card(name)["seeds"]
    first, last = seeds["training"]
    assert 1_000_000 <= first <= last
    for low, high in seeds["held out"].values():
        assert 0 <= low <= high < 1_000_000


@pytest.mark.parametrize("name", zoo.names())
def test_plain_transformers_loads_it(name):
    from heedmap import menagerie

    folder = zoo.path(name)
    model = getattr(transformers, zoo.card(name)["class"]).from_pretrained(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    if name in ("vit", "vit-deep", "vit-mislabelled", "detr"):
        assert [model.config.id2label[i] for i in range(len(menagerie.KINDS))] == list(menagerie.KINDS)
        assert model.config.label2id == {kind: i for i, kind in enumerate(menagerie.KINDS)}
    if name == "lxmert":
        assert "zebra" in model.config.label2id
    if (folder / "preprocessor_config.json").exists():
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        pixels = processor(images=menagerie.scene("zebra", 7).image, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 96, 96)
    if name in ("lxmert", "clip"):
        assert transformers.AutoTokenizer.from_pretrained(folder)("a zebra")["input_ids"]


@pytest.mark.parametrize("name", zoo.names())
def test_a_sample_measures_as_the_card_says(name):
    said = zoo.card(name)["measured"]
    for figure, value in measured(name, SAMPLE).items():
        assert abs(value - said[figure]) <= NEAR, figure


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_the_full_figures_are_the_cards(name):
    card = zoo.card(name)
    for figure, value in measured(name, card["scenes"]).items():
        assert value == pytest.approx(card["measured"][figure], abs=0.002), figure


def test_the_table_of_the_docs_is_the_cards():
    assert import_module("training.table").table() in (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
