"""The only room that touches torch's internals: run a model as it stands and record every attention call.

`record` runs the model once and returns a `Recording`: the output, the calls with where their tokens come from,
and `backward`, which delivers the gradient of each call's output, last call first.
"""

from heedmap.capture.attention import Attention
from heedmap.capture.names import check_parameters
from heedmap.capture.recording import Recording, record

__all__ = ["Attention", "Recording", "check_parameters", "record"]
