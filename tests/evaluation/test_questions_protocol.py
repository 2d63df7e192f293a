"""Questions while regions or words are removed: against the same done by hand, one question and one step at a time."""

import base64
import json

import numpy as np
import pytest
import torch
from transformers.models.lxmert import modeling_lxmert as lxmert

import heedmap
from heedmap.errors import InputError
from heedmap.evaluation import asked, stores
from heedmap.evaluation.panels import panels
from heedmap.evaluation.questions import RULE, check_model, removal
from heedmap.evaluation.removing import STEPS, answers, keeps, logits, shortened, unread
from heedmap.menagerie.__main__ import detected
from heedmap.menagerie.export import export

SEED, COUNT = 651_000, 10
METHODS = ("heed:positive", "gae", "odam", "random")
PANELS = [(modality, order) for modality in ("image", "text") for order in ("positive", "negative")]


@pytest.fixture(scope="module")
def model():
    return heedmap.load("zoo:lxmert")


@pytest.fixture(scope="module")
def drawn():
    questions, pictures = asked.drawn(COUNT, SEED)
    return questions, stores.Described(pictures)


@pytest.fixture(scope="module")
def result(model, drawn):
    return removal(model, *drawn, METHODS, seed=3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export("questions", COUNT, SEED, tmp_path_factory.mktemp("asked") / "q", features=detected())


def scores(found):
    return {(one.method, one.modality, one.order): one.scores.tolist() for one in found.curves}


# ---- how many stay, and what answers are worth


@pytest.mark.parametrize(
    ("units", "stay"),
    [
        (36, [36, 27, 18, 9, 7, 5, 3, 1, 0]),
        (5, [5, 3, 2, 1, 0, 0, 0, 0, 0]),
        (20, [20, 15, 10, 5, 3, 3, 1, 1, 0]),
        (1, [1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (0, [0] * 9),
    ],
)
def test_how_many_stay(units, stay):
    assert keeps(units) == stay


def test_what_answers_are_worth():
    said = ["yes"] * 4 + ["no"] * 3 + ["maybe"] * 2 + ["Yes!"]
    found = asked.worth(said)
    assert found == pytest.approx({"yes": 1.0, "no": 0.9, "maybe": 0.6})
    # The rule itself: whoever is left out, a third for each of the others who said the same, at most one.
    plain = [asked.plain(one) for one in said]
    for answer, value in found.items():
        others = [plain[:i] + plain[i + 1 :] for i in range(10)]
        assert value == pytest.approx(np.mean([min(nine.count(answer) / 3, 1) for nine in others]))
    assert asked.worth(["red"] + ["blue"] * 9) == pytest.approx({"red": 0.3, "blue": 1.0})


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("Two dogs", "2 dogs"),
        ("the t-shirt", "t shirt"),
        ("don't know.", "dont know"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("none", "0"),
        ("yes, a cat", "yes cat"),
    ],
)
def test_how_answers_are_compared(answer, plain):
    assert asked.plain(answer) == plain


# ---- the protocol, by hand


def tolerant(self, hidden_states, context, attention_mask=None, output_attentions=False):
    """LXMERT's attention with the number of heads written out, so that nothing may also be read."""

    def split(x):
        return x.reshape(*x.shape[:-1], self.num_attention_heads, self.attention_head_size).transpose(1, 2)

    q, k, v = split(self.query(hidden_states)), split(self.key(context)), split(self.value(context))
    weights = (q @ k.mT / self.attention_head_size**0.5).softmax(-1)
    return ((weights @ v).transpose(1, 2).flatten(2),)


def by_hand(model, one, given, kept, monkeypatch):
    """The logits of one question alone with some of its regions (indices) and some of its tokens, without any mask."""
    ids = model.processor.text(one.text)["input_ids"]
    regions, tokens = kept
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(lxmert.LxmertAttention, "forward", tolerant)
        output = model.module(
            input_ids=torch.tensor([[ids[i] for i in tokens]]),
            visual_feats=torch.from_numpy(given.features[regions])[None],
            visual_pos=torch.from_numpy(given.boxes[regions])[None],
        )
    return output.question_answering_score[0]


def test_the_batched_protocol_is_the_one_done_by_hand(model, drawn, result, monkeypatch):
    questions, store = drawn
    for place in (0, 1, 2, 3):
        one, given = questions[place], store.read([questions[place].picture])[0]
        last = len(model.processor.text(one.text)["input_ids"]) - 1
        everything = {"image": list(range(len(given.boxes))), "text": list(range(1, last))}
        for name in ("heed:positive", "gae"):
            inputs, _ = model.inputs(np.zeros((8, 8, 3), np.uint8), one.text, regions=given)
            explained = heedmap.explain(model.module, inputs, method=name)
            streams = {"image": explained["visual_feats"][0], "text": explained["input_ids"][0]}
            for modality, order in PANELS:
                ranked = sorted(everything[modality], key=lambda i: float(streams[modality][i]))  # least relevant first
                worth = []
                for fraction in STEPS:
                    count = int((1 - fraction) * len(ranked))
                    stays = ranked[:count] if order == "positive" else ranked[len(ranked) - count :]
                    regions = sorted(stays) if modality == "image" else everything["image"]
                    tokens = [0, *sorted(stays if modality == "text" else everything["text"]), last]
                    best = int(by_hand(model, one, given, (regions, tokens), monkeypatch).argmax())
                    worth.append(one.worth.get(model.labels[best], 0.0))
                assert result.curve(name, modality, order).scores[place].tolist() == worth


def test_padding_and_masks_change_nothing_and_no_region_reads_as_none(model, drawn, monkeypatch):
    from heedmap.evaluation.questions import Removing

    questions, store = drawn
    several = list(enumerate(questions[:4]))
    removing = Removing(model, store, ("random",), ("image", "text"), ("positive",), "answer", 0, ())
    [(_, parts)] = removing.fed(several, {})
    wanted = []
    for i in range(4):
        wanted += [parts.kept(i, "image", chosen) for chosen in ((), (0,), range(parts.regions[i]))]
        wanted += [parts.kept(i, "text", chosen) for chosen in ((), (2,), (1, 3))]
    hooks = [len(each._forward_hooks) for each in model.module.modules()]
    with torch.no_grad(), unread(model.module):
        found = logits(model.module(**shortened(parts.inputs, wanted)))
    assert [len(each._forward_hooks) for each in model.module.modules()] == hooks
    with torch.no_grad():
        masked = logits(model.module(**shortened(parts.inputs, wanted)))
    for kept, row, unlike in zip(wanted, found, masked, strict=True):
        example, regions, tokens = kept
        given = store.read([questions[example].picture])[0]
        alone = by_hand(model, questions[example], given, (list(regions), tokens), monkeypatch)
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-4)
        assert (not regions) == bool((unlike - alone).abs().max() > 0.1)  # a mask alone reads the mean of what is there
    assert answers(model.module, parts, wanted) == dict(zip(wanted, found.argmax(-1).tolist(), strict=True))


def test_chance_is_a_questions_own(model, drawn, result):
    assert scores(removal(model, *drawn, METHODS, seed=3, batch=3)) == scores(result)
    alone = removal(model, *drawn, ["random"], ["text"], ["negative"], seed=3)
    assert scores(alone)["random", "text", "negative"] == scores(result)["random", "text", "negative"]
    assert scores(removal(model, *drawn, METHODS, seed=4)) != scores(result)


def test_what_is_told(model, drawn, result):
    assert result.silent == {"odam": ("text",)}
    assert {one.method for one in result.panel("text", "positive")} == {"heed:positive", "gae", "random"}
    one = result.curve("gae", "image", "positive")
    heights, widths = one.scores.mean(0), np.diff(STEPS)
    assert one.auc.value == pytest.approx(100 * np.sum((heights[1:] + heights[:-1]) / 2 * widths))
    gap = result.difference("heed:positive", "gae", "text", "negative")
    curves = [result.curve(name, "text", "negative") for name in ("heed:positive", "gae")]
    assert gap.value == pytest.approx(curves[0].auc.value - curves[1].auc.value)
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert (record["questions"], record["rule"], record["silent"]) == (COUNT, RULE, {"odam": ["text"]})
    assert len(record["curves"]) == 14
    assert len(record["differences"]) == 2 * 6 + 2 * 3
    assert panels(result, 300, 240).size == (600, 480)
    with pytest.raises(InputError, match=r"no curve of 'odam' for 'text'"):
        result.curve("odam", "text", "positive")
    with pytest.raises(InputError, match=r"odam says nothing of text"):
        removal(model, *drawn, ["odam"], ["text"])


# ---- files


def test_an_exported_folder_gives_the_same_numbers(model, exported, result):
    questions, unanswered = asked.read(exported / "questions.json", exported / "annotations.json")
    assert unanswered == 0
    for store in (stores.store(exported / "features.npz"), stores.Described(stores.folder(exported / "images"))):
        assert scores(removal(model, questions, store, METHODS, seed=3)) == scores(result)


def test_other_files_give_the_same_numbers(model, exported, result, tmp_path):
    """LXMERT's own list of questions, and a bottom-up-attention file whose rows stand in another order."""
    questions, _ = asked.read(exported / "questions.json", exported / "annotations.json")
    names = [f"COCO_val2014_{int(one.picture):012}" for one in questions]
    items = [
        {"img_id": name, "sent": one.text, "question_id": i, "label": dict(one.worth)}
        for i, (name, one) in enumerate(zip(names, questions, strict=True))
    ]
    (tmp_path / "valid.json").write_text(json.dumps([*items, {**items[0], "label": {}}]))
    held = stores.store(exported / "features.npz")
    rows = []
    for one in reversed(questions):
        given = held.read([one.picture])[0]
        packed = [base64.b64encode(each.tobytes()).decode() for each in (given.boxes * 96, given.features)]
        rows.append("\t".join([str(int(one.picture)), "96", "96", str(len(given.boxes)), *packed]))
    (tmp_path / "regions.tsv").write_text("\n".join(rows) + "\n")
    found, unanswered = asked.read(tmp_path / "valid.json")
    assert unanswered == 1
    store = stores.store(tmp_path / "regions.tsv")
    assert scores(removal(model, found, store, METHODS, seed=3)) == scores(result)
    damaged = rows[0].rpartition("\t")[0] + "\tAAAA"
    (tmp_path / "regions.tsv").write_text("\n".join([damaged, *rows[1:]]))
    skipping = removal(model, found, stores.store(tmp_path / "regions.tsv"), ["random"])
    assert (skipping.questions, list(skipping.skipped)) == (COUNT - 1, [f"question {COUNT - 1}"])
    assert "damaged row" in skipping.skipped[f"question {COUNT - 1}"]


def test_what_a_models_answers_are_called(tmp_path):
    (tmp_path / "answers.txt").write_text("no\nyes\n")
    assert asked.labels((), 2, None, tmp_path / "questions.json") == ("no", "yes")
    assert asked.labels(("a", "b"), 2, None, tmp_path / "questions.json") == ("a", "b")
    (tmp_path / "other.json").write_text('["x", "y", "z"]')
    with pytest.raises(InputError, match=r"names 3 answers, and the model chooses among 2"):
        asked.labels((), 2, tmp_path / "other.json", None)
    with pytest.raises(InputError, match=r"does not say what its answers are called"):
        asked.labels((), 2, None, None)


def test_some_of_the_questions_are_drawn_by_chance(drawn):
    questions, _ = drawn
    few = asked.some(questions, 4, seed=1)
    assert [one.name for one in few] == [one.name for one in questions if one in few]
    assert len(few) == 4
    assert [one.name for one in few] != [one.name for one in asked.some(questions, 4, seed=2)]


@pytest.mark.parametrize(
    ("questions", "annotations", "said"),
    [
        ("{", None, "cannot be read as JSON"),
        ('{"images": []}', None, "the names images"),
        ('{"questions": []}', None, "has questions alone"),
        ("[]", '{"annotations": []}', "Leave the annotations out"),
        ('[{"sent": "x"}]', None, "expected sent, img_id in each"),
        ('[{"sent": "x", "img_id": 1, "label": {}}]', None, "None of the 1 questions"),
        ('{"questions": [{"question": "x", "question_id": 1, "image_id": 1}]}', '{"annotations": []}', "has an answer"),
        ('{"questions": []}', '{"annotations": [{"question_id": 1, "answers": ["a"]}]}', "more than 3 people"),
        ('{"questions": []}', '{"annotations": [{"question_id": 1, "answers": null}]}', "not words alone"),
        ('{"questions": []}', '{"annotations": [{"question_id": 1, "answers": [1, 2, 3, 4]}]}', "not words alone"),
        (
            '{"questions": [{"question": null, "question_id": 1, "image_id": 1}]}',
            '{"annotations": []}',
            "the question None",
        ),
        ('[{"sent": " ", "img_id": 1, "label": {"yes": 1}}]', None, "the question ' '"),
        ('[{"sent": "x", "img_id": 1, "label": {"yes": null}}]', None, "answers with their worth"),
        ('{"questions": []}', '{"images": []}', "VQA v2's {'annotations'"),
    ],
)
def test_files_that_are_something_else(tmp_path, questions, annotations, said):
    (tmp_path / "q.json").write_text(questions)
    if annotations is not None:
        (tmp_path / "a.json").write_text(annotations)
    with pytest.raises(InputError) as error:
        asked.read(tmp_path / "q.json", tmp_path / "a.json" if annotations is not None else None)
    assert said in str(error.value)


def test_regions_that_cannot_be_used(tmp_path, exported):
    (tmp_path / "x.tsv").write_text("a\tb\n")
    (tmp_path / "twins.tsv").write_text("\n".join(f"{name}\t1\t1\t1\tAA\tAA" for name in ("a_1", "b_1")))
    (tmp_path / "x.bin").write_text("")
    np.savez(tmp_path / "bare.npz", boxes=np.zeros((1, 4)))
    held = dict(np.load(exported / "features.npz"))
    np.savez(tmp_path / "pixels.npz", **{**held, "boxes": held["boxes"] * 96})
    two = np.array(["cat_1", "dog_1"])
    np.savez(tmp_path / "merged.npz", image_id=two, boxes=np.zeros((2, 4)), features=np.zeros((2, 8)))
    for name, said in (
        ("x.tsv", "row of 2 columns"),
        ("twins.tsv", "which is picture 1 is open"),
        ("x.bin", "reads regions from"),
        ("bare.npz", "expected image_id, boxes and features"),
        ("pixels.npz", "boxes in pixels"),
        ("merged.npz", "'cat_1' and 'dog_1', and which is picture 1 is open"),
        ("missing.npz", "no file of regions"),
    ):
        with pytest.raises(InputError, match=said):
            stores.store(tmp_path / name)


def test_pictures_that_a_question_could_both_mean_are_refused(tmp_path):
    for name in ("cat_1.png", "dog_1.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="'cat_1' and 'dog_1', and which is picture 1 is open"):
        stores.folder(tmp_path)


def test_a_share_of_the_picture_may_be_over_one_by_rounding(tmp_path):
    boxes = np.array([[0, 0, 1 + 1e-6, 1], [0.25, 0, 0.5, 0.5]], np.float32)
    np.savez(tmp_path / "x.npz", image_id=np.array([7, 7]), boxes=boxes, features=np.zeros((2, 8)))
    (given,) = stores.store(tmp_path / "x.npz").read(["7"])
    assert given.boxes.tolist() == [[0, 0, 1, 1], [0.25, 0, 0.5, 0.5]]


def test_of_two_ways_to_write_an_answer_the_better_counts(tmp_path):
    items = [{"sent": "x", "img_id": picture, "label": {"0": 0.9, "none": 0.3}} for picture in (1, 2)]
    (tmp_path / "q.json").write_text(json.dumps(items))
    found, _ = asked.read(tmp_path / "q.json")
    assert found[0].worth == {"0": 0.9}
    assert found[0].name != found[1].name  # each is told by itself where it cannot be asked


def test_models_of_another_make_are_refused(folder):
    with pytest.raises(InputError, match=r"is a visual_bert, which reads regions in the stream of the words"):
        check_model(heedmap.load(folder("visual-bert")))
    with pytest.raises(InputError, match=r"expected a model that answers questions"):
        check_model(heedmap.load("zoo:vit"))
