"""The lab's page: one HTML file that needs nothing else, with its figures inside it.

No script, no font, no link to load: it opens from disk. One column on a phone, figures side by side
where there is room; verdicts are words and signs, so that they read in black and white.
"""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Mapping, Sequence

from .._version import version
from .parts import ODDS, Claim, Experiment, Picture, Task

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; color: #111; background: #fff;
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 1rem 0 .5rem; }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3rem 0 .5rem; padding-top: .7rem;
  border-top: 3px solid #111; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p, nav, .formulas { max-width: 46rem; }
nav ol { padding-left: 1.5rem; columns: 18rem; }
nav li { break-inside: avoid; padding: .15rem 0; }
a { color: #0a4a7a; }
.words { columns: 26rem; column-gap: 2.5rem; }
.words div { break-inside: avoid; padding-bottom: .5rem; }
dt { font-weight: 600; }
dd { margin: 0 0 0 1rem; }
.formulas { margin: .8rem 0; padding: .6rem .9rem; border-left: 4px solid #111;
  background: #f4f4f4; font-family: "DejaVu Serif", Cambria, Georgia, serif; }
.formulas div + div { margin-top: .45rem; }
.claims { list-style: none; padding: 0; margin: .5rem 0; border-top: 1px solid #ccc; }
.claims li { display: grid; grid-template-columns: 4.8rem 5fr 4fr 4fr; gap: 0 1rem;
  padding: .45rem 0; border-bottom: 1px solid #ccc; }
.verdict { font-weight: 700; white-space: nowrap; }
.claims small { display: block; font-size: .8rem; line-height: 1.3; color: #444; }
.figures { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); margin: 1.2rem 0; }
figure { margin: 0; }
figure img { display: block; width: 100%; max-width: 32rem; height: auto; }
figcaption { margin-top: .3rem; font-weight: 600; max-width: 32rem; }
pre { overflow-x: auto; padding: .7rem .9rem; background: #f4f4f4; font-size: .85rem;
  line-height: 1.45; }
pre.prose { white-space: pre-wrap; }
footer { margin-top: 3rem; border-top: 1px solid #999; font-size: .92rem; }
@media (max-width: 40rem) {
  .claims li { grid-template-columns: 1fr 1fr; }
  .verdict, .says { grid-column: 1 / -1; }
}
@media print { h2 { break-after: avoid; } figure, .claims li { break-inside: avoid; } }
"""

_WORDS = {
    "network": "numbers go in, pass through layers of units, and numbers come out.",
    "layer": "z = W x + b, then an activation y = f(z). W holds the weights, b the biases, x what "
    "comes in; z is called the pre-activation.",
    "activation": "the function f that bends the line: sigmoid, tanh, ReLU, Leaky ReLU.",
    "signal": "the pre-activations on their way through the layers; its size is told by their "
    "standard deviation, std.",
    "loss": "how wrong the answers are. Here cross-entropy: the mean of -ln of the probability "
    "that the network gave to the right answer, in nats.",
    "entropy of the labels": "the loss of who knows how frequent each label is, and nothing else. "
    "A network that ignores its inputs cannot do better. The share of it that a network explains "
    "is how much it has learnt: 0 nothing, 1 everything.",
    "to learn": "here: to bring the loss below the entropy of the labels by more than luck can. "
    "Answers that have nothing to do with the images gain more than ln {odds:,} nats over all "
    "{images:,} images, {luck:.2%} of the entropy, once in {odds:,} times at most (Markov's "
    "inequality). To learn nothing, to stand still: not to get there.",
    "gradient": "by how much the loss changes with a weight, or with a z. It is worked out from "
    "the last layer back to the first.",
    "training": "each step moves the weights a little against the gradient, by the learning rate "
    "times it; an epoch is one pass over all the data.",
    "initialization": "how the weights are drawn before training. The subject of this page.",
    "fan-in, n_in": "how many inputs a unit has; fan-out, n_out: how many units the layer has.",
    "expected": "what theory allows: an exact value, or a band around it. The weights are one "
    "draw; how far it may be off by chance is worked out, to four standard deviations.",
    "E, Var": "mean and variance over the random weights and the data.",
}

_TRYING = (
    "Each chapter ends with a short program. It is complete: save it as try.py and run it, or "
    "paste it into Python. It needs Python 3.11 or newer and fastnn, which the first line below "
    "installs. The second makes this page again on your own computer, the third runs a program."
)
_INSTALL = """pip install "fastnn-cpu[plot]"
{command}
python try.py"""

_SOURCES = (
    "X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural "
    "networks. AISTATS 2010. Figures 6 and 7 are repeated in chapter 5.",
    "K. He, X. Zhang, S. Ren, J. Sun: Delving deep into rectifiers. ICCV 2015. Figures 2 and 3 are "
    "repeated in chapter 6.",
    "B. Poole et al.: Exponential expressivity in deep neural networks through transient chaos. "
    "NeurIPS 2016. S. Schoenholz et al.: Deep information propagation. ICLR 2017. The theory for "
    "tanh and sigmoid.",
    "B. Hanin, D. Rolnick: How to start training. NeurIPS 2018. How far one draw may be off.",
)


def page(
    task: Task, experiments: Sequence[Experiment], images: Mapping[str, bytes], command: str
) -> str:
    """The whole page.

    images : PNG files by the names of the pictures
    command : that made it
    """
    held = [claim.holds for one in experiments for claim in one.claims]
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or a browser asks a server for one
        f"<title>Why a network learns, or does not: the fastnn lab</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n"
        "<h1>Why a network learns, or does not</h1>",
        _paragraph(
            f"Eight experiments on how a neural network begins: bias, zero weights, small random "
            f"weights, Xavier and He initialization, Leaky ReLU, depth. Each states what the "
            f"theory claims, measures it on this computer, and says whether the claim holds. In "
            f"this run {sum(held)} of {len(held)} claims hold."
        ),
        _paragraph(_about(task)),
        _contents(experiments),
        "</header>\n<main>",
        '<section>\n<h2>The words</h2>\n<dl class="words">',
        *(
            f"<div><dt>{html.escape(word)}</dt><dd>{html.escape(text)}</dd></div>"
            for word, text in _words(task).items()
        ),
        "</dl>\n</section>",
        f"<section>\n<h2>Trying it</h2>\n{_paragraph(_TRYING)}",
        f'<pre tabindex="0">{html.escape(_INSTALL.format(command=command))}</pre>\n</section>',
    ]
    for number, one in enumerate(experiments, 1):
        parts += _chapter(number, one, images)
    parts += [
        "</main>\n<footer>\n<h3>Sources</h3>\n<ul>",
        *(f"<li>{html.escape(source)}</li>" for source in _SOURCES),
        "</ul>",
        f"<p>Made by fastnn {html.escape(version)}: <code>{html.escape(command)}</code></p>",
        "</footer>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _words(task: Task) -> dict[str, str]:
    """The glossary, with the numbers of this data."""
    numbers = {"odds": ODDS, "images": len(task.y), "luck": task.luck}
    return _WORDS | {"to learn": _WORDS["to learn"].format(**numbers)}


def _about(task: Task) -> str:
    rows, columns = task.shape
    taken = f"{len(task.y):,} images" + ("" if len(task.y) == task.of else f" of {task.of:,}")
    return (
        f"The data: {task.name}, {taken}, {rows} × {columns} pixels, {task.classes} classes, each "
        f"image scaled to a mean square of 1. The question is whether a network learns at all, so "
        f"losses are those on the images that it learns from."
    )


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _contents(experiments: Sequence[Experiment]) -> str:
    items = []
    for number, one in enumerate(experiments, 1):
        held = sum(claim.holds for claim in one.claims)
        items.append(
            f'<li><a href="#chapter-{number}">{html.escape(one.title)}</a>: '
            f"{held} of {len(one.claims)} hold</li>"
        )
    return '<nav aria-label="Experiments">\n<ol>\n' + "\n".join(items) + "\n</ol>\n</nav>"


def _chapter(number: int, one: Experiment, images: Mapping[str, bytes]) -> list[str]:
    parts = [f'<section id="chapter-{number}">\n<h2>{number}. {html.escape(one.title)}</h2>']
    parts += [f"<p>{paragraph}</p>" for paragraph in one.story]
    formulas = "".join(f"<div>{html.escape(line)}</div>" for line in one.formulas)
    parts += [
        f'<div class="formulas">{formulas}</div>',
        f"<h3>What was measured</h3>\n{_paragraph(one.setup)}",
        '<div class="figures">',
        *(
            _figure(picture, one.bears_out(picture), images[picture.name])
            for picture in one.pictures
        ),
        "</div>",
        '<h3>The claims</h3>\n<ul class="claims">',
        *map(_claim, one.claims),
        "</ul>",
    ]
    if one.numbers:
        parts.append(f'<pre tabindex="0">{html.escape(one.numbers)}</pre>')
    if one.verdict:
        parts.append(f'<pre class="prose" tabindex="0">{html.escape(one.verdict)}</pre>')
    if one.code:
        parts.append(f'<h3>Try it</h3>\n<pre tabindex="0">{html.escape(one.code)}</pre>')
    return [*parts, "</section>"]


def _figure(picture: Picture, holds: bool, png: bytes) -> str:
    width, height = struct.unpack(">II", png[16:24])  # of the IHDR chunk, which comes first
    source = base64.b64encode(png).decode("ascii")
    caption = picture.caption if holds else f"Not borne out in this run: {picture.caption}"
    return (
        f'<figure>\n<img src="data:image/png;base64,{source}" width="{width}" height="{height}" '
        f'alt="{html.escape(picture.alt)}">\n'
        f"<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
    )


def _claim(claim: Claim) -> str:
    verdict = "✓ holds" if claim.holds else "✗ fails"
    return (
        f'<li><span class="verdict">{verdict}</span>'
        f'<span class="says">{html.escape(claim.says)}</span>'
        f"<span><small>measured</small> {html.escape(claim.measured)}</span>"
        f"<span><small>expected</small> {html.escape(claim.expected)}</span></li>"
    )
