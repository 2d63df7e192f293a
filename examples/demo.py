"""Explain a picture of a zebra and an elephant in the terminal: what speaks for the one, and what for the other.

`python examples/demo.py [ANIMAL ANIMAL] [--seed N] [--save PICTURE]`: any two of the menagerie's animals.
"""

import argparse
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.style import Style
from rich.text import Text
from torch import Tensor

import heedmap
from heedmap import logit, menagerie, zoo
from heedmap.installs import transformers

COLUMNS = 24  # a picture's width in the terminal; a character is two points high
FOR, AGAINST = (202, 0, 32), (5, 113, 176)
FADED = 0.65  # how much of the picture gives way to the map


def main() -> None:
    options = read_options()
    try:
        scene = menagerie.scene(options.kinds, options.seed)
    except ValueError as error:
        sys.exit(str(error))

    hub = transformers()
    hub.logging.disable_progress_bar()
    model = hub.ViTForImageClassification.from_pretrained(zoo.path("vit")).eval()
    processor = hub.ViTImageProcessorPil.from_pretrained(zoo.path("vit"))
    inputs = dict(processor(scene.image, return_tensors="pt"))
    one, other = options.kinds
    targets = {one: logit(one), other: logit(other), f"{one} - {other}": logit(one) - logit(other)}
    explanations = heedmap.explain_each(model, inputs, list(targets.values()))

    titles = ["what the model sees"]
    titles += [f"{name} {e.value.item():+.2f}" for name, e in zip(targets, explanations, strict=True)]
    maps = [patches(e) for e in explanations]
    pictures = [scene.image] + [overlaid(scene.image, strengths) for strengths in maps]
    console = Console(highlight=False)
    console.print(
        "\nWhat spoke [bold #ca0020]for[/] and [bold #0571b0]against[/] the logits of a vision transformer:\n"
    )
    if console.is_terminal:
        show(console, titles, pictures)
    console.print(
        f"Of what spoke for {one} - {other}, {share(maps[-1].clamp(min=0), scene.animals[0]):.0%} fell on the {one};"
    )
    console.print(
        f"of what spoke against it, {share(-maps[-1].clamp(max=0), scene.animals[1]):.0%} fell on the {other}."
    )
    console.print("The model was never told where an animal is: it learned from labels alone.\n")
    if options.save:
        sheet(titles, pictures).save(options.save)
        console.print(f"Saved: {options.save}")
    else:
        console.print("[dim]Try: .venv/bin/python examples/demo.py snail conch --save snail.png[/]")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="ANIMAL", default=["zebra", "elephant"])
    parser.add_argument("--seed", type=int, default=5, help="another scene")
    parser.add_argument("--save", metavar="PICTURE", help="save what is shown as a PNG, too")
    options = parser.parse_args()
    if len(set(options.kinds)) != 2 or len(options.kinds) != 2:
        parser.error(f"name two animals that differ: they are {', '.join(menagerie.KINDS)}")
    return options


def share(strengths: Tensor, animal: menagerie.Animal) -> float:
    """How much of it lies on the animal's pixels; a patch spreads evenly over its own."""
    across = len(animal.mask) // len(strengths)
    spread = strengths.repeat_interleave(across, 0).repeat_interleave(across, 1).numpy()
    return float(spread[animal.mask].sum() / max(spread.sum(), 1e-12))


def show(console: Console, titles: list[str], pictures: list[Image.Image]) -> None:
    across = max(min(console.width // (COLUMNS + 2), len(pictures)), 1)
    for first in range(0, len(pictures), across):
        row = slice(first, first + across)
        console.print("  ".join(title[:COLUMNS].ljust(COLUMNS) for title in titles[row]), style="bold")
        console.print(Text("\n").join(Text("  ").join(line) for line in zip(*map(lines, pictures[row]), strict=True)))
        console.print()


def patches(explanation: heedmap.Explanation) -> Tensor:
    """What flowed from each patch, as a square from -1 to 1; the first token is CLS."""
    flowed = explanation["pixel_values"][0, 1:]
    side = round(len(flowed) ** 0.5)
    return (flowed / flowed.abs().max()).reshape(side, side)


def overlaid(picture: Image.Image, strengths: Tensor) -> Image.Image:
    """The map over the picture: white where nothing flowed, red for, blue against."""
    s = strengths.numpy()[..., None]
    colours = 255 + np.abs(s) * (np.where(s > 0, FOR, AGAINST) - 255)
    layer = Image.fromarray(colours.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    return Image.blend(picture, layer, FADED)


def lines(picture: Image.Image) -> list[Text]:
    """A picture in half blocks: the upper point is the character's colour, the lower one its background."""
    points = np.asarray(picture.resize((COLUMNS, COLUMNS), Image.Resampling.BOX)).tolist()
    return [
        Text.assemble(*(("▀", Style(color=rgb(above), bgcolor=rgb(below))) for above, below in zip(*pair, strict=True)))
        for pair in zip(points[::2], points[1::2], strict=True)
    ]


def rgb(point: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*point)


def sheet(
    titles: list[str], pictures: list[Image.Image], side: int = 288, gap: int = 12, head: int = 30
) -> Image.Image:
    whole = Image.new("RGB", (len(pictures) * (side + gap) - gap, side + head), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(18)
    for i, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        draw.text((i * (side + gap) + side // 2, head // 2), title, fill=(40, 40, 40), font=font, anchor="mm")
        whole.paste(picture.resize((side, side), Image.Resampling.NEAREST), (i * (side + gap), head))
    return whole


if __name__ == "__main__":
    main()
