"""Why a network learns or does not: figures of each layer from its parameters, from theory and from
a pass of data, and a verdict on them. Its doors: `Sequential.report`, `fastnn.predict_signal`, and
`fastnn.compare_inits`, which trains one network from several initializations."""

from .compare import InitComparison, compare_inits
from .report import Report, predict_signal, report

__all__ = ["InitComparison", "Report", "compare_inits", "predict_signal", "report"]
