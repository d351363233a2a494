"""Early stopping on validation: when a run has waited long enough, and which weights it ends with."""

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.training.checkpoints import State

Weights = list[npt.NDArray[Any]]


class Watch:
    """Keeps the weights of the smallest validation loss so far (Prechelt 1998); a tie is no improvement.

    Args:
        patience: evaluations without an improvement after which it is over, at least 1.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._waited, self.best_loss, self.best_step = 0, np.inf, -1
        self.best_weights: Weights = []

    @property
    def over(self) -> bool:
        """Whether the run is to stop."""
        return self._waited >= self._patience

    def see(self, step: int, loss: float, weights: Weights) -> None:
        """Take note of a finite validation loss after `step` steps, and of the weights that gave it."""
        if loss < self.best_loss:
            self._waited, self.best_loss, self.best_step, self.best_weights = 0, loss, step, weights
        else:
            self._waited += 1

    @property
    def state(self) -> State:
        """All of it, as part of a checkpoint."""
        numbers = {"waited": self._waited, "loss": self.best_loss, "step": self.best_step}
        return {f"watch/{name}": np.array(value) for name, value in numbers.items()} | {
            f"watch/weight/{position}": weight for position, weight in enumerate(self.best_weights)
        }

    @state.setter
    def state(self, state: State) -> None:
        self._waited, self.best_step = int(state["watch/waited"]), int(state["watch/step"])
        self.best_loss = float(state["watch/loss"])
        count = sum(name.startswith("watch/weight/") for name in state)
        self.best_weights = [state[f"watch/weight/{position}"] for position in range(count)]
