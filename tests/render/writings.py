"""What a model wrote, with numbers that a test can name."""

import torch
from samples import explanation

from heedmap.families.producing import Produced
from heedmap.layouts import Shown, Words

SOURCE = Words(("the", "ze", "bra", "sleeps", "</s>"), ((0,), (1, 2), (3,)), {4: "</s>"})
WHOLE = Words(("<pad>", "le", "zè", "bre", "dort", "</s>"), ((1,), (2, 3), (4,)), {0: "<pad>", 5: "</s>"})
GIVEN = [[0.5, 0, 0, 0, 0], [0, 0.1, 0.3, 0, 9], [0, 0.3, 0.3, -0.5, 0], [0, 0, 0, -2, 0], [1, 0, 0, 0, 0]]
BEFORE = [[0.0], [9.0, 0.2], [0, 0.1, 0.4], [0, -1, 0.25, 0.25], [0, 1, 0, 0, 0]]


def begun(tokens):
    held = (tuple(token for token in word if token < tokens) for word in WHOLE.words)
    return Words(WHOLE.texts[:tokens], tuple(filter(None, held)), {0: "<pad>"})


def made(against=(), overruled=(), source=SOURCE, given=GIVEN, name="input_ids", picture=None):
    """Le zèbre dort, in five tokens; the numbers are those above."""
    parts = []
    for i, (read, before) in enumerate(zip(given, BEFORE, strict=True)):
        layouts = {name: source, "decoder_input_ids": begun(i + 1)}
        flows = {name: torch.tensor([read]).float(), "decoder_input_ids": torch.tensor([before]).float()}
        parts.append(explanation(flows, (Shown(layouts, text="the zebra sleeps", picture=picture),)))
    return Produced(
        "le zèbre dort", "decoder_input_ids", 1, (5, 6, 7, 8, 1), WHOLE, tuple(parts), overruled, against, True
    )
