"""Names of the array-API standard that have no entry, each with its reason.

With the operations they are the whole standard, which a test holds: a name that
a later standard adds needs an entry, or a reason.

source  https://data-apis.org/array-api/2024.12/API_specification
"""

__all__ = ["OUT_OF_SCOPE"]

_REASONS: dict[str, tuple[str, ...]] = {
    "takes integers or booleans": (
        *("bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor"),
        *("logical_and", "logical_not", "logical_or", "logical_xor"),
        *("__and__", "__or__", "__xor__", "__invert__", "__lshift__", "__rshift__"),
        *("__rand__", "__ror__", "__rxor__", "__rlshift__", "__rrshift__"),
        *("__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
    ),
    "gives booleans": (
        *("all", "any", "equal", "greater", "greater_equal", "isfinite", "isin", "isinf", "isnan", "less"),
        *("less_equal", "not_equal", "signbit", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
    ),
    "gives integers": ("argmax", "argmin", "argsort", "count_nonzero", "nonzero", "searchsorted", "linalg.matrix_rank"),
    "makes arrays of Python numbers": (
        *("arange", "empty", "empty_like", "eye", "from_dlpack", "ones", "ones_like", "zeros"),
        *("fft.fftfreq", "fft.rfftfreq"),
    ),
    "is about types, shapes and devices": (
        *(
            "broadcast_shapes",
            "can_cast",
            "finfo",
            "__array_namespace_info__",
            "iinfo",
            "isdtype",
            "result_type",
            "to_device",
        ),
        *("device", "dtype", "ndim", "shape", "size", "__array_namespace__", "__dlpack__", "__dlpack_device__"),
    ),
    "makes a Python number, which has no derivative: polyad raises": (
        *("__bool__", "__complex__", "__float__", "__index__", "__int__"),
    ),
    "writes into an array, which jets, JAX and autograd refuse": ("__setitem__",),
    "is the operator out of place, for arrays that nobody writes into": (
        *("__ifloordiv__", "__imatmul__", "__imod__", "__ipow__"),
    ),
    "is the other operator with its operands exchanged": ("__rmatmul__",),
    "takes or gives complex numbers: polyad differentiates real ones": (
        *("imag", "linalg.eig", "linalg.eigvals"),
        *("fft.fft", "fft.fftn", "fft.fftshift", "fft.hfft", "fft.ifft", "fft.ifftn", "fft.ifftshift", "fft.ihfft"),
        *("fft.irfft", "fft.irfftn", "fft.rfft", "fft.rfftn"),
    ),
    "gives a number of entries that depends on the values": (
        *("unique_all", "unique_counts", "unique_inverse", "unique_values"),
    ),
    "gives the next number that the precision has: no function of real numbers": ("nextafter",),
}
OUT_OF_SCOPE: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names}
"""A reason for every name that is no operation here."""
