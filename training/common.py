"""What every recipe shares: options, a loop that survives being killed, a checkpoint written with its card."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "src" / "heedmap" / "zoo"
STATE = ROOT / "training" / "state"
SAVE_EVERY = 60.0  # seconds
FIRST_TRAINING_SEED = 1_000_000  # scenes below it are held out

console = Console()


class Stateful(Protocol):
    """A model, an optimizer: whatever must stand where it stood when the training goes on."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    threads: int
    steps: int
    out: Path
    state: Path
    device: str
    scenes: int | None = None  # held out, for each figure; None: what the recipe says

    @property
    def machine(self) -> str:
        if self.device == "cuda":
            return torch.cuda.get_device_name()
        return f"{self.threads} thread{'s' * (self.threads > 1)} of {processor_name()}"


def read_options(name: str, images: int, batch: int, arguments: Sequence[str] | None = None) -> Options:
    """The command line of a recipe that draws `images` scenes, `batch` of them a step."""
    parser = argparse.ArgumentParser(prog=f"python -m training.{name.replace('-', '_')}")
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, default=cores, help=f"threads of torch (default {cores})")
    parser.add_argument("--images", type=int, default=images, help=f"images in all (default {images}), for trials")
    parser.add_argument("--steps", type=int, help="steps in all, instead of --images")
    parser.add_argument("--out", type=Path, default=ZOO / name, help="folder of the checkpoint (default: in the zoo)")
    parser.add_argument("--state", type=Path, default=STATE / f"{name}.pt", help="where an unfinished training waits")
    parser.add_argument(
        "--scenes", type=int, help="held-out scenes that measure each figure (default: as the card says)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget an unfinished training")
    given = parser.parse_args(arguments)
    if given.fresh:
        given.state.unlink(missing_ok=True)
    torch.set_num_threads(given.threads)
    steps = given.images // batch if given.steps is None else given.steps
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Options(given.threads, steps, given.out, given.state, device, given.scenes)


def loop(
    name: str, options: Options, parts: Mapping[str, Stateful], step: Callable[[int], torch.Tensor], batch: int
) -> float:
    """Take every step from where the saved state stopped; the seconds it took in all, earlier runs counted in.

    The parts are saved every minute, and at SIGTERM or Ctrl-C. `step(number)` must draw all it needs from its number,
    so that the order of the data survives an interruption.
    """
    recipe = {"name": name, "steps": options.steps}
    start, before = restore(options.state, recipe, parts, options.device)
    began = saved = time.monotonic()
    mean = None
    with interruptions() as stopped, progress(name, options.steps, start) as show:
        for number in range(start, options.steps):
            loss = step(number).item()
            mean = loss if mean is None else mean + 0.02 * (loss - mean)
            now = time.monotonic()
            show(number + 1, mean, batch * (number + 1 - start) / (now - began), now)
            if now - saved > SAVE_EVERY or stopped():
                store(options.state, recipe, parts, number + 1, before + now - began)
                saved = time.monotonic()
            if stopped():
                raise SystemExit(f"{name}: stopped after step {number + 1}; the same command goes on from there")
        seconds = before + time.monotonic() - began
        store(options.state, recipe, parts, options.steps, seconds)  # writing and measuring may fail, too
    return seconds


def store(path: Path, recipe: dict[str, Any], parts: Mapping[str, Stateful], step: int, seconds: float) -> None:
    """Written beside and moved into place: a kill while writing leaves the previous state whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"recipe": recipe, "step": step, "seconds": seconds, "parts": states}, beside)
    beside.replace(path)


def restore(path: Path, recipe: dict[str, Any], parts: Mapping[str, Stateful], device: str) -> tuple[int, float]:
    """The next step and the seconds so far: 0 where nothing is saved."""
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, map_location=device, weights_only=True)
    if saved["recipe"] != recipe:
        raise SystemExit(f"{path} holds {saved['recipe']}, this is {recipe}: add --fresh to begin again")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    console.print(f"{recipe['name']}: goes on after step {saved['step']}")
    return saved["step"], saved["seconds"]


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM become an answer that the loop asks for between two steps."""
    met = []
    before = {sign: signal.signal(sign, lambda *_: met.append(True)) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(met)
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextmanager
def progress(name: str, steps: int, start: int) -> Iterator[Callable[[int, float, float, float], None]]:
    """A bar on a terminal, a line a minute elsewhere."""
    columns = ("[progress.description]{task.description}", BarColumn(), "{task.completed}/{task.total} steps")
    more = (TextColumn("loss {task.fields[loss]:.4f}, {task.fields[speed]:.0f} images/s"), TimeElapsedColumn())
    with Progress(*columns, *more, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=steps, completed=start, loss=float("nan"), speed=0.0)
        last = time.monotonic()

        def show(done: int, loss: float, speed: float, now: float) -> None:
            nonlocal last
            if console.is_terminal:
                bar.update(task, completed=done, loss=loss, speed=speed)
            elif now - last > SAVE_EVERY or done == steps:
                last = now
                console.print(f"{name}: step {done} of {steps}, loss {loss:.4f}, {speed:.0f} images/s")

        yield show


def falling(number: int, steps: int, warm: int = 100) -> float:
    """The learning rate's factor: up over the first steps, then straight down to nothing."""
    return min(1.0, (number + 1) / min(warm, max(1, steps // 10)), 1.0 - number / steps)


def finish(
    name: str, model: Any, processors: Sequence[Any], card: Mapping[str, Any], options: Options, scenes: int = 2000
) -> dict[str, Any]:
    """Write the folder in half precision, measure what was written, and add the card; the unfinished state goes.

    `card` brings "recipe" (lines of text), "seeds" ({"training": [first, last], "held out": {...}}) and "trained".
    """
    from .measure import MEASURES

    scenes = options.scenes or scenes
    if options.out.exists():
        shutil.rmtree(options.out)
    write_half(model, options.out)
    for processor in processors:
        processor.save_pretrained(options.out)
    whole = {
        "name": name,
        "class": type(model).__name__,
        **card,
        "measured": {figure: round(value, 4) for figure, value in MEASURES[name](options.out, scenes).items()},
        "scenes": scenes,
        "command": f"python -m training.measure {name}",
        "sha256": {path.name: digest(path) for path in sorted(options.out.iterdir())},
    }
    (options.out / "card.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    options.state.unlink(missing_ok=True)
    console.print(f"{name}: {whole['measured']}, in {options.out}")
    return whole


def write_half(model: Any, folder: Path) -> None:
    """float16 on disk, float32 in config.json: plain `from_pretrained` computes in float32."""
    model.half().save_pretrained(folder)
    model.float()
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(in_float32(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def in_float32(config: Any) -> Any:
    """Nested configurations name a dtype each."""
    if not isinstance(config, dict):
        return config
    return {key: "float32" if key == "dtype" else in_float32(value) for key, value in config.items()}


def trained(seconds: float, images: int, options: Options) -> str:
    return f"{images} images, {seconds / 60:.0f} minutes on {options.machine}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
