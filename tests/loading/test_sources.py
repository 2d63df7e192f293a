"""Where models come from: the zoo, folders, the hub; and what is said when one does not come."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers

import heedmap
from heedmap import logit, zoo
from heedmap.errors import BrokenInstallError, InputError, ModelError
from heedmap.families import loading

PICTURE = torch.zeros(8, 8, 3, dtype=torch.uint8)


def refused(source, match, error=ModelError, **options):
    with pytest.raises(error, match=match) as caught:
        heedmap.load(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_of_the_zoo():
    model = heedmap.load("zoo:vit")
    assert (model.source, model.task) == ("zoo:vit", "image-classification")
    assert model.labels[0] == "zebra"
    assert not model.module.training
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    refused("zoo:vti", r"No model of the zoo is called 'vti'. Did you mean zoo:vit\?", InputError)
    refused("vit", r"There is no folder 'vit'. Did you mean zoo:vit\?")


def test_a_zoo_model_that_is_not_there_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "path", lambda name: tmp_path / name)
    refused("zoo:detr", r"'zoo:detr' is not there: heedmap expected it at .*train it")


def test_precision_and_device(folder):
    model = heedmap.load(folder("vit"), dtype="float64", device="cpu")
    assert {p.dtype for p in model.module.parameters()} == {torch.float64}
    assert model.explain(PICTURE.numpy())["pixel_values"].dtype == torch.float64
    assert heedmap.load(folder("vit"), dtype=torch.bfloat16).module.dtype == torch.bfloat16
    refused(folder("vit"), "dtype is 'int8'", InputError, dtype="int8")
    refused(folder("vit"), "dtype is 'gross'", InputError, dtype="gross")
    refused(folder("vit"), "cannot be moved to 'cuda:77'", InputError, device="cuda:77")
    refused(folder("vit"), "No device is called 'gpu'", InputError, device="gpu")


def test_folders_that_are_no_models(tmp_path, folder):
    refused(str(tmp_path), r"is a folder without config\.json")
    (tmp_path / "file").write_text("x")
    refused(str(tmp_path / "file"), "is a file. heedmap expected the folder")
    refused(str(tmp_path / "nothing"), r"There is no folder .*\(zoo:vit, .*such as google/vit-base-patch16-224")
    refused("./nothing", r"There is no folder './nothing'")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    refused(str(tmp_path / "broken"), "cannot be loaded")


@pytest.mark.parametrize("missing", ["model.safetensors", "preprocessor_config.json"])
def test_folders_that_lack_a_file(tmp_path, folder, missing):
    there = tmp_path / "model"
    shutil.copytree(folder("vit"), there)
    (there / missing).unlink()
    refused(str(there), "cannot be loaded: .*heedmap expected config, weights and processor")


def test_damaged_weights(tmp_path, folder):
    there = tmp_path / "model"
    shutil.copytree(folder("vit"), there)
    (there / "model.safetensors").write_bytes((there / "model.safetensors").read_bytes()[:1000])
    refused(str(there), "cannot be loaded")


def test_a_head_that_was_never_trained_is_refused(folder, tmp_path):
    there = tmp_path / "model"
    shutil.copytree(folder("bert-masked"), there)
    refused(str(there), r"no trained weights for .*they would be random", task="text-classification")
    config = json.loads((there / "config.json").read_text())
    config["architectures"] = ["BertModel"]
    (there / "config.json").write_text(json.dumps(config))
    refused(str(there), r"is a BertModel: what it answers is not known.*Say which with task=")
    refused(str(there), r"task is 'guess'\. heedmap expected one of image-classification", InputError, task="guess")
    assert heedmap.load(str(there), task="fill-mask").task == "fill-mask"


def test_a_task_that_a_model_is_not_made_for_is_refused(folder):
    refused(
        str(folder("vit")),
        "is a ViTForImageClassification, and transformers has no model of that kind for object-detection. Leave task=",
        task="object-detection",
    )


def test_a_letter_for_each_stretch_of_sound_is_explained_as_the_message_says(folder, tmp_path):
    there = tmp_path / "model"
    shutil.copytree(folder("wav2vec2"), there)
    config = json.loads((there / "config.json").read_text())
    config["architectures"] = ["Wav2Vec2ForCTC"]
    (there / "config.json").write_text(json.dumps(config))
    declared = {0: {"reading": "frames", "read": "frames"}}
    refused(str(there), rf"target=logit\(letter, position=stretch\), wiring={re.escape(repr(declared))}\)")
    module = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config.from_pretrained(there)).eval()
    inputs = {"input_values": torch.linspace(-1, 1, 400)[None].sin()}
    e = heedmap.explain(module, inputs, target=logit(3, position=10), wiring=declared)
    assert e["frames"].shape[1] > 10


def test_code_from_elsewhere_is_not_run(folder, tmp_path):
    there = tmp_path / "model"
    shutil.copytree(folder("vit"), there)
    config = json.loads((there / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.OwnConfig"}, "model_type": "own"}
    (there / "config.json").write_text(json.dumps(config))
    (there / "own.py").write_text("raise SystemExit('it was run')")
    refused(str(there), "brings code of its own, which heedmap does not run. If you trust it, load it yourself")


def test_a_class_that_transformers_lacks(folder, tmp_path):
    there = tmp_path / "model"
    shutil.copytree(folder("vit"), there)
    config = json.loads((there / "config.json").read_text())
    config["architectures"] = ["OstrichForImageClassification"]
    (there / "config.json").write_text(json.dumps(config))
    refused(str(there), "a class that transformers .* does not have. Upgrade transformers")


def test_offline_is_said_within_seconds(monkeypatch, tmp_path):
    name = "google/vit-base-patch16-224"
    code = f"import heedmap\ntry: heedmap.load({name!r})\nexcept heedmap.errors.ModelError as e: print(e)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "is not on this machine, and the hub cannot be reached" in run.stdout
    assert "take a model of the zoo, such as zoo:vit" in run.stdout


@pytest.fixture
def hub(monkeypatch):
    """A hub on which everything is missing here, and that answers as it is told."""
    from huggingface_hub import HfApi, errors

    answer = SimpleNamespace(headers={}, request=None)
    kinds = {
        "nobody": errors.RepositoryNotFoundError("404", response=answer),
        "gated": errors.GatedRepoError("403", response=answer),
        "revision": errors.RevisionNotFoundError("404", response=answer),
        "silence": TimeoutError("timed out"),
    }

    def ask(kind):
        def model_info(self, name, **options):
            assert options["timeout"] == loading.PATIENCE
            if kind in kinds:
                raise kinds[kind]

        monkeypatch.setattr(HfApi, "model_info", model_info)

    def lost(*_, **__):
        raise OSError("It looks like the config file is not there.\nCheck out this page.")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lost)
    return ask


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("nobody", r"There is no model 'someone/model': no such folder here, and no such name on the hub"),
        ("gated", r"its makers ask who you are.*`hf auth login`"),
        ("silence", r"the hub cannot be reached \(TimeoutError\)"),
        ("fine", r"cannot be loaded: It looks like the config file is not there\. heedmap expected"),
    ],
)
def test_what_the_hub_says(hub, kind, match):
    hub(kind)
    refused("someone/model", match)


@pytest.mark.parametrize("kind", ["nobody", "silence"])
def test_a_name_that_is_nearly_one_of_the_zoo_s(hub, kind):
    hub(kind)
    refused("vti", r"Did you mean zoo:vit\?")
    refused("detre", r"Did you mean zoo:detr\?")
    assert "Did you mean" not in str(refused("someone/model", "someone/model"))


def test_a_revision_that_is_not_there(hub):
    hub("revision")
    refused("someone/model@old", r"'someone/model' has no revision 'old'")


def test_timm_is_asked_for_by_name(monkeypatch, folder):
    def needs(*_, **__):
        raise ImportError("DetrConvEncoder requires the timm library but it was not found in your environment.\n...")

    monkeypatch.setattr(transformers.DetrForObjectDetection, "from_pretrained", needs)
    refused(folder("detr"), r"needs the package timm: `pip install timm`.*@no_timm")


def test_a_broken_torchvision_is_named(monkeypatch, folder):
    def broken(*_):
        raise BrokenInstallError("torchvision is installed, but importing it fails")

    monkeypatch.setattr(loading, "transformers", broken)
    refused(folder("vit"), "torchvision is installed", BrokenInstallError)


def test_transformers_is_as_talkative_afterwards_as_before(folder):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    heedmap.load(folder("bert"))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("name", ["vit", "clip", "bert"])
def test_nothing_is_printed(name, folder, capfd):
    path = folder(name)
    capfd.readouterr()
    heedmap.load(path)
    assert capfd.readouterr() == ("", "")
