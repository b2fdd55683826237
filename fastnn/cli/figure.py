"""The demo's figure: loss and accuracy by epoch. Needs matplotlib."""

from .. import drawing
from ..training import History


def draw(history: History, title: str, path: str) -> None:
    """Write loss and accuracy on training and held-out images to an image file."""
    from matplotlib.ticker import PercentFormatter

    figure, panels = drawing.figure(9, 4, columns=2)
    figure.suptitle(title)
    for axes, name, training, held_out in (
        (panels[0], "loss (cross-entropy)", history.loss, history.val_loss),
        (panels[1], "accuracy", history.accuracy, history.val_accuracy),
    ):
        epochs = range(1, len(training) + 1)
        every = {"markersize": 4, "markevery": drawing.step(epochs)}
        axes.plot(epochs, training, label="training", **drawing.STYLES[0], **every)
        axes.plot(epochs, held_out, label="held-out", **drawing.STYLES[1], **every)
        drawing.dress(axes, "", "epoch", name)
        drawing.count(axes)
        axes.legend(frameon=False)
    panels[0].set_ylim(bottom=0)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    drawing.save(figure, path)
