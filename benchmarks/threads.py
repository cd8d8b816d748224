"""One thread, for whatever is measured: set before any framework is imported."""

import os

__all__ = ["ENVIRONMENT", "one_thread"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def one_thread() -> None:
    """For this process and those that it starts; what is set already stays."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
