"""`python -m benchmarks.scenes`: how many scenes of the menagerie one core draws in a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from heedmap.menagerie import Scene, scenes

ROUNDS, SCENES = 5, 200
WHAT: dict[str, Callable[[Scene], object]] = {
    "picture": lambda scene: scene.image,
    "picture and boxes": lambda scene: (scene.image, [animal.box for animal in scene.animals]),
    "picture, boxes and parts": lambda scene: (
        scene.image,
        [(animal.box, animal.parts) for animal in scene.animals],
    ),
}


def main() -> None:
    print(f"scenes of 1 to 4 animals per second, one process, best of {ROUNDS} rounds of {SCENES}")
    for size in (96, 224):
        for name, look in WHAT.items():
            print(f"{size:>4} px  {name:<26} {max(rate(look, size, at) for at in range(ROUNDS)):8.0f}")


def rate(look: Callable[[Scene], object], size: int, at: int) -> float:
    start = time.perf_counter()
    for scene in scenes(SCENES, at * SCENES, size=size):
        look(scene)
    return SCENES / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
