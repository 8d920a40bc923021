"""How often images come in an epoch."""

import numpy as np
import pytest
from photos import folder
from pydantic import ValidationError

from edgecls.data.sampling import Sampling, epoch_order, make_sampling
from edgecls.data.sources import load_dataset
from edgecls.recipe import Data

LABELS = np.array([0] * 30 + [1] * 10 + [2] * 5 + [-1] * 7)


def counts(sampling, epoch=0, epochs=1, seed=0):
    return np.bincount(sampling.order(seed, epoch, epochs), minlength=len(sampling.first))


def test_systematic_sampling_rounds_each_rate_up_or_down_and_is_right_on_average():
    rates = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.25] * 8)
    sampling = Sampling(rates, rates)
    drawn = np.stack([counts(sampling, seed=seed) for seed in range(400)])
    assert (drawn.sum(axis=1) == 68).all() and sampling.size == 68
    assert (drawn >= np.floor(rates)).all() and (drawn <= np.ceil(rates)).all()
    assert np.abs(drawn.mean(axis=0) - rates).max() < 0.1  # a standard error is at most 0.025
    assert not np.array_equal(sampling.order(0, 0, 1), sampling.order(0, 1, 1))
    assert np.array_equal(sampling.order(3, 2, 5), sampling.order(3, 2, 5))


def test_oversampling_gives_every_class_as_many_as_the_largest():
    sampling = make_sampling(LABELS, np.ones(52), "oversample")
    drawn = counts(sampling)
    assert [drawn[k == LABELS].sum() for k in (0, 1, 2, -1)] == [30, 30, 30, 7]
    assert (
        (drawn[LABELS == 1] == 3).all()
        and (drawn[LABELS == 2] == 6).all()
        and (drawn[LABELS == 0] == 1).all()
    )


def test_balanced_sampling_keeps_the_length_of_the_epoch():
    sampling = make_sampling(LABELS, np.ones(52), "balanced")
    drawn = np.stack([counts(sampling, epoch, 50) for epoch in range(50)])
    assert sampling.size == 52 and (drawn.sum(axis=1) == 52).all()
    for k in (0, 1, 2):
        assert np.isclose(drawn[:, k == LABELS].sum(axis=1).mean(), 15, atol=0.7)
    assert (drawn[:, LABELS == -1] == 1).all() and (drawn.sum(axis=0) > 0).all()


def test_dynamic_sampling_goes_from_none_to_balanced():
    sampling = make_sampling(LABELS, np.ones(52), "dynamic")
    shares = [
        np.mean([counts(sampling, epoch, 11, seed)[:30].sum() for seed in range(40)]) for epoch in (0, 5, 10)
    ]
    assert np.allclose(shares, [30, 22.5, 15], atol=0.5) and (counts(sampling, 0, 11) == 1).all()


def test_weights_of_sources_and_classes_multiply():
    weights = np.where(np.arange(52) < 15, 2.0, 1.0)
    sampling = make_sampling(LABELS, weights, "balanced")
    assert np.isclose(sampling.last[LABELS == 0].sum(), sampling.last[LABELS == 2].sum())
    assert np.isclose(sampling.last[0], 2 * sampling.last[20]) and np.isclose(
        sampling.last.sum(), weights.sum()
    )
    assert make_sampling(LABELS, np.ones(52), "none") is None
    assert (make_sampling(LABELS, weights, "none").first == weights).all()
    nobody = make_sampling(np.full(4, -1), np.ones(4), "balanced")
    assert (nobody.last == 1).all()


def test_a_recipe_says_how_images_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    folder(tmp_path / "d", {"cat": 24, "dog": 6})
    plain = load_dataset(Data(path=str(tmp_path / "d")))
    assert plain.train.sampling is None and plain.train.epoch_size == len(plain.train)
    found = load_dataset(Data(path=str(tmp_path / "d"), sampling="oversample"))
    images, views = epoch_order(len(found.train), 0, 0, 1, found.train.sampling).T
    assert len({*zip(images.tolist(), views.tolist(), strict=True)}) == len(images) and views.max() >= 4
    drawn = np.bincount(found.train.labels[images])
    assert (
        drawn[0] == drawn[1] == (plain.train.labels == 0).sum() and found.train.sha256 != plain.train.sha256
    )
    assert any(
        note.startswith("data.sampling oversample: each labeled image comes 1 to 5.3 times")
        for note in found.notes
    )
    assert found.test.sampling is None and found.train.subset(np.arange(3)).epoch_size == 3
    with pytest.raises(ValidationError, match="both balance the classes"):
        Data(path="x", sampling="balanced", class_weights="balanced")
