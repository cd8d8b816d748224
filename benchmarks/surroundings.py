"""What whatever is measured runs in: set before a framework is imported, MALLOC_* before a process begins."""

__all__ = ["ENVIRONMENT"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    # glibc keeps what is freed. Else it gives the end of its memory back and asks for it again, page by page: up to
    # 1,500 times in a call of 6 ms, about 1 us each, by chance of what lies behind it.
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that it takes
}
