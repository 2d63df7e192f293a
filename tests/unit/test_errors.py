"""Every mistake a user can make is met by its own exception, and its message is read: met, expected, do this."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from builders import OneHead, settle
from cases import fresh, inputs_of, shared
from safetensors.torch import save_file
from torch import nn

import heedmap
from heedmap import Readout, errors, logit

X = "pixel_values"


class Case(NamedTuple):
    """A mistake, the exception it meets, and what its message says, in this order."""

    mistake: str
    error: type[Exception]
    make: Callable[[], object]
    says: tuple[str, ...]


def vit(target=0, **options):
    return heedmap.explain(shared("vit"), inputs_of("vit", 3), target, **options)


def by_hand(target=0, **options):
    return heedmap.explain(shared("hand-one-head"), inputs_of("hand-one-head", 3), target, **options)


def named() -> nn.Module:
    """A ViT whose classes have names."""
    from builders import vit as build

    model = build().eval()
    model.config.id2label = dict(enumerate(["cat", "dog", "horse", "zebra", "okapi"]))
    model.config.label2id = {label: index for index, label in model.config.id2label.items()}
    return model


# ------------------------------------------------------------------------------------------- models


class Written(OneHead):
    """Attention by hand, and something done to the tokens between its calls."""

    def __init__(self, between: Callable = lambda x: x, under: Callable = torch.enable_grad):
        super().__init__()
        self.between, self.under = between, under
        settle(self.eval())

    def forward(self, x):
        for number, (qkv, mlp) in enumerate(self.layers):
            with self.under() if number == 1 else torch.enable_grad():
                q, k, v = qkv(x).chunk(3, dim=-1)
                x = x + (q @ k.transpose(1, 2) / 8**0.5).softmax(dim=-1) @ v
            x = self.between(x + torch.tanh(mlp(x)))
        return self.head(x[:, 0])


class TwoDepths(Written):
    """It answers from its first layer and from its last."""

    def __init__(self):
        super().__init__(between=self.keep)

    def keep(self, x):
        self.kept.append(x)
        return x

    def forward(self, x):
        self.kept = []
        return super().forward(x) + self.head(self.kept.pop(0)[:, 1])


class Spliced(Written):
    """Tokens of one input are put among those of another, after they have been read."""

    def forward(self, x, words):
        (qkv, _), *_ = self.layers
        q, k, v = qkv(x).chunk(3, dim=-1)
        x = torch.cat([x + (q @ k.transpose(1, 2)).softmax(dim=-1) @ v, words], dim=1)
        q, k, v = qkv(x).chunk(3, dim=-1)
        return self.head((x + (q @ k.transpose(1, 2)).softmax(dim=-1) @ v)[:, 0])


def scripted() -> nn.Module:
    import warnings

    model = nn.Sequential(shared("hand-one-head"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is on its way out of torch
        model.append(torch.jit.script(nn.Tanh()))
    return model


def cached() -> object:
    """A second step of generation, with what the first one left in the cache."""
    model = shared("gpt2")
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    return heedmap.explain(model, {"input_ids": ids[:, -1:], "past_key_values": cache}, logit(3))


x = inputs_of("hand-one-head", 3)["x"]

MODELS = [
    Case(
        "a model without attention",
        errors.NoAttentionError,
        lambda: heedmap.explain(nn.Linear(8, 5), torch.ones(1, 8)),
        ("No attention was met in Linear", "heedmap sees scaled_dot_product_attention", "Explain a model that attends"),
    ),
    Case(
        "a softmax that weighs nothing",
        errors.NoAttentionError,
        lambda: heedmap.explain(nn.Sequential(nn.Linear(8, 5), nn.Softmax(dim=-1)), torch.ones(1, 8)),
        ("No attention was met in Sequential", "A softmax was met in 1, but its result weighs nothing", "Explain"),
    ),
    Case(
        "training mode",
        errors.NotEvalError,
        lambda: heedmap.explain(nn.Sequential(nn.Dropout(0.5), shared("hand-one-head")), x),
        ("In 0, dropout is active", "expected eval mode", r"call model\.eval\(\)"),
    ),
    Case(
        "a scripted part",
        errors.UnsupportedError,
        lambda: heedmap.explain(scripted(), x),
        ("1 is a scripted module", "cannot be seen", "Explain the model it was scripted from"),
    ),
    Case(
        "a cache that is not empty",
        errors.UnsupportedError,
        cached,
        ("`past_key_values` holds 3 tokens", "expected the whole sequence", "leave the cache out and pass all tokens"),
    ),
    Case(
        "not a module",
        errors.InputError,
        lambda: heedmap.explain(lambda x: x, x),
        ("The model is a function", r"expected a torch\.nn\.Module"),
    ),
    Case(
        "not a module, asked for its wiring",
        errors.InputError,
        lambda: heedmap.wiring(lambda x: x, x),
        ("The model is a function", r"expected a torch\.nn\.Module"),
    ),
]

# ------------------------------------------------------------------------------------------- inputs

INPUTS = [
    Case(
        f"inputs that are {given!r}",
        errors.InputError,
        lambda given=given: heedmap.explain(shared("vit"), given),
        (f"The inputs are a {type(given).__name__}", "expected a mapping of keywords", "a tensor, or a tuple"),
    )
    for given in (None, "savanna.png", 3)
] + [
    Case(
        "a mapping that is not of keywords",
        errors.InputError,
        lambda: heedmap.explain(shared("vit"), {0: torch.ones(1)}),
        ("passed as keywords", r"its keys are \[0\], not all strings"),
    ),
    Case(
        "batches that disagree",
        errors.WindowsError,
        lambda: heedmap.explain(shared("nn-encoder"), inputs_of("nn-encoder", 3), lambda output: output[:2, 0]),
        ("attends over a batch of 3, the target gives 2 numbers", "expected one number per example"),
    ),
    Case(
        "groups that are no examples",
        errors.InputError,
        lambda: by_hand(lambda output: output[:2, 0]),
        ("attends in 3 groups, but the target gives 2 numbers", "expected one number per example"),
    ),
    Case(
        "numbers that read one another's examples",
        errors.InputError,
        lambda: heedmap.explain(fresh("vit"), inputs_of("vit", 3), lambda output: output.logits[[1, 0, 2], 0]),
        ("3 numbers read one another's examples", "expected each number to read its own", "one number at a time"),
    ),
]

# ------------------------------------------------------------------------------------------- targets

ONE_EACH = r"Expected one finite number per example"
TARGETS = [
    Case("not a tensor", errors.TargetError, lambda: vit(lambda o: 3.0), ("gave a float", ONE_EACH, "return a tensor")),
    Case(
        "a number for each class",
        errors.TargetError,
        lambda: vit(lambda o: o.logits),
        (r"gave a tensor of shape \(3, 5\)", ONE_EACH, r"choose one number of each example, as \[:, 3\]"),
    ),
    Case(
        "numbers that have no gradient",
        errors.TargetError,
        lambda: vit(lambda o: o.logits.argmax(1)),
        (r"gave numbers of torch\.int64", ONE_EACH, "return real floating numbers"),
    ),
    Case(
        "not a number",
        errors.TargetError,
        lambda: vit(lambda o: o.logits[:, 0] / 0 * 0),
        ("is nan in example 0", ONE_EACH, "look for NaN or infinity"),
    ),
    Case(
        "no target at all",
        errors.TargetError,
        lambda: vit({3}),
        (r"\{3\} is not a target", "Expected an index, a label, a list", "pass a callable"),
    ),
    Case(
        "a list of targets",
        errors.TargetError,
        lambda: vit([logit(1), logit(2), logit(3)]),
        ("is a list of targets", "Expected one target", r"call heedmap\.explain_each"),
    ),
    Case(
        "a list of another length",
        errors.TargetError,
        lambda: vit([1, 2]),
        ("A list of 2 was given for 3 examples", "Give one value, or 3"),
    ),
    Case(
        "an output without logits",
        errors.TargetError,
        lambda: heedmap.explain(shared("siglip-vision"), inputs_of("siglip-vision", 1), 3),
        (r"which to explain is not said|No logits were found", "pass a callable"),
    ),
    Case(
        "many positions and none chosen",
        errors.TargetError,
        lambda: heedmap.explain(shared("clip").text_model, {"input_ids": torch.tensor([[5, 6, 39]])}, 3),
        ("[Nn]o logits were found", "Expected a floating tensor", "pass a callable"),
    ),
    Case(
        "an index out of range",
        errors.LabelError,
        lambda: vit(99),
        ("Index 99 is out of range", "this model has 5 classes, 0 to 4"),
    ),
    Case(
        "a negative index",
        errors.LabelError,
        lambda: vit(-1),
        ("Index -1 is out of range", "0 to 4", "Negative indices do not count from the end"),
    ),
    Case(
        "a label of a model without labels",
        errors.LabelError,
        lambda: vit("cat"),
        ("'cat' is a label", "this model has no label names", r"Give an index: logit\(3\)"),
    ),
    Case(
        "a misspelt label",
        errors.LabelError,
        lambda: heedmap.explain(named(), inputs_of("vit", 1), "zebre"),
        ("Label 'zebre' is not one of this model's 5 labels", r"Did you mean 'zebra'\?"),
    ),
    Case(
        "a label that is like no other",
        errors.LabelError,
        lambda: heedmap.explain(named(), inputs_of("vit", 1), "bicycle"),
        ("Label 'bicycle' is not one of this model's 5 labels", "There are 'cat', 'dog'", "Give one, or an index"),
    ),
    Case(
        "a quotient that turns round",
        errors.QuotientError,
        lambda: vit(lowest() / logit(3)),
        ("does not (rise|fall) with", "is -?[0-9.]+, ", "Explain the difference: "),
    ),
    Case(
        "a constant",
        errors.DisconnectedError,
        lambda: vit(lambda o: torch.ones(3)),
        (
            "does not depend on any attention call",
            "expected a number computed from the model's output",
            "choose a logit",
        ),
    ),
    Case(
        "a number of the inputs",
        errors.DisconnectedError,
        lambda: by_hand(lambda o: x.sum((1, 2))),
        ("does not depend on any attention call", "expected", "choose a logit"),
    ),
    Case(
        "a detached number",
        errors.DisconnectedError,
        lambda: vit(lambda o: o.logits[:, 0].detach()),
        ("carries no gradient: it was detached", "expected a differentiable number per example"),
    ),
    Case(
        "a detached number that is not verified",
        errors.DisconnectedError,
        lambda: vit(lambda o: o.logits[:, 0].detach(), verify=False),
        ("detached",),
    ),
    Case(
        "targets that are no list",
        errors.InputError,
        lambda: heedmap.explain_each(shared("vit"), inputs_of("vit", 1), 3),
        ("targets is 3", "expected a list", "for one target call explain"),
    ),
    Case(
        "a label for a list of them",
        errors.InputError,
        lambda: heedmap.explain_each(shared("vit"), inputs_of("vit", 1), "zebra"),
        ("targets is 'zebra'", "expected a list", "for one target call explain"),
    ),
]


def lowest() -> heedmap.targets.Target:
    """A negative logit in each example: no quotient with it keeps its meaning."""
    logits = shared("vit")(**inputs_of("vit", 3)).logits
    assert (logits.amin(1) < 0).all()
    return logit(logits.argmin(1))


# ------------------------------------------------------------------------------------------- wiring and readout

WIRING = [
    Case(
        "tokens rolled between calls",
        errors.MixedTokensError,
        lambda: heedmap.explain(Written(lambda x: x.roll(1, 1)), x, 0),
        (
            "are moved or mixed between call 0",
            "expected work token by token",
            "Declare where the walk may end: wiring=",
        ),
    ),
    Case(
        "tokens spliced between calls",
        errors.MixedTokensError,
        lambda: heedmap.explain(Spliced(), {"x": x, "words": x}, 0, method="gae"),
        ("call 1", "spliced", "expected tokens that stay as they are", "declare it: wiring="),
    ),
    Case(
        "a token dropped between calls",
        errors.WiringError,
        lambda: heedmap.explain(Written(lambda x: x[:, :-1]), x, 0, method="gae"),
        (r"Call 1 \(Written\) has 5 queries", "'x' they come from has 6 tokens", "expected equal counts", "wiring="),
    ),
    Case(
        "a target that reads two depths",
        errors.ReadoutError,
        lambda: heedmap.explain(TwoDepths(), x, 0),
        (
            "The target reads x@2 and, beside it, other rows of x@0",
            "expected a target that reads one depth",
            r"readout=heedmap\.Readout",
        ),
    ),
    Case(
        "attention under no_grad",
        errors.GradientError,
        lambda: heedmap.explain(Written(under=torch.no_grad), x, 0, verify=False),
        ("no gradient", "no_grad", "expected a gradient at every call", "remove the no_grad"),
    ),
    Case(
        "a call that is not there",
        errors.InputError,
        lambda: vit(wiring={9: {"reading": X, "read": X}}),
        ("wiring= declares 9", "neither a call's number nor its module path"),
    ),
    Case(
        "a misspelt end of a call",
        errors.InputError,
        lambda: vit(wiring={1: {"reads": X}}),
        (r"wiring=\{1: \{'reads': ", "not of the form heedmap expected", r'wiring=\{.*"reading": "stream", "read": '),
    ),
    Case(
        "a readout of no stream",
        errors.InputError,
        lambda: vit(readout=Readout("nope")),
        ("No stream is called 'nope'", "The streams are pixel_values"),
    ),
    Case(
        "a readout after no call",
        errors.InputError,
        lambda: vit(readout=Readout(X, after=9)),
        ("Call 9 does not write 'pixel_values'", r"The calls that do are \[0, 1\]"),
    ),
    Case(
        "a readout of a row that is not there",
        errors.InputError,
        lambda: vit(readout=Readout(X, rows=[0, 10])),
        ("readout names row 10 of 'pixel_values'", "which has 10 tokens"),
    ),
    Case(
        "a readout of rows in words",
        errors.InputError,
        lambda: vit(readout=Readout(X, rows="some")),
        ("readout rows are 'some'", "expected an index, a list of them, or 'all'"),
    ),
]

# ------------------------------------------------------------------------------------------- options

OPTIONS = [
    Case(
        "an unknown correction",
        errors.InputError,
        lambda: vit(correction="negative"),
        ("No correction is called 'negative'", "Choose one of complete, positive, absolute"),
    ),
    Case(
        "an unknown method",
        errors.InputError,
        lambda: vit(method="rollin"),
        ("No method is called 'rollin'", "The methods are heed"),
    ),
    Case(
        "an unknown variant",
        errors.InputError,
        lambda: vit(method="heed:negative"),
        ("Method 'heed' has no variant 'negative'", "Its variants are complete, positive, absolute"),
    ),
    Case(
        "a method and a correction that disagree",
        errors.InputError,
        lambda: vit(method="heed:positive", correction="absolute"),
        ("method='heed:positive' says positive, correction='absolute' says another", "give one of them"),
    ),
    Case(
        "an unknown verify",
        errors.InputError,
        lambda: vit(verify="sometimes"),
        ("verify is 'sometimes'", "expected 'once', 'always' or False"),
    ),
    Case(
        "the noise link of a signed correction",
        errors.InputError,
        lambda: vit(noise=f"{X}@0"),
        ("may vanish under 'complete'", "use correction='positive'"),
    ),
    Case(
        "the noise link where nothing is read across",
        errors.InputError,
        lambda: vit(method="heed:positive+noise"),
        ("the one state that cross-attention reads; this model has none", "Name the state: noise="),
    ),
    Case(
        "the noise link at no stream",
        errors.InputError,
        lambda: vit(correction="positive", noise="nope@1"),
        ("No stream is called 'nope'", "The streams are pixel_values"),
    ),
    Case(
        "an unknown stream of an explanation",
        errors.InputError,
        lambda: vit()["nope"],
        ("No stream is called 'nope'", "The streams are pixel_values"),
    ),
    Case(
        "an unknown stream's row",
        errors.InputError,
        lambda: vit().row("nope"),
        ("No stream is called 'nope'", "The streams are pixel_values"),
    ),
]

# ------------------------------------------------------------------------------------------- files


def opened(name: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    def mistake(folder: Path) -> object:
        path = folder / name
        write(path)
        return heedmap.open(path)

    return mistake


FOREIGN = {"format": "pt"}
NEWER = {"format": "heedmap explanation", "version": "999", "explanation": "{}"}
FILES = [
    Case(
        "another suffix",
        errors.InputError,
        lambda folder: vit().save(folder / "x.pickle"),
        (r"'x\.pickle' ends in '\.pickle'", r"expected a name ending in '\.heed'"),
    ),
    Case(
        "no suffix",
        errors.InputError,
        lambda folder: vit().save(folder / "x"),
        ("'x' ends in 'nothing'", r"expected a name ending in '\.heed'"),
    ),
    Case(
        "no file",
        errors.FileFormatError,
        lambda folder: heedmap.open(folder / "x.heed"),
        (r"There is no file .*x\.heed", r"expected a \.heed file that e\.save\(\.\.\.\) wrote"),
    ),
    Case(
        "a file of text",
        errors.FileFormatError,
        opened("x.heed", lambda path: path.write_text("not tensors")),
        (r"'x\.heed' is not a \.heed file",),
    ),
    Case(
        "an empty file",
        errors.FileFormatError,
        opened("x.heed", lambda path: path.write_bytes(b"")),
        (r"'x\.heed' is not a \.heed file",),
    ),
    Case(
        "a file of torch.save",
        errors.FileFormatError,
        opened("x.heed", lambda path: torch.save({"value": torch.ones(1)}, path)),
        (r"'x\.heed' is not a \.heed file",),
    ),
    Case(
        "a foreign safetensors file",
        errors.FileFormatError,
        opened("x.heed", lambda path: save_file({"weight": torch.ones(1)}, path, metadata=FOREIGN)),
        ("is a safetensors file, but not an explanation that heedmap saved",),
    ),
    Case(
        "a file of a later version",
        errors.FileFormatError,
        opened("x.heed", lambda path: save_file({"value": torch.ones(1)}, path, metadata=NEWER)),
        ("has format version 999", "this heedmap reads up to 4", "Upgrade heedmap"),
    ),
]

# ------------------------------------------------------------------------------------------- reading them all

CASES = [*MODELS, *INPUTS, *TARGETS, *WIRING, *OPTIONS, *FILES]


@pytest.mark.parametrize("item", [pytest.param(item, id=item.mistake) for item in CASES])
def test_the_message_says_what_was_met_what_was_expected_and_what_to_do(item, tmp_path):
    with pytest.raises(errors.HeedmapError) as caught:
        item.make(tmp_path) if item in FILES else item.make()
    assert type(caught.value) is item.error, repr(caught.value)
    message, at = str(caught.value), 0
    for part in item.says:
        found = re.compile(part, re.DOTALL).search(message, at)
        assert found, f"{part!r} is not said, or not in this order:\n{message}"
        at = found.end()
    assert "\n" not in message
    assert message.endswith((".", "?", ")")) or item.error is errors.QuotientError


@pytest.mark.parametrize("item", [pytest.param(item, id=item.mistake) for item in [*OPTIONS, *TARGETS]])
def test_a_users_mistake_is_a_value_error_as_well(item):
    """Whoever does not know heedmap's exceptions catches those of a wrong value as always."""
    with pytest.raises(item.error) as caught:
        item.make()
    assert isinstance(caught.value, ValueError)


def test_every_exception_is_met_in_a_test():
    every = {error for _, error in inspect.getmembers(errors, inspect.isclass)}
    abstract = {errors.HeedmapError, errors.ModelError}
    elsewhere = {errors.BrokenInstallError}  # below: it needs a process of its own
    assert {item.error for item in CASES} | abstract | elsewhere == every
    assert all(issubclass(error, errors.HeedmapError) for error in every)


def test_the_tree_that_is_drawn_is_the_tree_there_is():
    drawn = re.findall(r"(\w+Error)\b", errors.__doc__ or "")
    every = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert set(drawn) == every
    assert len(drawn) == len(every)


ODD = {
    "wiring in words": {"wiring": "pixel_values"},
    "wiring as a list": {"wiring": [1]},
    "a state that is no text": {"wiring": {1: {"reading": 3, "read": 3}}},
    "a state after a call that is not there": {"wiring": {1: {"reading": f"{X}@7", "read": f"{X}@7"}}},
    "a state after the call itself": {"wiring": {1: {"reading": f"{X}@1", "read": f"{X}@1"}}},
    "a readout in words": {"readout": "cls"},
    "a readout as a row": {"readout": 0},
    "a readout of nothing": {"readout": []},
    "no rows": {"readout": Readout(X, rows=[])},
    "rows that are no index": {"readout": Readout(X, rows=1.5)},
    "rows that are named twice": {"readout": Readout(X, rows=[0, 0])},
    "two readouts of one state": {"readout": [Readout(X, rows=0), Readout(X, rows=1)]},
    "a method that is no text": {"method": 3},
    "a correction that is no text": {"correction": ["complete"]},
    "noise that is no text": {"noise": 3.5, "correction": "positive"},
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_option_is_refused_by_heedmap(name):
    with pytest.raises(errors.HeedmapError):
        vit(**ODD[name])


# ------------------------------------------------------------------------------------------- broken installs

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"
ASK = """
import heedmap
from heedmap import installs
try:
    found = installs.transformers()
except heedmap.errors.BrokenInstallError as error:
    print("refused:", error)
else:
    print("found:", found.__name__ if found is not None else "transformers")
"""


def fake_torchvision(folder: Path, code: str) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(code)
    metadata = folder / "torchvision-0.20.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.20.0\n")


def ask_elsewhere(folder: Path) -> str:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_broken_torchvision_is_named(tmp_path):
    pytest.importorskip("heedmap.installs")
    fake_torchvision(tmp_path, BROKEN)
    said = ask_elsewhere(tmp_path)
    assert said.startswith("refused: ")
    assert "torchvision" in said
    assert "operator torchvision::nms does not exist" in said
    assert re.search(r"pip (un)?install", said), "it says what to do"


def test_a_torchvision_that_imports_is_no_trouble(tmp_path):
    pytest.importorskip("heedmap.installs")
    fake_torchvision(tmp_path, "__version__ = '0.20.0'\n")
    assert ask_elsewhere(tmp_path).startswith("found: transformers")


def test_no_torchvision_is_no_trouble(tmp_path):
    pytest.importorskip("heedmap.installs")
    assert ask_elsewhere(tmp_path).startswith("found: transformers")
