"""The zoo's question answerer: LXMERT over the regions that the zoo's detector finds.

1. The detector looks once at every training scene. What it finds is kept: a region's feature is the state of its
   object query (heedmap.zoo.regions), its position the box. Mistakes are kept too: the answerer must live with them.
2. Several questions of every type are asked of each scene, by the law of heedmap.menagerie.asking, and LXMERT learns
   to answer them from words and regions. It sees no true box, kind or colour.

AdamW at 1e-3, up over 200 steps, then straight down to nothing; batches of 128 questions, in which the types come
evenly, but "both" twice, because conjunction is learned last. No dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from transformers import LxmertConfig, LxmertForQuestionAnswering, LxmertTokenizer

from heedmap import menagerie, zoo
from heedmap.menagerie.asking import TYPES, answers, ask
from heedmap.zoo.describing import describe, detector, padded
from heedmap.zoo.regions import Regions

from .common import STATE, Options, console, digest, falling, finish, loop, read_options, trained

NAME = "lxmert"
FIRST = 40_000_000  # seed of the first training scene
SCENES = 40_000
CHUNK = 1_000  # scenes looked at between two saves
AT_ONCE = 50
EACH = 3  # questions of each type asked of each scene
QUESTIONS, BATCH = 512_000, 128
RATE, DECAY = 1e-3, 0.01
TURNS = ("exists", "both", "both", "colour", "count", "left")  # conjunction is learned last: it comes twice

Describe = Callable[[Sequence[Image]], list[Regions]]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = "is there a an and what colour the how many animals are which animal left of ?".split()
LONGEST = 12  # words of a question, with [CLS], [SEP] and the question mark


@dataclass(frozen=True)
class Bank:
    """Scenes as regions, and the questions asked of them."""

    features: Tensor  # (scene, region, feature), float16
    boxes: Tensor  # (scene, region, 4)
    there: Tensor  # (scene, region): not padding
    scene: Tensor  # (question,)
    type: Tensor  # (question,)
    words: Tensor  # (question, word): token ids
    answer: Tensor  # (question,): label ids

    def __len__(self) -> int:
        return len(self.scene)

    def inputs(self, rows: Tensor, device: str = "cpu") -> dict[str, Tensor]:
        """What the model takes for some of the questions."""
        scene, words = self.scene[rows], self.words[rows].long()
        there = self.there[scene]
        most, longest = int(there.sum(1).max()), int((words != 0).sum(1).max())
        given = {
            "input_ids": words[:, :longest],
            "attention_mask": (words[:, :longest] != 0).float(),
            "visual_feats": self.features[scene, :most].float(),
            "visual_pos": self.boxes[scene, :most],
            "visual_attention_mask": there[:, :most],
        }
        return {name: tensor.to(device) for name, tensor in given.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(NAME, QUESTIONS, BATCH, arguments)
    torch.manual_seed(0)
    detector()[0].to(options.device)
    detr = digest(zoo.path("detr") / "model.safetensors")[:12]  # what another detector saw is of no use
    bank = gather(SCENES, describe, STATE / f"{NAME}-regions-{detr}-{EACH}")
    model, seconds = train(bank, options)
    card = {
        "recipe": [line for line in (__doc__ or "").splitlines() if line],
        "seeds": {"training": [FIRST, FIRST + SCENES - 1], "held out": {"questions": [300_000, 301_999]}},
        "trained": trained(seconds, options.steps * BATCH, options).replace("images", f"questions on {SCENES} scenes"),
    }
    finish(NAME, model.cpu(), [tokenizer()], card, options)


def train(bank: Bank, options: Options) -> tuple[LxmertForQuestionAnswering, float]:
    model = LxmertForQuestionAnswering(config(bank.features.shape[-1])).to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=DECAY, fused=True)
    of_type = [torch.nonzero(bank.type == type).flatten() for type in range(len(TYPES))]

    def step(number: int) -> Tensor:
        rows = pick(of_type, number)
        logits = model(**bank.inputs(rows, options.device)).question_answering_score
        loss = F.cross_entropy(logits, bank.answer[rows].to(options.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * falling(number, options.steps)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    seconds = loop(NAME, options, {"model": model, "optimizer": optimizer}, step, BATCH)
    return model.eval(), seconds


def pick(of_type: Sequence[Tensor], number: int) -> Tensor:
    """The questions of a step: types in turn, each time another of its questions."""
    draw = torch.Generator().manual_seed(number)
    turns = torch.tensor([TYPES.index(TURNS[i % len(TURNS)]) for i in range(BATCH)])
    chance = torch.rand(BATCH, generator=draw)
    return torch.cat([rows[(chance[turns == type] * len(rows)).long()] for type, rows in enumerate(of_type)])


# -- model and words ---------------------------------------------------------------------------------------------------


def config(features: int) -> LxmertConfig:
    labels = dict(enumerate(answers()))
    return LxmertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=96,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=LONGEST + 4,
        l_layers=2,
        r_layers=1,
        x_layers=2,
        visual_feat_dim=features,
        visual_pos_dim=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_qa_labels=len(labels),
        num_object_labels=len(menagerie.KINDS),
        num_attr_labels=len(menagerie.COLOURS),
        id2label=labels,
        label2id={answer: label for label, answer in labels.items()},
        pad_token_id=0,
    )


def vocabulary() -> dict[str, int]:
    """Whole words only: those of the questions."""
    words = [*SPECIAL, *WORDS, *(word for kind in menagerie.KINDS for word in kind.split())]
    return {word: i for i, word in enumerate(dict.fromkeys(words))}


def tokenizer() -> LxmertTokenizer:
    return LxmertTokenizer(vocab=vocabulary(), model_max_length=LONGEST + 4)


# -- scenes as regions, and questions about them -----------------------------------------------------------------------


def gather(n: int, describe: Describe, folder: Path | None = None, first: int = FIRST) -> Bank:
    """n scenes as the detector sees them, and the questions asked of them; chunks in the folder are not made again."""
    chunks = []
    starts = range(first, first + n, CHUNK)
    for start in track(starts, f"{NAME}: the detector looks at {n} scenes", console=console):
        size = min(CHUNK, first + n - start)
        path = folder and folder / f"{start}-{size}.pt"
        if path and path.exists():
            chunks.append(torch.load(path, weights_only=True))
            continue
        chunks.append(look(start, size, describe))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(chunks[-1], path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
    return joined(chunks)


def look(first: int, n: int, describe: Describe) -> dict[str, Tensor]:
    """One chunk, its questions numbered by its own scenes."""
    scenes = list(menagerie.scenes(n, first))
    found = []
    for start in range(0, n, AT_ONCE):
        found += describe([scene.image for scene in scenes[start : start + AT_ONCE]])
    regions = padded(found)
    asked = [(i, question) for i, scene in enumerate(scenes) for question in several(scene)]
    texts = [question.text for _, question in asked]
    label = {answer: i for i, answer in enumerate(answers())}
    return {
        "features": regions["visual_feats"].cpu().half(),
        "boxes": regions["visual_pos"].cpu(),
        "there": regions["visual_attention_mask"].cpu(),
        "scene": torch.tensor([i for i, _ in asked]),
        "type": torch.tensor([TYPES.index(question.type) for _, question in asked]),
        "words": tokenizer()(texts, padding="max_length", max_length=LONGEST, return_tensors="pt")["input_ids"].char(),
        "answer": torch.tensor([label[question.answer] for _, question in asked]),
    }


def several(scene: menagerie.Scene) -> list:
    asked = (ask(scene, scene.seed * EACH + turn, type) for type in TYPES for turn in range(EACH))
    return [question for question in asked if question is not None]


def joined(chunks: Sequence[dict[str, Tensor]]) -> Bank:
    most = max(chunk["there"].shape[1] for chunk in chunks)
    offset = 0
    parts = []
    for chunk in chunks:
        wider = {name: widened(chunk[name], most) for name in ("features", "boxes", "there")}
        parts.append(chunk | wider | {"scene": chunk["scene"] + offset})
        offset += len(chunk["there"])
    return Bank(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def widened(rows: Tensor, most: int) -> Tensor:
    """Padding up to `most` regions."""
    return torch.cat([rows, rows.new_zeros(rows.shape[0], most - rows.shape[1], *rows.shape[2:])], 1)


if __name__ == "__main__":
    main()
