"""Which cores of a phone are its big ones, also when some are switched off at the moment."""

from __future__ import annotations

from collections.abc import Sequence

from android_bench.devices.probe import Facts, State
from android_bench.devices.profiles import Cluster


def layout(about: Facts, now: State) -> tuple[tuple[Cluster, ...], str]:
    """The clusters of all cores of a phone, slowest first, and what must be said about them.

    A core that is offline does not tell its clock. Then, and where no core does, the clusters are those of the chip's
    profile; empty where the chip is not known.
    """
    seen, absent = now.clusters(), now.absent(about.cores)
    if seen and not absent:
        return seen, ""
    known = [chip.clusters for chip in about.chips(seen)]
    agree = len({tuple(cluster.mask for cluster in clusters) for clusters in known}) == 1
    why = f"{cores_named(absent)} offline" if seen else "the phone does not tell its clocks"
    if not agree:
        return (), f"{why}; which cores are the big ones is not known" if seen else ""
    clusters = tuple(map(_common, *known))
    return clusters, f"{why}; the big cores are those of its profile"


def _common(first: Cluster, *others: Cluster) -> Cluster:
    """A cluster as far as chips that cannot be told apart agree on it."""
    return first if all(first == other for other in others) else Cluster(first.mask, None)


def cores_named(cores: Sequence[int]) -> str:
    """Cores in words, with their verb.

    Example:
        >>> cores_named([7]), cores_named([4, 5, 6, 7]), cores_named([0, 7])
        ('core 7 is', 'cores 4-7 are', 'cores 0, 7 are')
    """
    if len(cores) == 1:
        return f"core {cores[0]} is"
    first, last = cores[0], cores[-1]
    whole = len(cores) > 2 and last - first == len(cores) - 1
    return f"cores {f'{first}-{last}' if whole else ', '.join(map(str, cores))} are"
