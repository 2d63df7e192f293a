"""Explain a small random ViT in the terminal: its wiring, the value, and what each patch did."""

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

import heedmap
from heedmap import logit
from heedmap.installs import transformers

PATCHES = 14  # a side of the grid
STRONGEST = 5
FOR, AGAINST, NEUTRAL = (202, 0, 32), (5, 113, 176), (245, 245, 245)


def tiny_vit() -> torch.nn.Module:
    torch.manual_seed(7)
    hub = transformers()
    config = hub.ViTConfig(
        image_size=16 * PATCHES,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        num_labels=1000,
        initializer_range=0.1,
    )
    return hub.ViTForImageClassification(config).eval()


def drawing() -> Tensor:
    """A bright disc on a dark gradient, (1, 3, height, width)."""
    side = torch.linspace(-1, 1, 16 * PATCHES)
    y, x = torch.meshgrid(side, side, indexing="ij")
    disc = ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.2).float()
    return torch.stack([disc + 0.2 * x, disc * 0.6 + 0.2 * y, 0.3 * x * y]).unsqueeze(0)


def cell(strength: float) -> Text:
    """One patch: its colour is the strength in -1 .. 1, its letter the sign (for output without colour)."""
    end = FOR if strength > 0 else AGAINST
    red, green, blue = (round(n + (e - n) * abs(strength)) for n, e in zip(NEUTRAL, end, strict=True))
    letter = "·" if abs(strength) < 0.25 else "+" if strength > 0 else "-"
    return Text(f"{letter} ", style=f"#202020 on #{red:02x}{green:02x}{blue:02x}")


def picture(strengths: Tensor) -> Text:
    rows = [Text("  ").append_text(Text.assemble(*map(cell, row))) for row in strengths.tolist()]
    return Text("\n").join(rows)


def ranking(flowed: Tensor) -> Table:
    table = Table("for", "row, column", "against", "row, column", box=None, header_style="bold", pad_edge=True)
    order = flowed.flatten().argsort(descending=True).tolist()
    for best, worst in zip(order[:STRONGEST], order[::-1][:STRONGEST], strict=True):
        cells = [(f"{flowed.flatten()[i]:+.2e}", f"{i // PATCHES}, {i % PATCHES}") for i in (best, worst)]
        table.add_row(*cells[0], *cells[1])
    return table


def main() -> None:
    console = Console(highlight=False)
    model, inputs = tiny_vit(), {"pixel_values": drawing()}
    target = logit(340) - logit(386)
    explanation = heedmap.explain(model, inputs, target=target)
    patches = explanation["pixel_values"][0, 1:].reshape(PATCHES, PATCHES)  # without CLS

    console.print("\n[bold]Which tokens read which[/], found while the model ran")
    console.print(str(explanation.wiring), soft_wrap=True)

    console.print(f"\n[bold]{explanation.target}[/] = {explanation.value.item():+.4f}")
    console.print("What every patch did [bold #d95f02]for (+)[/] and [bold #2c7bb6]against (-)[/] it\n")
    console.print(picture(patches / patches.abs().max()))

    console.print("\n[bold]The strongest patches[/]")
    console.print(ranking(patches))
    console.print("\n[dim]The weights are random, so the picture has no meaning yet; the numbers are exact.[/]")


if __name__ == "__main__":
    main()
