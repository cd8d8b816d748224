"""Docstrings of polyad as pages show them: a column of names beside a column of words becomes a list.

A griffe extension. A paragraph is one of three things:

names beside words   a definition list; names of parameters are code, others labels
a drawn tree         as it stands
anything else        text, in which * and [f] mean themselves

Names of errors, and public names in backquotes, link to where they are described.
"""

import importlib
import re
from typing import Any

import griffe

import polyad

COLUMNS = re.compile(r"(\S+(?: \S+)*) {2,}(\S.*)")
SPECIAL = re.compile(r"([\\*_\[\]{}#])")
MADE_BY = re.compile(r"value_and\((\w+)\)")


class Columns(griffe.Extension):
    """What mkdocs.yml names."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        _show(pkg)
        for name, member in list(pkg.members.items()):
            if member.is_alias and name in polyad.__all__:
                pkg.members[name] = griffe.Alias(name, _found(pkg, member.final_target.path), parent=pkg)


def _show(obj: griffe.Object) -> None:
    for name, member in list(obj.members.items()):
        if member.is_alias:
            continue
        if member.is_attribute and MADE_BY.fullmatch(str(member.value)):
            member = obj.members[name] = _made(obj, member)
        _show(member)
    names: set[str] = set()
    if isinstance(obj, griffe.Function):
        obj.parameters = griffe.Parameters(*(p for p in obj.parameters if not p.name.startswith("_")))
        names = {p.name for p in obj.parameters}
    elif isinstance(obj, griffe.Class) and "__init__" in obj.members:
        names = {p.name for p in obj.members["__init__"].parameters}
    if obj.docstring:
        obj.docstring.value = as_markdown(obj.docstring.value, names)


def _found(pkg: griffe.Module, path: str) -> griffe.Object:
    """What stands at the path; of a function and its module of the same name the function."""
    found = pkg[path.removeprefix(f"{pkg.path}.")]
    return found.members.get(found.name, found) if found.is_module else found


def _made(module: griffe.Object, attribute: griffe.Attribute) -> griffe.Function:
    """`value_and_jacobian = value_and(jacobian)` as the function that it is, with the docstring that it has."""
    base = module.members[MADE_BY.fullmatch(str(attribute.value)).group(1)]
    made = griffe.Function(attribute.name, parameters=base.parameters, parent=module, lineno=attribute.lineno)
    made.labels, made.runtime = set(), True
    text = getattr(importlib.import_module(module.path), attribute.name).__doc__
    made.docstring = griffe.Docstring("\n".join(line.removeprefix(" " * 4) for line in text.splitlines()), parent=made)
    return made


def as_markdown(docstring: str, names: set[str] = frozenset()) -> str:
    """The docstring, its columns as lists; names are those of parameters."""
    return "\n\n".join(_paragraph(p.strip("\n"), names) for p in re.split(r"\n\s*\n", docstring.strip("\n")))


def _paragraph(text: str, names: set[str]) -> str:
    lines = text.splitlines()
    if any(mark in text for mark in "├└│") or lines[0].startswith("    "):
        return "\n".join(["```text", *lines, "```"])
    if not COLUMNS.fullmatch(lines[0]) or not all(COLUMNS.fullmatch(line) or line.startswith("  ") for line in lines):
        return "\n".join(map(linked, lines))
    rows: list[tuple[str, list[str]]] = []
    for line in lines:
        match = COLUMNS.fullmatch(line)
        if match and not line.startswith(" "):
            rows.append((match.group(1), [match.group(2)]))
        else:
            rows[-1][1].append(line.strip())
    return "\n\n".join(f"{_term(name, names)}\n:   {linked(' '.join(words))}" for name, words in rows)


def _term(name: str, names: set[str]) -> str:
    known = [part.strip("*") in names for part in re.split(r",? ", name)]
    return f"`{name}`" if all(known) else linked(name)


def linked(text: str) -> str:
    """The text, safe for Markdown, its names linked."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(_code(part) if part.startswith("`") else _words(part) for part in parts)


def _code(quoted: str) -> str:
    name = quoted.strip("`")
    if name in polyad.errors.__all__:
        return f"[{quoted}][polyad.errors.{name}]"
    return f"[{quoted}][polyad.{name}]" if name in polyad.__all__ and name not in ("backends", "errors") else quoted


def _words(text: str) -> str:
    safe = SPECIAL.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    safe = re.sub(r"^>", "&gt;", safe)
    return re.sub(r"\b[A-Z]\w+(?:Error|Warning)\b", lambda m: _error(m.group()), safe)


def _error(name: str) -> str:
    return f"[{name}][polyad.errors.{name}]" if name in polyad.errors.__all__ else name
