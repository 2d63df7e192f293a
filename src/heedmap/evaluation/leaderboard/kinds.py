"""Which trial is for which kind of model."""

from __future__ import annotations

from heedmap.errors import InputError
from heedmap.evaluation.leaderboard.answered import Answerer
from heedmap.evaluation.leaderboard.pictured import Classifier, Detector, Matcher
from heedmap.evaluation.leaderboard.trials import Trial
from heedmap.families import Model

TRIALS: dict[str, type[Trial]] = {
    "image-classification": Classifier,
    "object-detection": Detector,
    "zero-shot-image-classification": Matcher,
    "visual-question-answering": Answerer,
}


def trial(model: Model) -> Trial:
    if model.task not in TRIALS:
        raise InputError(
            f"{model.source!r} does {model.task}. heedmap expected a model of the zoo that can be asked about drawn "
            "scenes: zoo:vit, zoo:vit-deep, zoo:detr, zoo:lxmert or zoo:clip."
        )
    return TRIALS[model.task](model)
