"""Scenes as batches: drawn on the fly from their seeds, each shown a few times with other patches missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from heedmap import menagerie

MOST = 4  # animals in a scene
ANIMALS = (1, 1, 2, 2, 2, 3, 3, 4)  # how many, by the scene's seed


@dataclass(frozen=True)
class Batch:
    """Pixels as bytes, and for each scene which kinds it holds (label ids, -1 where there are fewer animals)."""

    pixels: torch.Tensor  # (batch, 3, size, size) uint8
    kinds: torch.Tensor  # (batch, MOST)
    seeds: torch.Tensor  # (batch,)


class Scenery:
    """Batches by their number. A block of scenes is drawn once and gone through `repeats` times in other orders.

    What a step shows depends on its number and on how many steps there are in all, on nothing else.
    """

    def __init__(self, first: int, batch: int, repeats: int, steps: int, block: int = 4096):
        self.first, self.batch, self.repeats = first, batch, repeats
        self.per_pass = max(1, min(block // batch, -(-steps // repeats)))
        self.blocks = -(-steps // (self.per_pass * repeats))
        self.number = -1
        self.held: Batch | None = None

    @property
    def last(self) -> int:
        """The last seed that is drawn."""
        return self.first + self.blocks * self.per_pass * self.batch - 1

    def __getitem__(self, step: int) -> Batch:
        number, within = divmod(step, self.per_pass * self.repeats)
        count = self.per_pass * self.batch
        if number != self.number or self.held is None:
            self.number, self.held = number, draw(self.first + number * count, count)
        turn, place = divmod(within, self.per_pass)
        order = np.random.default_rng((self.first, number, turn)).permutation(count)
        chosen = torch.from_numpy(order[place * self.batch : (place + 1) * self.batch])
        return Batch(*(part[chosen] for part in (self.held.pixels, self.held.kinds, self.held.seeds)))


def draw(first: int, count: int) -> Batch:
    """Scenes of consecutive seeds; the seed says how many animals."""
    pixels, kinds = [], torch.full((count, MOST), -1)
    for i, seed in enumerate(range(first, first + count)):
        n = ANIMALS[seed % len(ANIMALS)]
        (scene,) = menagerie.scenes(1, seed, animals=(n, n))
        pixels.append(np.asarray(scene.image))
        kinds[i, :n] = torch.tensor([menagerie.KINDS.index(animal.kind) for animal in scene.animals])
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Batch(stacked, kinds, torch.arange(first, first + count))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes to -1 .. 1, as the processor beside the model does."""
    return pixels.float().div_(127.5).sub_(1.0)
