"""The figures and tables of *Generic Interpretation Approach for Transformer Models Incorporating Heterogenous
Attention Structures*."""

from collections.abc import Callable, Mapping

from heedmap.reproduce.findings import Finding, Setting

OF_DETECTIONS: Mapping[str, Callable[[Setting], Finding]] = {}
OF_QUESTIONS: Mapping[str, Callable[[Setting], Finding]] = {}

FIGURES = {  # by the task of the models they are of
    "object-detection": OF_DETECTIONS,
    "visual-question-answering": OF_QUESTIONS,
}
