"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from parvox.training.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """The learning rate for a step.

    Linear from zero over the warm-up, then from the peak to the final rate along half a cosine, or exponentially.

    Args:
        settings: Peak, final rate, warm-up fraction and decay.
        step: From 0 to `total_steps` - 1.
        total_steps: Steps of the whole run.
    """
    peak, final = settings.learning_rate, settings.final_learning_rate
    warmup_steps = math.ceil(settings.warmup * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    if settings.decay == "cosine":
        return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))
    if settings.decay == "exponential":
        return float(peak * (final / peak) ** progress)
    return peak
