"""One attention call as the equations take it: its weights, the rows it read and the rows it gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Attended:
    """One call. `output` is a leaf of its own where the run was cut.

    `as_weights` and `as_output` put the axes of weights and output as (..., query, key) and (..., query, channel).
    """

    weights: Tensor
    queries: Tensor  # (..., query, channel)
    values: Tensor  # (..., key, channel)
    output: Tensor
    as_weights: Sequence[int] | None = None
    as_output: Sequence[int] | None = None

    def plain(self, weights: Tensor) -> Tensor:
        """Weights, or their gradient, as (group, head, query, key)."""
        return self.rows(weights if self.as_weights is None else weights.permute(*self.as_weights))

    def laid(self, output: Tensor) -> Tensor:
        return output if self.as_output is None else output.permute(*self.as_output)

    def sizes(self, gradient: Tensor) -> Tensor:
        """Of each row of the output, all groups one behind the other, the size of a gradient."""
        return self.rows(self.laid(gradient.detach())).square().sum((1, 3)).sqrt().flatten()

    @staticmethod
    def rows(tensor: Tensor) -> Tensor:
        """As (group, head, token, ...): what stands before heads are groups that do not see each other."""
        if tensor.ndim <= 4:
            return tensor[(None,) * (4 - tensor.ndim)]
        return tensor.flatten(1, -3)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Groups, queries, keys."""
        shape = self.plain(self.weights).shape
        return shape[0], shape[2], shape[3]

    def map(self, gradient: Tensor) -> Tensor:
        """A_bar, (group, query, key), from the gradient of the weights."""
        return (self.plain(gradient) * self.plain(self.weights)).mean(1).detach()
