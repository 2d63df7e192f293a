"""What is saved is what is opened: everything, bit for bit, and never a pickle."""

import dataclasses
import io
import json
import pickletools
import struct

import pytest
import torch
from cases import MODELS, explain, inputs_of, shared
from safetensors.torch import save_file

import heedmap
from heedmap import Explanation, errors, logit
from heedmap.records import Moved, State


def assert_same(opened: Explanation, saved: Explanation) -> None:
    for field in dataclasses.fields(Explanation):
        mine, other = getattr(opened, field.name), getattr(saved, field.name)
        if field.name in ("relevance", "starts"):
            assert list(mine) == list(other), field.name
            for stream in other:
                assert mine[stream].dtype == other[stream].dtype, (field.name, stream)
                assert torch.equal(mine[stream], other[stream]), (field.name, stream)
        elif isinstance(other, torch.Tensor):
            assert mine.dtype == other.dtype
            assert torch.equal(mine, other)
        else:
            assert mine == other, field.name
            assert type(mine) is type(other), field.name


def header(path) -> dict:
    """The metadata of a safetensors file, read by hand: eight bytes of length, then json."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


def rewritten(path, **changes: str):
    """The same file with other metadata; None leaves a key out."""
    e = heedmap.open(path)
    metadata = {key: value for key, value in (header(path) | changes).items() if value is not None}
    tensors = {"value": e.value}
    for number, stream in enumerate(e.streams):
        tensors |= {f"relevance.{number}": e[stream].clone(), f"start.{number}": e.starts[stream].clone()}
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("correction", ["complete", "positive"])
def test_what_is_saved_is_what_is_opened(name, correction, tmp_path):
    e = explain(shared(name), name, 3, correction=correction)
    path = tmp_path / "x.heed"
    e.save(path)
    opened = heedmap.open(path)
    assert_same(opened, e)
    assert opened.streams == e.streams
    assert str(opened.wiring) == str(e.wiring)
    assert repr(opened) == repr(e)
    for stream in e.streams:
        assert torch.equal(opened.row(stream), e.row(stream))
        assert torch.equal(opened.normalized()[stream], e.normalized()[stream])


def test_a_path_may_be_text(tmp_path):
    e = explain(shared("vit"), "vit")
    e.save(str(tmp_path / "x.heed"))
    assert_same(heedmap.open(str(tmp_path / "x.heed")), e)


def test_what_was_predicted_is_kept(tmp_path):
    e = heedmap.explain(shared("vit"), inputs_of("vit", 3))
    assert e.predicted is not None
    assert len(e.predicted) == 3
    e.save(tmp_path / "x.heed")
    assert_same(heedmap.open(tmp_path / "x.heed"), e)


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"image": "savanna.png", "note": "Zebra – links, 斑马\n"}},
        {"target": "logit('Zèbre') - logit(3)"},
        {"predicted": ("zebra", 3, "斑马")},
        {"predicted": ()},
        {"value": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)},
        {"relevance": {"a/b.c+d": torch.eye(3)[:, ::2]}, "starts": {"a/b.c+d": torch.zeros(2, 3).T}},
        {"relevance": {"x": torch.ones(2, 3, requires_grad=True)}, "starts": {"x": torch.zeros(2, 3)}},
        {"relevance": {"x": torch.full((1, 2), float("nan")).nan_to_num(-0.0)}, "starts": {"x": torch.zeros(1, 2)}},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_odd_contents_are_kept(changes, tmp_path):
    e = dataclasses.replace(explain(shared("vit"), "vit"), **changes)
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed")
    assert_same(opened, e)
    assert not any(tensor.requires_grad for tensor in opened.relevance.values())


def test_streams_that_share_memory_are_kept(tmp_path):
    one = torch.randn(2, 4)
    e = dataclasses.replace(
        explain(shared("vit"), "vit"), relevance={"x": one, "y": one}, starts={"x": one, "y": one[:, :]}
    )
    e.save(tmp_path / "x.heed")
    assert_same(heedmap.open(tmp_path / "x.heed"), e)


def test_the_kind_of_method_is_kept(tmp_path):
    e = heedmap.explain(shared("t5"), inputs_of("t5", 1), logit(3, position=1), method="heed:positive+noise")
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed")
    assert (opened.method, opened.correction) == (e.method, e.correction)
    assert opened.correction == "positive"


def test_a_noise_link_can_be_told_from_none():
    inputs, target = inputs_of("t5", 1), 20 * logit(3, position=1)
    plain = heedmap.explain(shared("t5"), inputs, target, method="heed:positive")
    noised = heedmap.explain(shared("t5"), inputs, target, method="heed:positive+noise")
    assert not all(torch.equal(plain[stream], noised[stream]) for stream in plain.streams)
    told = ("method", "correction", "metadata", "readout")
    assert any(getattr(plain, name) != getattr(noised, name) for name in told)


def test_a_second_save_replaces_the_first(tmp_path):
    path = tmp_path / "x.heed"
    explain(shared("vit"), "vit", 3).save(path)
    e = explain(shared("bert"), "bert", 1)
    e.save(path)
    assert_same(heedmap.open(path), e)


def test_an_opened_explanation_stands_without_its_file(tmp_path):
    path = tmp_path / "x.heed"
    e = explain(shared("vit"), "vit")
    e.save(path)
    opened = heedmap.open(path)
    path.unlink()
    opened.save(path)
    assert_same(heedmap.open(path), e)


# ------------------------------------------------------------------------------------------- the format


def test_the_file_is_tensors_and_json(tmp_path):
    path = tmp_path / "x.heed"
    explain(shared("vit"), "vit").save(path)
    metadata = header(path)
    assert metadata["format"] == "heedmap explanation"
    assert metadata["version"] == "4"
    assert json.loads(metadata["explanation"])["streams"] == ["pixel_values"]
    with pytest.raises(ValueError, match=r"opcode|pickle"):
        pickletools.dis(path.read_bytes(), out=io.StringIO())


def test_pixels_and_what_a_method_is_silent_of_are_kept(tmp_path):
    e = explain(shared("vit"), "vit")
    silent = e["pixel_values"].clone()
    silent[:, 0] = float("nan")
    e = dataclasses.replace(e, relevance={"pixel_values": silent}, pixels=torch.randn(len(silent), 4, 5))
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed")
    assert torch.equal(opened.pixels, e.pixels)
    assert torch.equal(opened["pixel_values"].isnan(), silent.isnan())
    largest = opened.normalized()["pixel_values"].abs().nan_to_num().amax(-1)
    assert largest.tolist() == [1.0] * len(silent)


def test_opening_never_unpickles(tmp_path, monkeypatch):
    import pickle

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    path = tmp_path / "x.heed"
    explain(shared("vit"), "vit").save(path)
    pickled = tmp_path / "pickled.heed"
    pickled.write_bytes(pickle.dumps({"format": "heedmap explanation"}))
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    heedmap.open(path)
    with pytest.raises(errors.FileFormatError):
        heedmap.open(pickled)


def test_a_rewritten_file_opens(tmp_path):
    """The tests below change one thing of a file that opens."""
    e = explain(shared("vit"), "vit")
    e.save(tmp_path / "x.heed")
    assert_same(heedmap.open(rewritten(tmp_path / "x.heed")), e)


def test_a_later_version_says_to_upgrade(tmp_path):
    explain(shared("vit"), "vit").save(tmp_path / "x.heed")
    rewritten(tmp_path / "x.heed", version="5", explanation='{"something": "else"}')
    with pytest.raises(errors.FileFormatError, match=r"format version 5; this heedmap reads up to 4. Upgrade heedmap"):
        heedmap.open(tmp_path / "x.heed")


MOVED = {"words (moved)": Moved(3, "reading", (State("patches", 2), State("words")))}


def test_which_streams_begin_with_moved_tokens_is_kept(tmp_path):
    e = explain(shared("vit"), "vit")
    tokens = {**e.wiring.tokens, "words (moved)": 7}
    e = dataclasses.replace(e, wiring=dataclasses.replace(e.wiring, tokens=tokens, moved=MOVED))
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed")
    assert opened.wiring.moved == MOVED
    assert opened.wiring.entered == e.wiring.entered == explain(shared("vit"), "vit").wiring.tokens


def test_a_file_of_before_tokens_were_followed_opens(tmp_path):
    e = explain(shared("vit"), "vit")
    e.save(tmp_path / "x.heed")
    told = json.loads(header(tmp_path / "x.heed")["explanation"])
    del told["moved"]
    rewritten(tmp_path / "x.heed", version="3", explanation=json.dumps(told))
    assert_same(heedmap.open(tmp_path / "x.heed"), e)
    assert heedmap.open(tmp_path / "x.heed").wiring.moved == {}


@pytest.mark.parametrize("changes", [{"format": None}, {"format": "another"}], ids=str)
def test_a_foreign_file_is_refused(changes, tmp_path):
    explain(shared("vit"), "vit").save(tmp_path / "x.heed")
    rewritten(tmp_path / "x.heed", **changes)
    with pytest.raises(errors.FileFormatError, match="not an explanation that heedmap saved"):
        heedmap.open(tmp_path / "x.heed")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None},
        {"version": "one"},
        {"explanation": None},
        {"explanation": "{"},
        {"explanation": "{}"},
        {"explanation": '{"streams": ["pixel_values", "another"]}'},
        {"moved": ["words"]},
        {"moved": {"words": {"call": 3, "end": "reading"}}},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused(changes, tmp_path):
    explain(shared("vit"), "vit").save(tmp_path / "x.heed")
    if "moved" in changes:
        told = json.loads(header(tmp_path / "x.heed")["explanation"])
        changes = {"explanation": json.dumps({**told, **changes})}
    rewritten(tmp_path / "x.heed", **changes)
    with pytest.raises(errors.FileFormatError):
        heedmap.open(tmp_path / "x.heed")


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "x.heed"
    explain(shared("vit"), "vit").save(path)
    data = path.read_bytes()
    for length in (4, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(errors.FileFormatError, match=r"x\.heed"):
            heedmap.open(path)


def test_a_folder_is_refused(tmp_path):
    folder = tmp_path / "x.heed"
    folder.mkdir()
    with pytest.raises(errors.FileFormatError, match="There is no file"):
        heedmap.open(folder)


def test_a_refused_save_writes_nothing(tmp_path):
    with pytest.raises(errors.InputError):
        explain(shared("vit"), "vit").save(tmp_path / "x.png.old")
    assert list(tmp_path.iterdir()) == []
