"""GAE as its authors' generators run it, rule by rule and in their order: one example, full matrices, float64 numpy.

Nothing is taken from the package. `maps` are the positive maps of one example's calls, in call order (rule 5).
With official=True rule 9 is left to divide 0 by 0, and NaNs of what rule 10 adds are set to 0. With plain=True rules 8
and 9 are gone and rule 10 adds A R_kk: what the second paper says its own positive correction comes down to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dense import Array


@dataclass(frozen=True)
class Rules:
    official: bool = False
    plain: bool = False

    def normalised(self, r: Array) -> Array:
        """Rules 8 and 9: the identity off, rows made to sum to 1, the identity on again."""
        hat = r - np.eye(len(r))
        total = hat.sum(axis=1, keepdims=True)
        if self.official:
            with np.errstate(invalid="ignore"):
                return hat / total + np.eye(len(r))
        return np.divide(hat, total, out=np.zeros_like(hat), where=total != 0) + np.eye(len(r))

    def crossed(self, r_ss: Array, a: Array, r_qq: Array) -> Array:
        """What rule 10 adds to R_sq."""
        if self.plain:
            return a @ r_qq
        added = self.normalised(r_ss).T @ a @ self.normalised(r_qq)
        return np.nan_to_num(added, nan=0.0) if self.official else added


CLEAN = Rules()


def detr(maps: Sequence[Array], encoder: int, decoder: int, rules: Rules = CLEAN) -> tuple[Array, Array]:
    """R_qi and R_qq of a model whose encoder ends before its decoder begins."""
    waiting = iter(maps)
    first, cross = maps[0], maps[encoder + 1]
    r_ii, r_qq, r_qi = np.eye(len(first)), np.eye(len(cross)), np.zeros(cross.shape)
    for _ in range(encoder):
        r_ii = r_ii + next(waiting) @ r_ii
    for _ in range(decoder):
        a = next(waiting)
        r_qq, r_qi = r_qq + a @ r_qq, r_qi + a @ r_qi
        r_qi = r_qi + rules.crossed(r_qq, next(waiting), r_ii)
    assert next(waiting, None) is None
    return r_qi, r_qq


def lxmert(maps: Sequence[Array], language: int, vision: int, cross: int, rules: Rules = CLEAN) -> tuple[Array, Array]:
    """R_ti and R_tt; the last cross-modality layer runs on its language side only."""
    waiting = iter(maps)
    t, i = len(maps[0]), len(maps[language])
    r_tt, r_ii, r_ti, r_it = np.eye(t), np.eye(i), np.zeros((t, i)), np.zeros((i, t))
    for _ in range(language):
        a = next(waiting)
        r_tt, r_ti = r_tt + a @ r_tt, r_ti + a @ r_ti
    for _ in range(vision):
        a = next(waiting)
        r_ii, r_it = r_ii + a @ r_ii, r_it + a @ r_it
    for layer in range(cross):
        a_ti, a_it, a_tt, a_ii = (next(waiting) for _ in range(4))
        d_ti, d_tt = rules.crossed(r_tt, a_ti, r_ii), a_ti @ r_it
        d_it, d_ii = rules.crossed(r_ii, a_it, r_tt), a_it @ r_ti
        r_ti, r_tt = r_ti + d_ti, r_tt + d_tt
        if layer < cross - 1:
            r_it, r_ii = r_it + d_it, r_ii + d_ii
        r_tt, r_ti = r_tt + a_tt @ r_tt, r_ti + a_tt @ r_ti
        if layer < cross - 1:
            r_ii, r_it = r_ii + a_ii @ r_ii, r_it + a_ii @ r_it
    assert next(waiting, None) is None
    return r_ti, r_tt
