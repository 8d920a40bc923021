"""Which items belong together: equal names, and pairs that connect them. No TensorFlow."""

import numpy as np

from edgecls.data.groups import connected, first_equal, repeated


def test_the_first_equal_key_is_found():
    rng = np.random.default_rng(0)
    for many in (1, 5, 1000):  # nearly all equal, several each, nearly all different
        keys = [f"name {number}" for number in rng.integers(0, many, 400)]
        assert first_equal(keys).tolist() == [keys.index(key) for key in keys]
        assert repeated(keys).tolist() == [i for i, key in enumerate(keys) if keys.count(key) > 1]
    assert first_equal([]).tolist() == []


def test_keys_of_one_hash_are_different_keys():
    class Key(str):
        def __hash__(self):
            return 1

    assert first_equal([Key("a"), Key("b"), Key("a")]).tolist() == [0, 1, 0]


def test_connected_agrees_with_joining_one_pair_after_the_other():
    rng = np.random.default_rng(1)
    for count, pairs in ((40, 0), (40, 10), (40, 30), (300, 200)):
        first = first_equal([str(number) for number in rng.integers(0, 2 * count, count)])
        chosen = rng.integers(0, count, (pairs, 2))
        expected = first.tolist()
        for left, right in chosen.tolist():
            low, high = sorted((expected[left], expected[right]))
            expected = [low if group == high else group for group in expected]
        assert connected(first, chosen).tolist() == expected


def test_a_long_chain_is_one_group():
    order = np.random.default_rng(2).permutation(1000)
    chain = np.stack([order[:-1], order[1:]], axis=1)
    assert (connected(np.arange(1000), chain) == 0).all()
