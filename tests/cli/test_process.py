"""The command as the shell runs it: what it loads, and what a signal leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "heedmap"]


def command(*arguments, cwd, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_help_needs_none_of_the_heavy_packages(tmp_path):
    heavy = "torch transformers numpy PIL matplotlib safetensors"
    code = (
        "import sys; from heedmap.cli import main; main(['--help']); main(['explain', '--help']);"
        f"print([name for name in '{heavy}'.split() if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert run.stderr == "[]\n"
    assert "Examples" in run.stdout


@pytest.mark.parametrize(("name", "meant"), [("vit", "zoo:vit"), ("zoo:vti", "zoo:vit")])
def test_a_model_that_is_none_is_told_at_once(tmp_path, savanna, name, meant):
    code = (
        "import sys; from heedmap.cli import main\n"
        "class Shut:\n    def find_spec(self, name, *_):\n"
        "        if name in ('torch', 'huggingface_hub'): raise SystemExit(f'{name} is not needed')\n"
        f"sys.meta_path.insert(0, Shut()); raise SystemExit(main(['explain', {str(savanna)!r}, '-m', {name!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 2
    assert f"Did you mean {meant}?" in run.stderr


def test_explaining_loads_nothing_that_it_does_not_use(tmp_path, savanna):
    idle = "matplotlib sklearn skimage pandas pycocotools ray captum quantus"
    code = (
        f"import sys; from heedmap.cli import main; main(['explain', {str(savanna)!r}, '-m', 'zoo:vit', '--quiet']);"
        f"print([name for name in '{idle}'.split() if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert run.stderr == "[]\n"


def test_a_picture_is_written_whatever_the_terminal_lacks(tmp_path, savanna):
    poor = {**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    found = command("explain", savanna, "--model", "zoo:vit", cwd=tmp_path, env=poor)
    assert (found.returncode, found.stderr) == (0, "")
    assert [each.suffix for each in (tmp_path / "out").iterdir()] == [".png"]


def test_results_and_troubles_go_separate_ways(tmp_path, savanna):
    found = command("explain", "nothing.png", savanna, "--model", "zoo:vit", "--json", cwd=tmp_path)
    assert found.returncode == 1
    assert len(json.loads(found.stdout)["results"]) == 1
    assert found.stderr.splitlines()[0] == "There is no picture 'nothing.png'. Check the path."
    assert len(found.stderr.splitlines()) == 2


def test_a_reader_that_has_seen_enough_is_no_accident(tmp_path):
    whole = subprocess.Popen(
        [*COMMAND, "models", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    whole.stdout.close()
    assert b"Traceback" not in whole.stderr.read()
    whole.stderr.close()
    whole.wait(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are set between fork and exec")
def test_a_disk_with_no_room(tmp_path, savanna):
    import resource

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    found = command("explain", savanna, "--model", "zoo:vit", "--quiet", cwd=tmp_path, preexec_fn=no_room)
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1, found.stderr
    assert list((tmp_path / "out").iterdir()) == []


def heed_interrupts():
    """A shell's background job starts with interrupts ignored, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a signal is set between fork and exec")
def test_interrupted_in_a_batch_keeps_what_is_written(tmp_path, scene):
    (tmp_path / "photos").mkdir()
    for number in range(400):
        scene.image.save(tmp_path / "photos" / f"{number:03}.png")
    started = subprocess.Popen(
        [*COMMAND, "explain", "photos", "--model", "zoo:vit", "--quiet", "--batch", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heed_interrupts,
    )  # fmt: skip
    made = tmp_path / "out"
    until = time.monotonic() + 60
    while len(list(made.glob("[0-9]*.png"))) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 130
    assert "interrupted" in said.casefold()
    assert "Traceback" not in said
    files = list(made.iterdir())
    assert 3 <= len(files) < 400
    for file in files:
        assert not file.name.startswith(".")
        with Image.open(file) as picture:
            picture.load()
