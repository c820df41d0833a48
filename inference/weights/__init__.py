"""The files of parameters: which, whence, whether they are right, and what they are together."""

from inference.weights.layouts import locate_weights
from inference.weights.listing import (
    FETCH_COMMAND,
    VERIFY_COMMAND,
    WEIGHTS,
    Network,
    WeightsError,
    WeightsFile,
    WeightsMissing,
    find_weights,
    missing_weights,
)
from inference.weights.verify import (
    Finding,
    Verdict,
    pin_findings,
    verify_weights,
    weights_identity,
)

__all__ = [
    "FETCH_COMMAND",
    "VERIFY_COMMAND",
    "WEIGHTS",
    "Finding",
    "Network",
    "Verdict",
    "WeightsError",
    "WeightsFile",
    "WeightsMissing",
    "find_weights",
    "locate_weights",
    "missing_weights",
    "pin_findings",
    "verify_weights",
    "weights_identity",
]
