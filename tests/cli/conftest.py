"""The command as a function: arguments in; exit code, standard output and standard error out."""

import json
from dataclasses import dataclass

import pytest

from heedmap import menagerie
from heedmap.cli import main


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line that was said of a failure."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEEDMAP_MODEL", raising=False)

    def command(*arguments) -> Run:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Run(code, *capsys.readouterr())

    return command


@pytest.fixture(scope="session")
def scene():
    return menagerie.scene(["zebra", "elephant"], seed=7)


@pytest.fixture
def savanna(scene, tmp_path):
    path = tmp_path / "savanna.png"
    scene.image.save(path)
    return path
