"""Everything polyad raises on purpose.

PolyadError
├── ArgumentError (ValueError)         a call that cannot mean anything
│   ├── NotScalarError                 gradient of something that is not one number
│   ├── ModeError                      an unknown mode
│   └── ParameterError                 parameters or states that do not fit the model
├── LeafError (TypeError)              a leaf that cannot be differentiated
│   ├── DTypeError                     integer, boolean or complex; float32 with float64
│   └── MixedArraysError               two frameworks or two devices in one call
├── ImpureFunctionError (RuntimeError) f gives other values the second time
├── RowsMixError (ValueError)          rows of a batch that depend on each other
├── TooLargeError (MemoryError)        a Jacobian that no memory holds
├── BackendError                       the backend itself
│   ├── UnknownBackendError (ValueError)
│   ├── BackendNotInstalledError (ImportError)
│   ├── PrecisionError (ValueError)    a precision that the backend has switched off
│   └── UnsupportedError (NotImplementedError)   a function or pass it does not have
├── DetachError (TypeError)            a derivative would be dropped in silence
├── GradientCheckError (AssertionError)
└── DisagreementError (AssertionError)

PolyadWarning (UserWarning)           right, but slower than it need be

Each message says what came, why it cannot be, and what to type instead. The
second base is the exception that a Python or framework user would expect.
"""

__all__ = [
    "ArgumentError",
    "BackendError",
    "BackendNotInstalledError",
    "DTypeError",
    "DetachError",
    "DisagreementError",
    "GradientCheckError",
    "ImpureFunctionError",
    "LeafError",
    "MixedArraysError",
    "ModeError",
    "NotScalarError",
    "ParameterError",
    "PolyadError",
    "PolyadWarning",
    "PrecisionError",
    "RowsMixError",
    "TooLargeError",
    "UnknownBackendError",
    "UnsupportedError",
]


class PolyadError(Exception):
    """The root: `except PolyadError` catches all of them and nothing else."""


class PolyadWarning(UserWarning):
    """Right, but slower than it need be."""


class ArgumentError(PolyadError, ValueError):
    """A call that cannot mean anything."""


class NotScalarError(ArgumentError):
    """The gradient of something that is not one number."""


class ModeError(ArgumentError):
    """A mode that does not exist."""


class ParameterError(ArgumentError):
    """Parameters or a state that do not fit the model."""


class LeafError(PolyadError, TypeError):
    """A leaf that cannot be differentiated."""


class DTypeError(LeafError):
    """A leaf whose number type has no derivative, or two that do not go together."""


class MixedArraysError(LeafError):
    """Arrays of two frameworks, or on two devices, in one call."""


class ImpureFunctionError(PolyadError, RuntimeError):
    """A function that gave other values when it was evaluated again."""


class RowsMixError(PolyadError, ValueError):
    """Rows of a batch that were said to be independent and are not."""


class TooLargeError(PolyadError, MemoryError):
    """A Jacobian that is larger than the memory of the machine."""


class BackendError(PolyadError):
    """Something about the backend itself."""


class UnknownBackendError(BackendError, ValueError):
    """No backend has this name."""


class BackendNotInstalledError(BackendError, ImportError):
    """The framework of this backend is not installed here."""


class PrecisionError(BackendError, ValueError):
    """A precision that this backend has switched off."""


class UnsupportedError(BackendError, NotImplementedError):
    """A function or a pass that this backend does not have."""


class DetachError(PolyadError, TypeError):
    """A derivative would have been dropped in silence."""


class GradientCheckError(PolyadError, AssertionError):
    """A gradient that finite differences do not confirm."""


class DisagreementError(PolyadError, AssertionError):
    """Backends that do not agree on a loss."""


ESCAPED = (
    "an array that was made inside the function of a nested derivative is used outside of it, where it has no "
    "derivative. Return it, or return it as aux with has_aux=True, or type nested_switching('taped')"
)
