"""Several workers make the batches that one makes, each its own share of them."""

from __future__ import annotations

import numpy as np
import pytest
from photos import split_of

from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.errors import UsageError
from edgecls.recipe import Augment


@pytest.mark.parametrize(
    "settings", [{"mixup": {}, "repeats": 2}, {"cutmix": {"probability": 0.5}, "mixup": {}}, {}]
)
def test_workers_make_together_the_batches_that_one_makes(settings):
    rng = np.random.default_rng(0)
    split = split_of(rng.integers(0, 256, (100, 16, 16, 3), dtype=np.uint8), np.arange(100) % 4)
    keys = {"training": True, "augment": Augment(**settings), "seed": 3, "classes": 4, "epochs": 5}

    def epoch(worker, workers):
        feed = Batches(split, Preprocess(16, 16), 32, share=(worker, workers), **keys)
        return [(x.numpy(), y.numpy()) for x, y in feed.epoch(1, start=1)]

    whole = epoch(0, 1)
    assert len(whole) == 2
    for workers in (2, 4):
        shares = [epoch(worker, workers) for worker in range(workers)]
        for step, (pixels, targets) in enumerate(whole):
            for worker, share in enumerate(shares):
                assert np.array_equal(share[step][0], pixels[worker::workers])
                assert np.array_equal(share[step][1], targets[worker::workers])


def test_a_batch_that_workers_cannot_share_is_refused():
    split = split_of(np.zeros((40, 16, 16, 3), np.uint8), np.zeros(40, int))
    with pytest.raises(UsageError, match=r"a batch of 9 cannot be divided among 2 workers; .* multiple of 2"):
        Batches(split, Preprocess(16, 16), 9, training=True, share=(0, 2))
    mixing = Augment.model_validate({"mixup": {}})
    with pytest.raises(UsageError, match=r"mixed in groups of 8 cannot be divided among 2 .* multiple of 16"):
        Batches(split, Preprocess(16, 16), 8, training=True, augment=mixing, share=(0, 2))
