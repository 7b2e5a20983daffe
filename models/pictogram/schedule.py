"""How the settings move from the first step to the last. Knows numbers only."""

import math
from pathlib import Path

WARM_UP = 150


class Progress:
    """0 to 1 over the planned steps. Writing another number into the plan file, while the run goes
    on, spreads what is left over the steps that are then left: never a jump, never backwards."""

    def __init__(self, plan: Path, steps: int) -> None:
        self.plan, self.steps = plan, steps
        self.done, self.value = 0, 0.0
        plan.write_text(f"{steps}\n")

    def advance(self) -> float:
        if self.done % 20 == 0:
            text = self.plan.read_text().strip()
            self.steps = int(text) if text.isdigit() else self.steps
        remaining = max(1, self.steps - self.done)
        self.value += (1 - self.value) / remaining
        self.done += 1
        return self.value


def learning_rate(peak: float, done: int, progress: float, warm_up: int = WARM_UP) -> float:
    """Linear warm-up, then a cosine to zero."""
    return peak * min(1.0, done / warm_up) * 0.5 * (1 + math.cos(math.pi * progress))


def between(first: float, last: float, begin: float, progress: float) -> float:
    """`first` until `begin`, then in a straight line to `last`."""
    return first + (last - first) * max(0.0, progress - begin) / (1 - begin)
