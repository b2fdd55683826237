"""Why a network learns or does not: figures of each layer from parameters, theory and a pass of data,
and a verdict on them. `Sequential.report` and `fastnn.predict_signal` are its doors."""

from .report import Report, predict_signal, report

__all__ = ["Report", "predict_signal", "report"]
