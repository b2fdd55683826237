"""What the figures mean, in plain words: each rule looks for one sickness, and tells its reason and
its mend.

The limits were set by training: networks of 1 to 30 layers, 64 wide, on the digits, by SGD with
momentum and by Adam, from the right weights and from wrong ones; benches/test_verdict.py does it
again. A *problem* is what kept SGD from the accuracy of the right weights, and Adam too where the
weights were right; a *note* is what training lived with, or what the rows cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .figures import Figures
from .measure import Batch
from .ways import growing, overflowing, shrinking
from .words import Finding, as_drawn, cause, excess, layers, use, wrong_kind

__all__ = ["Finding", "judge"]

_FEW_ROWS = 16  # a unit that is positive on half of all rows is so on none of m once in 2^m

_RECTIFIERS = ("relu", "leaky_relu")
_SATURATING = ("tanh", "sigmoid")


def judge(found: Sequence[Figures], batch: Batch, twice: str = "") -> tuple[Finding, ...]:
    """All that there is to say, problems first.

    batch : of no rows where nothing was measured, and theory has to do
    twice : what to say if the model ends with what the loss has in itself
    """
    findings = _not_finite(found)
    if findings:
        return tuple(findings)
    if twice:
        findings.append(Finding("loss", "problem", (), twice, "leave it out of the model"))
    findings += _inputs(batch)
    if batch.rows:
        findings += _cannot_tell(found, batch)
    first = _alike(found) + overflowing(found)
    findings += first
    if not any(one.level == "problem" for one in first):
        # Where units are alike, or numbers infinite, every other figure is sick in consequence;
        # and the signal ends, or gradients do, where all units are dead or many saturated.
        sick, dead = _saturated(found, batch), _dead(found, batch)
        if not sick and not any(one.level == "problem" for one in dead):
            sick = _biased(found, batch)
        if not sick and not any(map(_silent, found)):
            sick = shrinking(found, batch) + growing(found, batch)
        sick += dead
        findings += sick + _variance(found, {index for one in sick for index in one.layers})
    return tuple(sorted(findings, key=lambda one: one.level != "problem"))


def _not_finite(found: Sequence[Figures]) -> list[Finding]:
    sick = [
        one.index
        for one in found
        if not math.isfinite(one.weight_std) or not math.isfinite(one.bias_std or 0.0)
    ]
    if not sick:
        return []
    reason = f"weights or biases of {layers(sick)} are NaN or infinite, as after training diverged"
    mend = "make the model anew, and train it with a lower learning rate"
    return [Finding("not finite", "problem", tuple(sick), reason, mend)]


def _inputs(batch: Batch) -> list[Finding]:
    if batch.x_rms == 0:
        return [Finding("inputs", "note", (), "X is all zeros: only the biases speak")]
    if 0.01 <= batch.x_rms <= 10:
        return []
    level = "problem" if batch.x_rms > 30 else "note"
    reason = f"the root mean square of X is {batch.x_rms:.3g}, and weights are drawn for about 1"
    return [Finding("inputs", level, (), reason, "scale X, or standardize its columns")]


def _cannot_tell(found: Sequence[Figures], batch: Batch) -> list[Finding]:
    if batch.varying == 0:
        rows = "one row" if batch.rows == 1 else f"{batch.rows} rows that are all the same"
        reason = f"{rows} cannot tell which units are dead, or saturated on every input"
        return [Finding("rows", "note", (), reason, "give some hundred different rows")]
    if batch.rows < _FEW_ROWS and any(one.function in _RECTIFIERS for one in found):
        reason = f"{batch.rows} rows are too few to tell dead units from live ones"
        return [Finding("rows", "note", (), reason, "give some hundred")]
    if 2 * batch.varying < batch.features:
        same = batch.features - batch.varying
        reason = f"{same} of {batch.features} features are the same in all rows, as a bias is"
        return [Finding("rows", "note", (), reason, "leave them out, or give other rows")]
    return []


def _silent(one: Figures) -> bool:
    """Whether a ReLU lets nothing through on these rows, of which there may be only one."""
    return one.dead == one.n_out or (one.function == "relu" and one.y_mean == 0 == one.y_std)


def _alike(found: Sequence[Figures]) -> list[Finding]:
    """Units that compute the same and so get the same gradient; weights that pass nothing on."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for one in found[:-1]:
        zero = one.weight_std == 0 == one.weight_mean
        if one.distinct == one.n_out and not zero:
            continue
        what = "zero weights" if zero else "constant weights" if one.weight_std == 0 else "copies"
        if one.distinct == one.n_out:
            reason = "the unit of {} has zero weights"
        elif one.distinct == 1:
            reason = f"all {one.n_out} units of {{}} are identical: {what}"
        else:
            reason = f"of the {one.n_out} units of {{}} only {one.distinct} are different"
        if zero:
            reason += ", which let nothing of X through"
        else:
            reason += ", at first" if one.apart else "; they get equal gradients, and stay so"
        level = "problem" if zero or 2 * one.distinct <= one.n_out else "note"
        groups.setdefault((level, reason, use(one)), []).append(one.index)
    findings = [
        Finding("symmetry", level, tuple(numbers), reason.format(layers(numbers)), mend)
        for (level, reason, mend), numbers in groups.items()
    ]
    last = found[-1]
    if last.n_out > 1 and last.distinct == 1:
        reason = (
            f"all outputs are the same at first, as the weights of layer {last.index} are: the "
            f"layers before it may learn nothing in the first step"
        )
        findings.append(Finding("symmetry", "note", (last.index,), reason))
    return findings


def _saturated(found: Sequence[Figures], batch: Batch) -> list[Finding]:
    """tanh and sigmoid where they are flat; an output may be, if it is right.

    Half of the activations are too many. Where weights are larger than asked for, as they were
    drawn, it takes a tenth.
    """
    wrong = _certain_and_wrong(found[-1], batch)
    if wrong:
        return wrong
    sick = []
    for one in found[:-1]:
        share = one.saturated if batch.rows else one.predicted.saturated
        too_large = excess(one) > 1.2 and as_drawn(one)
        if share is not None and share > (0.1 if too_large else 0.5):
            sick.append((share, one))
    if not sick:
        return []
    share, worst = max(sick, key=lambda pair: pair[0])
    numbers = [one.index for _, one in sick]
    reason = (
        f"{worst.activation} is saturated (its derivative below a tenth of its largest) for "
        f"{share:.0%} of the activations of layer {worst.index}"
    )
    if len(numbers) > 1:
        reason += f", the worst of {len(numbers)} such layers"
    if excess(worst) > 1.2:
        return [
            Finding("saturated", "problem", tuple(numbers), f"{reason}: {cause(worst)}", use(worst))
        ]
    if (worst.bias_share or 0.0) > 0.5:
        mend = 'use smaller biases, as bias_init="zeros" gives'
    elif worst is found[0] and batch.x_rms > 2:
        mend = f"scale X, whose root mean square is {batch.x_rms:.3g}"
    else:
        mend = "use smaller weights, or weight decay"
    return [Finding("saturated", "problem", tuple(numbers), reason, mend)]


def _certain_and_wrong(last: Figures, batch: Batch) -> list[Finding]:
    """An output that is saturated while its loss is above that of the best constant answer."""
    if (last.saturated or 0.0) <= 0.5 or batch.loss is None or batch.constant is None:
        return []
    if batch.loss <= batch.constant:
        return []
    reason = (
        f"{last.activation} is saturated for {last.saturated:.0%} of the outputs, and they are "
        f"wrong: the loss, {batch.loss:.3g}, is above the {batch.constant:.3g} of answering with "
        f"the mean of y"
    )
    mend = "use smaller weights in the last layer, or scale X"
    if excess(last) > 1.2:
        reason, mend = f"{reason}; {cause(last)}", use(last)
    return [Finding("saturated", "problem", (last.index,), reason, mend)]


def _biased(found: Sequence[Figures], batch: Batch) -> list[Finding]:
    """Biases that outweigh what comes in: more than three times is a note, and from ten times on
    SGD does not train.

    The answers of a regression may need a large bias, and a saturating unit bears one.
    """
    groups: dict[str, list[tuple[float, Figures]]] = {}
    for one in found if batch.labels else found[:-1]:
        share = _bias_share(one)
        if share <= 0.9 or excess(one) < 0.3:  # if the weights are too small, it is their fault
            continue
        harmless = share <= 0.99 or one is found[-1] or one.function in _SATURATING
        groups.setdefault("note" if harmless else "problem", []).append((share, one))
    findings = []
    for level, group in groups.items():
        share, worst = max(group, key=lambda pair: pair[0])
        numbers = tuple(one.index for _, one in group)
        size = math.hypot(worst.bias_mean or 0.0, worst.bias_std or 0.0)
        among = f", the worst of {layers(numbers)}," if len(group) > 1 else ""
        times = "far more than" if share == 1 else f"{math.sqrt(share / (1 - share)):.2g} times"
        reason = (
            f"the biases of layer {worst.index}{among} outweigh what comes in: their root mean "
            f"square, {size:.3g}, is {times} that of W x"
        )
        findings.append(Finding("bias", level, numbers, reason, 'use bias_init="zeros"'))
    return findings


def _bias_share(one: Figures) -> float:
    """As measured, or by theory; 0 where neither tells."""
    z = one.predicted
    if one.bias_share is not None or z.z_std is None or z.z_mean is None:
        return one.bias_share or 0.0
    square = z.z_mean**2 + z.z_std**2
    bias = (one.bias_mean or 0.0) ** 2 + (one.bias_std or 0.0) ** 2
    return bias / square if square > 0 else 0.0


def _dead(found: Sequence[Figures], batch: Batch) -> list[Finding]:
    """Units that are positive on no row.

    In a deep network of right weights all rows come to look alike, and a unit is then positive on
    all of them or on none, so that up to a half are dead at the start by chance. The bias is to
    blame for what would be alive without it.
    """
    if batch.rows < _FEW_ROWS:
        return []
    findings = []
    for one in found:
        if one.dead is None or one.dead_without_bias is None:
            continue
        if one is found[-1] and one.dead < one.n_out:
            continue  # a class or so may never come
        by_bias, n = one.dead - one.dead_without_bias, one.n_out
        chance = n / 2 + 2 * math.sqrt(n)  # four standard deviations of a coin thrown n times
        last = one is found[-1]
        if not (one.dead > chance or 4 * by_bias > n or one.dead == n > 1 - last):
            continue
        many = f"all {n}" if one.dead == n > 1 else f"{one.dead} of {n}"
        reason = f"{many} units of layer {one.index} are dead (never positive on {batch.rows} rows)"
        mend = "use LeakyReLU or He initialization, or a lower learning rate"
        if 4 * by_bias > n:
            reason += f": the bias, {one.bias_mean:.2g} on average, keeps {by_bias} of them so"
            mend = 'use bias_init="zeros"'
        if one.function == "leaky_relu" and one.slope:
            reason += f", and work as linear ones of slope {one.slope:g}"
        elif one.dead == n:
            reason += ": nothing passes, and the output is the same for every row"
        level = "note" if one.function == "leaky_relu" and one.slope else "problem"
        findings.append(Finding("dead", level, (one.index,), reason, mend))
        if one.dead == one.n_out and level == "problem":
            break  # what comes after is dead in consequence
    return findings


def _variance(found: Sequence[Figures], told: set[int]) -> list[Finding]:
    """Weights as they were drawn, of another size than asked for, with no worse found."""
    groups: dict[str, list[Figures]] = {}
    for one in found[:-1]:
        far = not 0.5 < excess(one) < 2
        wrong = wrong_kind(one) if not 0.85 < excess(one) < 1.2 else ""
        if one.index not in told and as_drawn(one) and (far or wrong):
            groups.setdefault(wrong, []).append(one)
    findings = []
    for wrong, group in groups.items():
        numbers = tuple(one.index for one in group)
        most = max(group, key=lambda one: abs(math.log(max(excess(one), 1e-300))))
        where = f"{layers(numbers)}: " if wrong or len(group) > 1 else ""
        reason = f"{where}{cause(most)}, which signal and gradients bear here"
        findings.append(Finding("variance", "note", numbers, reason, use(most)))
    return findings
