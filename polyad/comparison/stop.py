"""The line of the user's code at which an error left it."""

import linecache
import os
import site
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Line", "is_of_the_user", "line_of", "one_line"]

LONGEST = 300
"""Letters of a message that are shown."""


@dataclass(frozen=True)
class Line:
    """A line of a file. str() is "heat.py:12: u = torch.tanh(x)"."""

    file: str
    number: int
    source: str

    def __str__(self) -> str:
        return (
            f"{shown(self.file)}:{self.number}: {self.source}" if self.source else f"{shown(self.file)}:{self.number}"
        )


def line_of(error: BaseException, own: str = "") -> Line | None:
    """The innermost line of the user's code that the error went through; None if it went through none.

    own  a file that counts as the user's wherever it lies
    """
    frames = traceback.extract_tb(error.__traceback__)
    of_user = [frame for frame in frames if frame.filename == own or is_of_the_user(frame.filename)]
    if not of_user:
        cause = error.__cause__ or error.__context__
        return None if cause is None else line_of(cause, own)
    last = of_user[-1]
    source = last.line or linecache.getline(last.filename, last.lineno or 0)
    return Line(last.filename, last.lineno or 0, source.strip())


def one_line(error: BaseException) -> str:
    """ "TypeError: tanh(): argument 'input' must be Tensor", on one line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def is_of_the_user(file: str) -> bool:
    """Whether it is neither of polyad, nor of Python, nor of an installed package."""
    return not file.startswith("<") and not any(_under(file, folder) for folder in _libraries())


def shown(file: str) -> str:
    """The path from the working directory where that is shorter."""
    try:
        inside = os.path.relpath(file)
    except ValueError:  # another drive
        return file
    return inside if os.path.isabs(file) and len(inside) < len(file) else file


@cache
def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(
        {os.path.realpath(f) for f in (*folders, *site.getsitepackages(), str(Path(__file__).parents[1])) if f}
    )


def _under(file: str, folder: str) -> bool:
    return os.path.realpath(file).startswith(folder + os.sep)
