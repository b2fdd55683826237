"""Why a network learns or does not: figures of each layer from its parameters, from theory and from
a pass of data, and a verdict on them. Its doors: `Sequential.report`, `fastnn.predict_signal`."""

from .report import Report, predict_signal, report

__all__ = ["Report", "predict_signal", "report"]
