"""The lecture as eight experiments: what theory claims, what is measured, whether the claim holds.

Each module of an experiment has `measure`, which trains and measures, `claims`, which judges what
was measured by thresholds that its docstrings and comments derive, and `experiment`, the chapter of
the page. `fastnn lab` runs them all (`run.py`) and writes the page (`page.py`).
"""
