"""Operations on a batch: what they mix, and how much."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgecls.augment import Augment, Mixer
from edgecls.augment.settings import only


def mixed(pixels, targets, count, **settings):
    mixer = Mixer(Augment.model_validate(only(**settings)), seed=1)
    return [mixer(pixels.copy(), targets.copy(), i) for i in range(count)]


def test_mixup_mixes_pixels_and_targets_alike():
    pixels = np.arange(5, dtype=np.float32)[:, None, None, None] * np.ones((5, 4, 4, 3), np.float32)
    for x, y in mixed(pixels, np.eye(5, dtype=np.float32), 100, mixup={"alpha": 0.2}):
        np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(x[:, 0, 0, 0], y @ np.arange(5), atol=1e-5)
        assert x.dtype == y.dtype == np.float32


@pytest.mark.parametrize("alpha", [1e-4, 0.2, 1.0, 8.0])
def test_mixup_share_is_beta(alpha):
    pixels, targets = np.zeros((2, 1, 1, 3), np.float32), np.eye(2, dtype=np.float32)
    shares = [y[0, 0] for _, y in mixed(pixels, targets, 4000, mixup={"alpha": alpha}) if y[0, 0] != 1]
    assert np.isfinite(shares).all()
    if alpha >= 0.2:
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
