"""The house is as its papers say: public names, import, error tree, version, citation, README."""

import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import heedmap
from heedmap import errors
from heedmap.cli import main as heedmap_command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

IMPORT_AND_LIST = """
import sys, torch
before, functions = set(sys.modules), dict(vars(torch.nn.functional)) | dict(vars(torch))
import heedmap
assert all((vars(torch.nn.functional) | vars(torch))[name] is value for name, value in functions.items())
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
"""


def error_parents(drawing: str) -> dict[str, str | None]:
    """Name -> parent, of a tree drawn with four characters for each level."""
    parents: dict[str, str | None] = {}
    branch: list[str] = []
    for line in drawing.splitlines():
        if found := re.match(r"([ │├└─]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4 - 1
            branch = [*branch[:depth], found[2]]
            parents[found[2]] = branch[-2] if depth else None
    return parents


def listed_files(tree: str) -> list[Path]:
    """The paths of a tree in which two spaces are one level and folders end with a slash."""
    paths: list[Path] = []
    branch: list[str] = []
    for line in tree.strip("\n").splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        branch = [*branch[: len(indent) // 2], name]
        paths.append(Path(*branch))
    return paths


def block(language: str, text: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def test_public_names_are_the_documented_ones():
    documented = set(re.findall(r"^\*\*`(\w+)", REFERENCE, re.MULTILINE))
    assert set(heedmap.__all__) == documented
    assert [name for name in heedmap.__all__ if not hasattr(heedmap, name)] == []


def test_import_brings_nothing_but_torch_and_changes_nothing_in_it():
    run = subprocess.run([sys.executable, "-c", IMPORT_AND_LIST], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.stdout.split() == ["heedmap"]


def test_every_public_name_is_there_when_asked_for():
    assert set(heedmap.__all__) <= set(dir(heedmap))
    with pytest.raises(AttributeError, match="has no attribute 'explian'"):
        _ = heedmap.explian


def test_error_tree_is_the_one_drawn():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.HeedmapError)]
    real = {c.__name__: next((b.__name__ for b in c.__bases__ if b in classes), None) for c in classes}
    assert error_parents(errors.__doc__) == real


def test_error_tree_of_the_reference_is_the_one_drawn():
    drawn = [line[4:] for line in errors.__doc__.splitlines() if "Error" in line]
    assert block("", REFERENCE[REFERENCE.index("## Errors") :]).splitlines() == drawn


def test_a_wrong_tree_is_noticed():
    assert error_parents("    AError\n    ├── BError\n    │   └── CError\n    └── DError") == {
        "AError": None,
        "BError": "AError",
        "CError": "BError",
        "DError": "AError",
    }


def test_version_is_one():
    declared = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert declared[1] == metadata.version("heedmap") == heedmap.__version__ == citation["version"]


def test_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    titles = [paper["title"] for paper in citation["references"]]
    assert len(titles) == 2
    assert all(f"*{title}*" in README for title in titles)
    for paper in citation["references"]:
        assert [author["family-names"] for author in paper["authors"]] == ["Cui", "Fan", "Chen"]


def test_readme_code_runs(capsys):
    names: dict = {}
    exec(block("python", README), names)
    logits = names["model"](**names["inputs"]).logits.detach()
    explanation = names["e"]
    torch.testing.assert_close(explanation.value.detach(), logits[:, 340] - logits[:, 386])
    flowed = explanation["pixel_values"]
    assert flowed.shape == (1, 197)
    assert (flowed[0, 1:] > 0).any()
    assert (flowed[0, 1:] < 0).any()
    assert "pixel_values <- pixel_values" in capsys.readouterr().out


def test_readme_code_that_loads_a_model_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1], {"heedmap": heedmap})
    with Image.open("zebra.png") as drawn:
        assert min(drawn.size) > 100


def test_readme_lists_files_that_exist():
    paths = listed_files(block("", README[README.index("## The files") :]))
    assert len(paths) > 10
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []
    assert listed_files("a/\n  b.py  text\nc") == [Path("a"), Path("a/b.py"), Path("c")]


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_demo_makes_the_picture_of_the_readme(capsys, tmp_path):
    assert heedmap_command(["demo", "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Open {tmp_path / 'index.html'} in a browser" in said
    shares = re.search(r"Held against each other, (\d+)% of the red is on the zebra and (\d+)% of the blue", said)
    claimed = re.search(r"(\d+) % of what spoke for .+ fell on\s+the zebra, (\d+) % of what", README)
    assert shares.groups() == claimed.groups()
    with Image.open(tmp_path / "two-animals.png") as made, Image.open(ROOT / "docs" / "zebra-elephant.png") as shown:
        difference = np.abs(np.asarray(made, dtype=int) - np.asarray(shown, dtype=int))
    assert difference.max() <= 8
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 7
    assert "what colour is the" in page
