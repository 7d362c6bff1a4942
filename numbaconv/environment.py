"""Every environment variable that rules this package: the one place that names it and says what it does.

The code that reads a variable takes its name from here, and the tables of the README and of the documentation are made
of `VARIABLES` and `NUMBA_VARIABLES`.
"""

from typing import NamedTuple

__all__ = [
    "ALGORITHM_VARIABLE",
    "BACKEND_VARIABLE",
    "CACHE_VARIABLE",
    "DISABLE_VARIABLE",
    "FLUSH_VARIABLE",
    "NUMBA_VARIABLES",
    "PRECISION_VARIABLE",
    "TUNE_VARIABLE",
    "VARIABLES",
    "Variable",
]

BACKEND_VARIABLE = "NUMBACONV_BACKEND"
ALGORITHM_VARIABLE = "NUMBACONV_ALGORITHM"
DISABLE_VARIABLE = "NUMBACONV_DISABLE"
PRECISION_VARIABLE = "NUMBACONV_PRECISION"
FLUSH_VARIABLE = "NUMBACONV_FLUSH_SUBNORMALS"
TUNE_VARIABLE = "NUMBACONV_TUNE"
CACHE_VARIABLE = "NUMBACONV_CACHE_DIR"


class Variable(NamedTuple):
    """An environment variable, and what it does: one row of a table, in Markdown."""

    name: str
    meaning: str


#: Read at each call, unless said otherwise; an empty value is as good as none.
VARIABLES = (
    Variable(BACKEND_VARIABLE, "the backend of calls that name none"),
    Variable(ALGORITHM_VARIABLE, "forces an algorithm; a problem that it refuses is an error with the reason"),
    Variable(
        DISABLE_VARIABLE,
        "algorithms that are never chosen, separated by commas; `winograd` stands for all its variants; a name that "
        "no backend has is an error",
    ),
    Variable(
        PRECISION_VARIABLE,
        "how exactly calls compute that name no `precision=`: `strict` (nothing through transforms), `float32` (the "
        "default), `tf32` (float32 operands may be rounded to TF32)",
    ),
    Variable(
        FLUSH_VARIABLE,
        "`1`: subnormal numbers count as zeros outside `flush_subnormals` blocks; `0` (the default): they do not",
    ),
    Variable(
        TUNE_VARIABLE,
        "`1`: a problem is tuned at its first call; `0`: what was tuned is ignored; unset: it is used",
    ),
    Variable(CACHE_VARIABLE, "the folder of the file with what was tuned, instead of the user's cache folder"),
)

#: Numba's own, which it reads when it is imported.
NUMBA_VARIABLES = (
    Variable("NUMBA_NUM_THREADS", "how many threads compute; `numba.set_num_threads` lowers it later"),
    Variable("NUMBA_THREADING_LAYER", "the library of the threads: `omp`, `tbb`, `workqueue`"),
    Variable(
        "NUMBA_CACHE_DIR",
        "the folder of compiled kernels, the only one then; else `__pycache__` beside their files, or the user's cache",
    ),
    Variable(
        "NUMBA_CPU_NAME",
        "the processor that kernels are made for, by LLVM's name; `generic`: any of its kind, with vectors of 16 bytes",
    ),
    Variable(
        "NUMBA_CPU_FEATURES",
        "set to nothing: those of `NUMBA_CPU_NAME` alone; unset: those of this machine, whatever the name",
    ),
    Variable("NUMBA_DISABLE_JIT", "`1`: the backend `cpu` is not there; `reference` is"),
    Variable("NUMBA_ENABLE_CUDASIM", "`1`: the backend `cuda` runs in Numba's simulator, slowly, without a GPU"),
)
