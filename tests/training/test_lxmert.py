"""The recipe of the question answerer, a few steps of it, on regions that stand in for the detector's."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from heedmap import menagerie
from heedmap.errors import ModelError
from heedmap.menagerie.asking import TYPES, answers, ask, questions
from heedmap.zoo.describing import describe as describe_with_detector
from heedmap.zoo.describing import padded
from heedmap.zoo.regions import Regions, regions

ROOT = Path(__file__).parents[2]
WIDTH = 8


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def lxmert(monkeypatch):
    recipe = import_module("training.lxmert")
    monkeypatch.setattr(recipe, "CHUNK", 16)
    monkeypatch.setattr(recipe, "AT_ONCE", 5)
    return recipe


def describe(pictures):
    """One region for each picture, two for those whose first pixel is even, features that tell pictures apart."""
    found = []
    for picture in pictures:
        n = 1 + (picture.getpixel((0, 0))[0] % 2 == 0)
        shade = torch.tensor(list(picture.resize((1, 1)).getpixel((0, 0)))) / 255
        features = shade.repeat(WIDTH)[:WIDTH].expand(n, -1) + torch.arange(n)[:, None]
        found.append(Regions(torch.full((n, 4), 0.5), torch.zeros(n).long(), torch.ones(n), features))
    return found


@pytest.fixture
def untrained(tmp_path):
    """A folder with an untrained detector."""
    recipe = import_module("training.detr")
    torch.manual_seed(0)
    model = recipe.DetrForObjectDetection(recipe.config()).eval()
    model.save_pretrained(tmp_path / "detr")
    recipe.processor().save_pretrained(tmp_path / "detr")
    return tmp_path / "detr", model


def test_pictures_are_described_by_the_detector_as_its_processor_reads_them(untrained):
    folder, model = untrained
    pictures = [scene.image for scene in menagerie.scenes(3, 0)]
    pixels = torch.stack([torch.tensor(list(picture.tobytes())).view(96, 96, 3) for picture in pictures])
    expected = regions(model, pixels.permute(0, 3, 1, 2) / 127.5 - 1)
    for one, other in zip(describe_with_detector(pictures, folder), expected, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.features, other.features, atol=1e-4, rtol=1e-4)


def test_a_folder_without_a_detector_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"There is no detector at .*nowhere. Train it"):
        describe_with_detector([], tmp_path / "nowhere")


def test_every_word_of_every_question_is_known(lxmert):
    tokenizer = lxmert.tokenizer()
    texts = {question.text for _, question in questions(3000, 0)}
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert len(ids) <= lxmert.LONGEST
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ?", "?") == text


def test_the_bank_holds_regions_and_questions_that_belong_together(lxmert):
    bank = lxmert.gather(40, describe)
    scenes = list(menagerie.scenes(40, lxmert.FIRST))
    found = describe([scene.image for scene in scenes])
    tokenizer = lxmert.tokenizer()
    assert bank.there.sum(1).tolist() == [len(each) for each in found]
    for row in range(0, len(bank), 7):
        scene = scenes[bank.scene[row]]
        text = tokenizer.decode(bank.words[row].long(), skip_special_tokens=True).replace(" ?", "?")
        type = TYPES[bank.type[row]]
        asked = [ask(scene, scene.seed * lxmert.EACH + turn, type) for turn in range(lxmert.EACH)]
        assert (text, answers()[bank.answer[row]]) in [(question.text, question.answer) for question in asked]
    rows = torch.arange(0, len(bank), 11)
    given = bank.inputs(rows)
    wanted = padded([found[bank.scene[row]] for row in rows])
    for name, tensor in wanted.items():
        torch.testing.assert_close(given[name], tensor, atol=1e-3, rtol=0)
    assert (given["attention_mask"].sum(1) == (bank.words[rows] != 0).sum(1)).all()


def test_chunks_that_are_there_are_not_looked_at_again(lxmert, tmp_path):
    looks = []

    def counted(pictures):
        looks.append(len(pictures))
        return describe(pictures)

    first = lxmert.gather(20, counted, tmp_path)
    assert sum(looks) == 20
    again = lxmert.gather(40, counted, tmp_path)
    assert sum(looks) == 20 + 24  # a whole chunk was there, the one cut short is made again
    assert (again.features[:20, : first.features.shape[1]] == first.features).all()


def test_each_step_asks_its_own_questions_of_every_type(lxmert):
    of_type = [torch.arange(type * 1000, type * 1000 + 900) for type in range(len(TYPES))]
    rows, same, other = (lxmert.pick(of_type, number) for number in (3, 3, 4))
    assert (rows == same).all()
    assert not torch.equal(rows, other)
    counts = torch.bincount(rows // 1000).tolist()
    assert sum(counts) == lxmert.BATCH
    assert counts[TYPES.index("both")] > max(counts[TYPES.index(type)] for type in TYPES if type != "both")


def test_a_few_steps_learn_and_what_is_written_loads(lxmert, tmp_path):
    common, answering = import_module("training.common"), import_module("training.answering")
    from transformers import AutoTokenizer, LxmertForQuestionAnswering

    torch.manual_seed(0)
    options = common.Options(threads=1, steps=12, out=tmp_path / "lxmert", state=tmp_path / "state.pt", device="cpu")
    bank = lxmert.gather(32, describe)
    rows = torch.arange(len(bank))

    def loss(model):
        with torch.no_grad():
            return model(**bank.inputs(rows), labels=bank.answer).loss.item()

    before = loss(LxmertForQuestionAnswering(lxmert.config(WIDTH)).eval())
    model, seconds = lxmert.train(bank, options)
    assert seconds > 0
    assert loss(model) < 0.8 * before

    common.write_half(model, options.out)
    lxmert.tokenizer().save_pretrained(options.out)
    loaded = LxmertForQuestionAnswering.from_pretrained(options.out)
    assert loaded.dtype == torch.float32
    assert tuple(loaded.config.id2label[i] for i in range(len(answers()))) == answers()
    text = "is there an owl and a bald eagle?"
    assert AutoTokenizer.from_pretrained(options.out)(text)["input_ids"] == lxmert.tokenizer()(text)["input_ids"]

    figures = answering.measure(options.out, 60, describe)
    assert set(figures) == {"right", *TYPES}
    assert figures["right"] == pytest.approx(sum(figures[type] for type in TYPES) / len(TYPES))


def test_training_goes_on_where_it_was_stopped(lxmert, tmp_path, monkeypatch):
    common = import_module("training.common")
    bank = lxmert.gather(16, describe)

    def weights(state):
        torch.manual_seed(0)
        options = common.Options(threads=1, steps=6, out=tmp_path / "out", state=tmp_path / state, device="cpu")
        return lxmert.train(bank, options)[0].state_dict()

    straight = weights("straight.pt")
    with monkeypatch.context() as patch:
        patch.setattr(common, "SAVE_EVERY", 0.0)
        pick = lxmert.pick

        def stops(of_type, number):
            if number == 3:
                raise KeyboardInterrupt
            return pick(of_type, number)

        patch.setattr(lxmert, "pick", stops)
        with pytest.raises(KeyboardInterrupt):
            weights("stopped.pt")
    assert (tmp_path / "stopped.pt").exists()
    resumed = weights("stopped.pt")
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor)
