"""A user's own method: the code of its page, in a program, on the command line and under the contract."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import BY_NAME
from runs import model_of

import heedmap
from heedmap.errors import BrokenInstallError, InputError
from heedmap.methods import METHODS, OURS, Method
from heedmap.methods.known import Methods, brought

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def joined():
    """What the page's code adds, and afterwards takes away again."""
    exec(CODE, {})
    yield
    for name in METHODS.keys() - OURS.keys():
        del METHODS[name]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder on the path in which a package lies that brings methods."""

    def install(points: str) -> Path:
        (tmp_path / "my_package.py").write_text(CODE.replace('heedmap.METHODS["', 'dict()["'), encoding="utf-8")
        info = tmp_path / "my_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[heedmap.methods]\n{points}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        brought.cache_clear()
        return tmp_path

    yield install
    sys.modules.pop("my_package", None)
    brought.cache_clear()


def explained(name: str, method: str) -> heedmap.Explanation:
    family = BY_NAME[name]
    return heedmap.explain(model_of(name, torch.float32), family.inputs(2), family.ask, method=method)


@pytest.mark.usefixtures("joined")
def test_the_code_of_the_page_runs():
    agreed, heed, gae = (explained("lxmert", name) for name in ("agreed", "heed:positive", "gae"))
    for stream in agreed.streams:
        torch.testing.assert_close(agreed[stream], (heed.normalized()[stream] + gae.normalized()[stream]) / 2)
    assert METHODS["agreed"].says == "the mean of heed and gae, each over its largest number"
    signed, positive = (explained("vit", name)["pixel_values"] for name in ("last", "last:positive"))
    assert (signed < 0).any()
    assert (positive >= signed - 1e-6).all()
    with pytest.raises(InputError, match="has no variant 'negative'"):
        explained("vit", "last:negative")


def test_what_a_package_brings_is_loaded_when_it_is_looked_at(installed):
    installed("agreed = my_package:agreed\ngae = my_package:agreed")
    known = Methods(OURS)
    assert list(known) == [*OURS, "agreed"]
    assert len(known) == len(OURS) + 1
    assert "my_package" not in sys.modules
    assert known["agreed"].variants == {"plain": {}}
    assert "my_package" in sys.modules
    assert known["gae"] is OURS["gae"]
    with pytest.raises(KeyError):
        known["agree"]


def test_what_cannot_be_loaded_is_named(installed):
    installed("broken = my_package:missing\nnothing = my_package:CODE")
    with pytest.raises(BrokenInstallError, match=r"my-package brings the method 'broken'.*my_package:missing.*missing"):
        Methods(OURS)["broken"]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("a:b", explained, "cannot be the name of a method"),
        ("a,b", explained, "cannot be the name of a method"),
        ("mine", 3, r"'mine' is 3. heedmap expected a function"),
    ],
)
def test_what_cannot_join_is_refused(name, given, message):
    with pytest.raises(InputError, match=message):
        Methods(OURS)[name] = given


def test_a_method_may_be_put_in_anothers_place_and_taken_away():
    known = Methods(OURS)
    known["gae"] = mine = Method(explained, {"plain": {}}, "mine")
    assert known["gae"] is mine
    del known["gae"]
    assert "gae" not in known
    assert "gae" in METHODS


def test_the_command_line_and_the_contract_know_it(installed, monkeypatch):
    folder = installed("agreed = my_package:agreed")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT / 'src'}")

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = {each["method"]: each for each in json.loads(run("heedmap", "methods", "--json"))["methods"]}
    assert listed["agreed"]["variants"] == ["plain"]
    few = "agreed and (vit or lxmert) and (two_runs or alone or unchanged)"
    told = run("pytest", "tests/contract", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", few)
    for model in ("vit", "lxmert"):
        assert f"[agreed:plain-{model}] PASSED" in told
