"""Models that answer questions from regions, asked about drawn scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from heedmap.evaluation.drawn import deciding
from heedmap.evaluation.leaderboard.cases import Case
from heedmap.evaluation.leaderboard.trials import SEEDS, Trial
from heedmap.families.regions import read
from heedmap.menagerie import questions
from heedmap.records import Explanation

REGIONS, WORDS = "visual_feats", "input_ids"


class Answerer(Trial):
    """Questions of which it is known which animals decide the answer; what the model answers is explained."""

    def placed(self, count: int) -> list[Case]:
        return self._asked(count, SEEDS)

    def details(self, count: int) -> list[Case]:
        return self._asked(count, SEEDS + 20_000, held=True)

    def _asked(self, count: int, seed: int, held: bool = False) -> list[Case]:
        """Those of which some regions decide and some do not; `held` against the answer that is likeliest next."""
        asked = list(questions(count, seed))
        cases = []
        for start in range(0, count, self.batch):
            together = asked[start : start + self.batch]
            images, texts = [scene.image for scene, _ in together], [question.text for _, question in together]
            found = read(None, images, [None] * len(images), self.model.source)
            with torch.no_grad():
                output = self.model.module(**self.model.inputs(images, texts, list(found))[0])
            first = output.question_answering_score.topk(2, -1).indices.tolist()
            for (scene, question), regions, (index, other) in zip(together, found, first, strict=True):
                own = deciding(scene, question, np.asarray(regions.boxes))
                if own.any() and not own.all():
                    given = {"image": scene.image, "text": question.text, "regions": regions}
                    cases.append(Case(scene.seed, given, index, None, other if held else None, own, ~own, own))
        return cases

    def units(self, explanation: Explanation, example: int) -> np.ndarray:
        row = explanation[REGIONS][example].detach().double().nan_to_num(0.0).cpu().numpy()
        return np.delete(row, list(explanation.shown[example].layouts[REGIONS].special))  # padding

    def tokens(self, explanation: Explanation, example: int) -> np.ndarray:
        """Regions and words, without padding."""
        said = []
        for stream in (REGIONS, WORDS):
            if stream in explanation.streams:
                row = explanation[stream][example].detach().double().cpu().numpy().copy()
                row[list(explanation.shown[example].layouts[stream].special)] = np.nan
                said.append(row)
        return np.concatenate(said)

    def hidden(self, cases: Sequence[Case], masks: Sequence[np.ndarray]) -> dict[str, Tensor]:
        inputs = dict(self.fed(cases).inputs)
        there = inputs["visual_attention_mask"].clone()
        for i, mask in enumerate(masks):
            there[i, np.flatnonzero(mask)] = 0
        return {**inputs, "visual_attention_mask": there}
