"""The demo's figure: loss and accuracy by epoch. Needs matplotlib."""

from ..training import History


def draw(history: History, title: str, path: str) -> None:
    """Write loss and accuracy on training and held-out images to an image file.

    Curves differ by dash and marker, so that the figure also reads in black and white.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2)
    every = max(1, len(history.loss) // 12)
    for axes, name, training, held_out in (
        (panels[0], "loss (cross-entropy)", history.loss, history.val_loss),
        (panels[1], "accuracy", history.accuracy, history.val_accuracy),
    ):
        epochs = range(1, len(training) + 1)
        style = {"markersize": 4, "markevery": every}
        axes.plot(epochs, training, "o-", color="black", label="training", **style)
        axes.plot(
            epochs, held_out, "s--", color="tab:orange", mfc="white", label="held-out", **style
        )
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    panels[0].set_ylim(bottom=0)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    figure.savefig(path, dpi=150)
