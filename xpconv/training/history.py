"""What a training has shown: its losses, its accuracy, its speed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """What a training has shown so far, in numbers on the host.

    Attributes
    ----------
    loss : list of float
        Of each step, in training.
    train_accuracy, test_accuracy : list of float
        After each epoch: on a fixed sample of the images trained on, and on all that are for the test.
    images : int
        Images trained on, each time counted.
    seconds : float
        Spent on steps, evaluation left out.
    """

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Images trained on in a second."""
        return self.images / self.seconds if self.seconds else 0.0
