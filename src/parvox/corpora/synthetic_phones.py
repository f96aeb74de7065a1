"""The sounds that synthetic voices speak, as a vocal tract of 17.5 cm makes them.

Formants of vowels are the male means of Peterson and Barney (1952); consonants are in the manner of Klatt (1980).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phone:
    """A tract shape to aim for, what sounds in it, and for how long."""

    formants: tuple[float, float, float]
    seconds: float
    voice: float = 0.0  # gain of the glottal pulses
    breath: float = 0.0  # gain of noise at the glottis, shaped by the whole tract
    friction: float = 0.0  # gain of noise at a narrow passage, shaped by the cavity before it
    cavity: tuple[float, float] = (3000.0, 3000.0)  # centre and bandwidth of that noise, Hz
    damping: float = 1.0  # factor on formant bandwidths
    firmness: float = 1.0  # how little the neighbours pull its formants


_VOWELS = {
    "i": Phone((270, 2290, 3010), 0.11, 1.0),
    "I": Phone((390, 1990, 2550), 0.08, 1.0),
    "e": Phone((530, 1840, 2480), 0.10, 1.0),
    "a": Phone((660, 1720, 2410), 0.13, 1.0),
    "A": Phone((730, 1090, 2440), 0.13, 1.0),
    "o": Phone((570, 840, 2410), 0.12, 1.0),
    "U": Phone((440, 1020, 2240), 0.08, 1.0),
    "u": Phone((300, 870, 2240), 0.11, 1.0),
    "V": Phone((640, 1190, 2390), 0.09, 1.0),
    "3": Phone((490, 1350, 1690), 0.12, 1.0),
}
_SONORANTS = {
    "m": Phone((280, 1000, 2200), 0.07, 0.4, damping=2.5, firmness=0.6),
    "n": Phone((280, 1600, 2500), 0.07, 0.4, damping=2.5, firmness=0.6),
    "N": Phone((280, 2100, 2400), 0.07, 0.35, damping=2.5, firmness=0.6),
    "l": Phone((360, 1300, 2700), 0.06, 0.7, damping=1.3, firmness=0.7),
    "r": Phone((420, 1300, 1600), 0.06, 0.7, damping=1.2, firmness=0.8),
    "w": Phone((290, 610, 2150), 0.06, 0.6, damping=1.3, firmness=0.8),
    "j": Phone((260, 2070, 3020), 0.05, 0.6, damping=1.2, firmness=0.9),
}
_FRICATIVES = {
    "s": Phone((320, 1700, 2600), 0.11, friction=0.45, cavity=(5600, 1800), firmness=0.6),
    "S": Phone((300, 1840, 2500), 0.11, friction=0.45, cavity=(3200, 1400), firmness=0.6),
    "f": Phone((340, 1100, 2080), 0.09, friction=0.12, cavity=(6500, 9000), firmness=0.4),
    "T": Phone((320, 1400, 2540), 0.09, friction=0.08, cavity=(6000, 8000), firmness=0.4),
    "z": Phone((300, 1700, 2600), 0.08, 0.25, friction=0.25, cavity=(5600, 1800), damping=1.8, firmness=0.6),
    "v": Phone((280, 1100, 2080), 0.06, 0.35, friction=0.06, cavity=(6500, 9000), damping=1.8, firmness=0.4),
    "h": Phone((500, 1500, 2500), 0.06, breath=0.25, damping=1.6, firmness=0.05),
}


def _stop(locus: tuple[float, float, float], cavity: tuple[float, float], voiced: bool) -> tuple[Phone, ...]:
    """Closure, burst, and the aspiration until the voice sets in."""
    return (
        Phone(locus, 0.06, 0.12 if voiced else 0.0, damping=3.0, firmness=0.7),
        Phone(locus, 0.010, friction=0.6, cavity=cavity, firmness=0.7),
        Phone((500, 1500, 2500), 0.006 if voiced else 0.045, breath=0.2, damping=1.5, firmness=0.05),
    )


_STOPS = {
    "p": _stop((250, 900, 2100), (900, 1800), False),
    "b": _stop((250, 900, 2100), (900, 1800), True),
    "t": _stop((250, 1750, 2700), (4300, 2600), False),
    "d": _stop((250, 1750, 2700), (4300, 2600), True),
    "k": _stop((250, 2000, 2300), (2100, 900), False),
    "g": _stop((250, 2000, 2300), (2100, 900), True),
}
_PARTS = {name: (phone,) for name, phone in (_VOWELS | _SONORANTS | _FRICATIVES).items()} | _STOPS
VOWEL_NAMES, VOWEL_PHONES = list(_VOWELS), list(_VOWELS.values())
ONSETS = [name for name in (*_SONORANTS, *_FRICATIVES, *_STOPS) if name != "N"]
CODAS = ["m", "n", "N", "l", "s", "S", "f", "T", "z", "p", "t", "k", "d", "g"]
PAUSE = Phone((500, 1500, 2500), 0.12, firmness=0.05)


def parts(name: str) -> tuple[Phone, ...]:
    """The tract shapes of the sound `name`, in their order."""
    return _PARTS[name]
