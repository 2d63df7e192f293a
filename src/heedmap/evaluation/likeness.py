"""How like two pictures are to whoever looks at them: PSNR and SSIM, of 8-bit pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LEVELS = 255
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, in pixels
K1, K2 = 0.01, 0.03
LUMINANCE = (0.299, 0.587, 0.114)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """10 log10(255² / mean squared difference) over all pixels and channels, in dB; infinite where nothing differs."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(LEVELS**2 / error) if error else math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of the luminance of two pictures (height, width, 3).

    The mean over every place at which a Gaussian window fits whole; NaN for pictures smaller than the window.
    """
    x, y = (picture.astype(np.float64) @ np.asarray(LUMINANCE) for picture in (a, b))
    if min(x.shape) < WINDOW:
        return math.nan
    mean_x, mean_y = _local(x), _local(y)
    spread_x = _local(x * x) - mean_x**2
    spread_y = _local(y * y) - mean_y**2
    shared = _local(x * y) - mean_x * mean_y
    c1, c2 = (K1 * LEVELS) ** 2, (K2 * LEVELS) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    return float((alike / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))).mean())


def _local(values: np.ndarray) -> np.ndarray:
    """The Gaussian mean around each pixel that is far enough from the edge."""
    away = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(away**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    down = sliding_window_view(values, WINDOW, axis=0) @ weights
    return sliding_window_view(down, WINDOW, axis=1) @ weights
