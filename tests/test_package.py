"""What goes into the wheel; .ci/wheel installs it in an empty environment and runs the suite there."""

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {"polyad": "polyad", "polyad_benchmarks": "benchmarks", "polyad_conformance": "conformance"}


def test_every_package_goes_into_the_wheel():
    assert SETUPTOOLS["package-dir"] == FOLDERS
    found = [
        ".".join([name, *file.parent.relative_to(ROOT / folder).parts])
        for name, folder in FOLDERS.items()
        for file in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)


def test_every_file_beside_the_modules_goes_into_the_wheel():
    for name, folder in FOLDERS.items():
        patterns = SETUPTOOLS["package-data"][name]
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts:
                path = file.relative_to(ROOT / folder).as_posix()
                assert any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns), path
