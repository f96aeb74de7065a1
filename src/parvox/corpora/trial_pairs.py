"""Draw trials among the utterances of a split, so that they are neither trivially easy nor one speaker's affair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.entries import Entry
from parvox.corpora.trials import Trial

Integers = NDArray[np.int64]
Allowed = Callable[[Integers], NDArray[np.bool_]]
"""Which of (pairs, 2) places may be drawn."""

_MAX_UTTERANCES = 1500  # of one speaker, for all their pairs are laid out
_ROUNDS = 50
_PLENTY = 10  # so many times the pairs there are: drawing them at random would only repeat itself


def draw_trials(
    entries: Sequence[Entry], *, total: int, nontargets_per_target: int, seed: Sequence[int]
) -> list[Trial]:
    """Draw target and non-target trials.

    Targets: two utterances of one speaker that are not pieces of one continuous recording; from different sessions
    wherever the speaker has a pair of them. No speaker gives more than twice an even share.
    Non-targets: two utterances of one source (another microphone or language would give the impostor away) by
    different speakers, of one gender wherever the source has another speaker of that gender. Every speaker enrols
    equally often as far as possible, also speakers without a target pair.

    Args:
        entries: The utterances of a split, no two of the same content. Their order does not matter.
        total: Trials wanted at the most.
        nontargets_per_target: How many non-targets for each target.
        seed: Integers that start the generator.

    Returns:
        Trials sorted by ids; empty if there is no target or no non-target.
    """
    entries = sorted(entries, key=lambda entry: entry.id)
    rng = np.random.default_rng(list(seed))
    targets = same_speaker_pairs(entries, max(total // (1 + nontargets_per_target), 1), rng)
    nontargets = other_speaker_pairs(entries, nontargets_wanted(len(targets), total, nontargets_per_target), rng)
    if not len(targets) or not len(nontargets):
        return []
    ids = [entry.id for entry in entries]
    trials = [Trial(ids[enrol], ids[test], True) for enrol, test in targets.tolist()]
    trials += [Trial(ids[enrol], ids[test], False) for enrol, test in nontargets.tolist()]
    return sorted(trials)


def nontargets_wanted(targets: int, total: int, nontargets_per_target: int) -> int:
    """How many non-targets go with so many targets, without more than `total` trials, but one at least."""
    return min(targets * nontargets_per_target, max(total - targets, 1))


def _numbers(names: Sequence[object]) -> Integers:
    """Equal names to equal numbers, counted in sorted order."""
    return np.unique(np.array([str(name) for name in names]), return_inverse=True)[1].astype(np.int64)


def same_speaker_pairs(
    entries: Sequence[Entry], wanted: int, rng: np.random.Generator, allowed: Allowed | None = None
) -> Integers:
    """Pairs of utterances of one speaker, drawn as `draw_trials` draws targets.

    Args:
        entries: Utterances, sorted by id.
        wanted: Pairs wanted at the most.
        rng: Draws.
        allowed: Which pairs come into question, if not all.

    Returns:
        (pairs, 2) places in `entries`.
    """
    speakers = _numbers([entry.speaker for entry in entries])
    recordings = _numbers([entry.recording or entry.id for entry in entries])
    sessions = _numbers([entry.session for entry in entries])
    order = np.argsort(speakers, kind="stable")
    groups = [
        utterances
        for utterances in np.split(order, np.flatnonzero(np.diff(speakers[order])) + 1)
        if len(np.unique(recordings[utterances])) > 1  # then, and only then, there is a pair
    ]
    if not groups:
        return np.zeros((0, 2), np.int64)
    most = 2 * -(-wanted // len(groups))
    found: list[Integers] = []
    for utterances in groups:
        if len(utterances) > _MAX_UTTERANCES:
            utterances = np.sort(rng.choice(utterances, _MAX_UTTERANCES, replace=False))
        first, second = np.triu_indices(len(utterances), 1)
        pairs = np.stack([utterances[first], utterances[second]], axis=1)
        pairs = pairs[recordings[pairs[:, 0]] != recordings[pairs[:, 1]]]
        if allowed is not None:
            pairs = pairs[allowed(pairs)]
        across = pairs[sessions[pairs[:, 0]] != sessions[pairs[:, 1]]]
        pairs = across if len(across) else pairs
        found.append(pairs[rng.choice(len(pairs), min(len(pairs), most), replace=False)])
    counts = np.array([len(pairs) for pairs in found], np.int64)
    shares = _level(counts, wanted, rng)
    targets = np.concatenate([pairs[:share] for pairs, share in zip(found, shares, strict=True)])
    turn = rng.random(len(targets)) < 0.5
    targets[turn] = targets[turn][:, ::-1]
    return targets


def _level(counts: Integers, wanted: int, rng: np.random.Generator) -> Integers:
    """Shares of `wanted` under `counts`, as even as they can be."""
    if counts.sum() <= wanted:
        return counts
    low, high = 0, int(counts.max())  # the largest level that does not exceed what is wanted
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= wanted else (low, middle - 1)
    shares: Integers = np.minimum(counts, low)
    more = rng.permutation(np.flatnonzero(counts > low))[: wanted - int(shares.sum())]
    shares[more] += 1
    return shares


def other_speaker_pairs(entries: Sequence[Entry], wanted: int, rng: np.random.Generator) -> Integers:
    """Pairs of utterances of two speakers, drawn as `draw_trials` draws non-targets.

    The units that meet are a speaker's utterances of one source.

    Args:
        entries: Utterances, sorted by id.
        wanted: Pairs wanted; fewer come where so many do not exist.
        rng: Draws.

    Returns:
        (pairs, 2) places in `entries`.
    """
    units = _numbers([f"{entry.source}\0{entry.speaker}" for entry in entries])
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    heads = [entries[place] for place in order[starts]]  # one utterance of each unit
    pools, pool_of, place_of = _pools(heads)
    pool_sizes = np.array([len(pool) for pool in pools], np.int64)
    flat = np.concatenate(pools)
    offsets = np.cumsum(pool_sizes) - pool_sizes
    able = np.flatnonzero(pool_sizes[pool_of] > 1)
    if not len(able) or not wanted:
        return np.zeros((0, 2), np.int64)
    existing = _count_pairs(pools, pool_of, sizes)
    if wanted >= _PLENTY * existing:
        pairs = _all_pairs(units, pools, pool_of)
        turn = rng.random(len(pairs)) < 0.5
        pairs[turn] = pairs[turn][:, ::-1]
        return pairs
    speakers = _numbers([head.speaker for head in heads])
    weights = 1.0 / np.bincount(speakers[able])[speakers[able]]  # a speaker of two sources enrols in each half as often
    exact = wanted * weights / weights.sum()
    quotas = np.zeros(len(heads), np.int64)
    quotas[able] = np.floor(exact)
    rest = np.argsort(np.floor(exact) - exact + 1e-9 * rng.random(len(able)))[: wanted - int(quotas.sum())]
    quotas[able[rest]] += 1

    kept = np.zeros(0, np.int64)  # pairs as single numbers, smaller place first, sorted
    drawn: list[Integers] = []
    for _ in range(_ROUNDS):
        enrolling = rng.permutation(np.repeat(np.arange(len(heads)), quotas))
        if not len(enrolling) or len(kept) == existing:
            break
        pool = pool_of[enrolling]
        other = rng.integers(0, pool_sizes[pool] - 1)
        other += other >= place_of[enrolling]  # anybody in the pool but oneself
        testing = flat[offsets[pool] + other]
        enrol = order[starts[enrolling] + rng.integers(0, sizes[enrolling])]
        test = order[starts[testing] + rng.integers(0, sizes[testing])]
        keys = np.minimum(enrol, test) * len(entries) + np.maximum(enrol, test)
        new = np.zeros(len(keys), bool)
        new[np.unique(keys, return_index=True)[1]] = True
        new &= ~np.isin(keys, kept)
        kept = np.concatenate([kept, keys[new]])
        drawn.append(np.stack([enrol[new], test[new]], axis=1))
        quotas -= np.bincount(enrolling[new], minlength=len(heads))
    return np.concatenate(drawn)


def _count_pairs(pools: Sequence[Integers], pool_of: Integers, sizes: Integers) -> int:
    """How many pairs of utterances there are of a unit and one in its pool.

    Args:
        pools: Unit numbers; whoever is in a pool without having it is in no pool with those who do, but this one.
        pool_of: The pool that each unit has.
        sizes: Utterances of each unit.
    """
    pairs = 0
    for number, pool in enumerate(pools):
        own = sizes[pool_of == number]
        pairs += int(own.sum() ** 2 - np.square(own).sum()) // 2 + int(own.sum() * (sizes[pool].sum() - own.sum()))
    return pairs


def _all_pairs(units: Integers, pools: Sequence[Integers], pool_of: Integers) -> Integers:
    """The pairs that `_count_pairs` counts, as (pairs, 2) places of utterances; `units` has each one's unit."""
    found = []
    for number, pool in enumerate(pools):
        first, second = np.flatnonzero(pool_of[units] == number), np.flatnonzero(np.isin(units, pool))
        pairs = np.stack([np.repeat(first, len(second)), np.tile(second, len(first))], axis=1)
        both = pool_of[units[pairs[:, 1]]] == number  # these come in both directions
        apart = units[pairs[:, 0]] != units[pairs[:, 1]]
        found.append(pairs[apart & (~both | (pairs[:, 0] < pairs[:, 1]))])
    return np.concatenate(found)


def _pools(heads: Sequence[Entry]) -> tuple[list[Integers], Integers, Integers]:
    """Whom each unit may meet: those of its source and gender, or of its source if nobody there shares the gender.

    Returns:
        The pools as unit numbers, the pool of each unit, and its place there.
    """
    by_source: dict[str, list[int]] = {}
    by_gender: dict[tuple[str, str], list[int]] = {}
    for unit, head in enumerate(heads):
        by_source.setdefault(head.source, []).append(unit)
        if head.gender:
            by_gender.setdefault((head.source, head.gender), []).append(unit)
    pools: list[Integers] = []
    number: dict[object, int] = {}
    pool_of = np.zeros(len(heads), np.int64)
    place_of = np.zeros(len(heads), np.int64)
    for unit, head in enumerate(heads):
        same = by_gender.get((head.source, head.gender or ""), [])
        key: object = (head.source, head.gender) if len(same) > 1 else head.source
        members = same if len(same) > 1 else by_source[head.source]
        if key not in number:
            number[key] = len(pools)
            pools.append(np.array(members, np.int64))
        pool_of[unit] = number[key]
        place_of[unit] = int(np.searchsorted(pools[number[key]], unit))
    return pools, pool_of, place_of
