"""A picture of a training: its curves, the first layer's filters before and after, the images it still gets wrong."""

import os
import time
from pathlib import Path

from xpconv.training import Callback

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('a plot needs matplotlib: pip install "xpconv[examples]"') from error


class Curves(Callback):
    """Draws the curves to a file, again and again, while a training runs."""

    looks_on = True

    def __init__(self, file, seconds=5):
        self.file, self.seconds, self.last = Path(file), seconds, -seconds

    def on_epoch(self, trainer):
        if time.monotonic() - self.last < self.seconds:
            return
        figure = Figure(figsize=(11, 4), layout="constrained")
        curves(figure, trainer.history)
        temporary = self.file.with_name(f".{self.file.name}")  # so that a viewer never sees half a picture
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, self.file)
        self.last = time.monotonic()


def draw(file, history, before, after, test, answers):
    """Draw to a file in the format of its suffix; `before` and `after` (O, C, FH, FW), `answers` one label an image."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2, 3))
    curves(top, history)
    left, middle, right = bottom.subfigures(1, 3)
    limit = max(abs(before).max(), abs(after).max())
    for part, weights, title in ((left, before, "filters before"), (middle, after, "filters after")):
        pictures = [(weight[0], "") for weight in weights]  # the first channel of each
        grid(part, title, pictures, cmap="RdBu", vmin=-limit, vmax=limit)
    wrong = (answers != test.labels).nonzero()[0]
    mistakes = [(test.images[i, 0], f"{answers[i]}, is {test.labels[i]}") for i in wrong[:30]]
    grid(right, f"{len(wrong)} mistakes of {len(test)}", mistakes, cmap="gray_r", vmin=0, vmax=1)
    figure.savefig(file, dpi=150)


def curves(figure, history):
    """Draw the loss of every step and the accuracy after every epoch."""
    loss, accuracy = figure.subplots(1, 2)
    steps, epochs = len(history.loss), len(history.train_accuracy)
    loss.plot([(step + 1) * epochs / steps for step in range(steps)], history.loss, linewidth=0.5)
    loss.set(xlabel="epoch", ylabel="loss (nats)", yscale="log", title="loss")
    for name, values in (("train", history.train_accuracy), ("test", history.test_accuracy)):
        accuracy.plot(range(1, epochs + 1), values, marker=".", label=name)
    accuracy.set(xlabel="epoch", ylabel="share of images", title="accuracy")
    accuracy.legend()


def grid(figure, title, pictures, **style):
    """Draw small pictures with captions in rows of five."""
    figure.suptitle(title)
    for i, (pixels, caption) in enumerate(pictures):
        axes = figure.add_subplot(max(6, -(-len(pictures) // 5)), 5, i + 1)
        axes.imshow(pixels, **style)
        axes.set_title(caption, fontsize=6)
        axes.set_axis_off()
