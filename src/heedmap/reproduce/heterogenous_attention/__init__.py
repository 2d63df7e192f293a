"""The figures and tables of *Generic Interpretation Approach for Transformer Models Incorporating Heterogenous
Attention Structures*."""

from collections.abc import Callable, Mapping

from heedmap.reproduce.findings import Finding, Setting
from heedmap.reproduce.heterogenous_attention import (
    answers,
    detections,
    inspection,
    masks,
    reading,
    removals,
    tables,
)

OF_DETECTIONS: Mapping[str, Callable[[Setting], Finding]] = {
    "figure-2": detections.figure_2,
    "figure-3": masks.figure_3,
    "figure-4": masks.figure_4,
    "table-1": tables.table_1,
    "table-2": tables.table_2,
}
OF_QUESTIONS: Mapping[str, Callable[[Setting], Finding]] = {
    "figure-5": answers.figure_5,
    "figure-6": removals.figure_6,
    "figure-7": reading.figure_7,
    "figure-8": inspection.figure_8,
}

FIGURES = {  # by the task of the models they are of
    "object-detection": OF_DETECTIONS,
    "visual-question-answering": OF_QUESTIONS,
}
