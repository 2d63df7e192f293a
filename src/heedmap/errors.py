"""Everything heedmap raises on purpose.

    HeedmapError
    ├── ModelError            the model cannot be explained as it stands
    │   ├── NoAttentionError      no attention call was met
    │   ├── NotEvalError          dropout is active: call model.eval()
    │   ├── UnsupportedError      a form heedmap does not follow (scripted, checkpointed, cached ...)
    │   └── BrokenInstallError    a package beside torch is missing or broken
    ├── InputError            inputs, batch or token counts that disagree
    ├── WiringError           which tokens a call reads is not certain: declare `wiring=`
    │   ├── MixedTokensError      tokens are moved or mixed between calls
    │   └── WindowsError          a call holds another number of examples than the target
    ├── ReadoutError          which rows the target reads is not certain: declare `readout=`
    ├── GradientError         relevance arrives where no gradient does
    ├── TargetError           the target is not one finite number per example
    │   ├── LabelError            an unknown label or an index out of range
    │   ├── QuotientError         a quotient whose meaning would turn round
    │   └── DisconnectedError     the target does not depend on any attention call
    └── FileFormatError       a file that is not an explanation, or is of a later version

Every message says what was met, what was expected and what to do.
"""


class HeedmapError(Exception):
    """The root of everything heedmap raises on purpose."""


class ModelError(HeedmapError):
    """The model cannot be explained as it stands."""


class NoAttentionError(ModelError):
    """No attention call was met."""


class NotEvalError(ModelError):
    """Dropout or batch statistics are active."""


class UnsupportedError(ModelError):
    """A form heedmap does not follow."""


class BrokenInstallError(ModelError):
    """A package beside torch is missing or broken."""


class InputError(HeedmapError, ValueError):
    """Inputs, batch or token counts that disagree."""


class WiringError(HeedmapError):
    """Which tokens a call reads is not certain."""


class MixedTokensError(WiringError):
    """Tokens are moved or mixed between calls."""


class WindowsError(WiringError, InputError):
    """A call holds another number of examples than the target."""


class ReadoutError(HeedmapError):
    """Which rows the target reads is not certain."""


class GradientError(HeedmapError):
    """Relevance arrives where no gradient does."""


class TargetError(HeedmapError, ValueError):
    """The target is not one finite number per example."""


class LabelError(TargetError):
    """An unknown label or an index out of range."""


class QuotientError(TargetError):
    """A quotient whose meaning would turn round at the logits met."""


class DisconnectedError(TargetError):
    """The target does not depend on any attention call."""


class FileFormatError(HeedmapError):
    """A file that is not an explanation, or one of a later version."""
