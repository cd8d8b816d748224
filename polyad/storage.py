"""save and load: parameters and states as one safetensors file, from one backend into another."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyad.arrays import convert, stop_gradient
from polyad.backends import current, get, is_array
from polyad.errors import ArgumentError
from polyad.layers.layer import Test, Train, Tree
from polyad.version import __version__

__all__ = ["load", "save"]

# The header of the file has three entries of text: "polyad", the version that wrote it;
# "format", the number of this layout; "structure", the tree in JSON. In that each node is
# an object with one key: {"dict": [[key, node], ...]}, {"list": [...]}, {"tuple": [...]},
# {"mode": "Train"}, {"array": name of the tensor}, or {"value": a JSON scalar}.
FORMAT = "1"
MODES: dict[str, Any] = {"Train": Train, "Test": Test}


def save(path: str | os.PathLike[str], params: Tree, state: Tree = None) -> None:
    """Write parameters and a state to one safetensors file, which other tools can read too.

    params, state  dicts, lists and tuples of arrays of any backend, numbers, text, booleans, None and modes
    names          in the file: "params.layer_0.weight"
    raises         ArgumentError for a leaf or a container that the file cannot hold; DetachError
                   inside a transformation. The file is replaced at once, or stays as it was
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray] = {}
    structure = {"dict": [[name, _node(tree, name, arrays)] for name, tree in (("params", params), ("state", state))]}
    metadata = {"polyad": __version__, "format": FORMAT, "structure": json.dumps(structure)}
    _write(Path(path), to_bytes(arrays, metadata=metadata))


def load(
    path: str | os.PathLike[str], *, backend: Any = None, dtype: str | None = None, device: Any = None
) -> tuple[Tree, Tree]:
    """(params, state) as they were saved, as arrays of a backend.

    backend  None: the backend around, see `set_backend`
    dtype    "float32" or "float64" for the floating arrays; None: as they were saved
    raises   FileNotFoundError; ArgumentError for a file that polyad.save did not write;
             PrecisionError for float64 where it is switched off
    """
    from safetensors import SafetensorError, safe_open

    target = current() if backend is None else get(backend)
    if not Path(path).exists():
        raise FileNotFoundError(f"load: there is no file {os.fspath(path)!r}")
    try:
        with safe_open(os.fspath(path), framework="np") as file:
            metadata = file.metadata() or {}
            structure = _structure(os.fspath(path), metadata)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise ArgumentError(f"load: {os.fspath(path)!r} is no safetensors file: {error}") from error
    found = _tree(structure, arrays)
    params, state = convert((found["params"], found["state"]), target, dtype=dtype, device=device)
    return params, state


def _structure(path: str, metadata: dict[str, str]) -> Any:
    if "polyad" not in metadata:
        raise ArgumentError(
            f"load: {path!r} was not written by polyad.save: it does not say how its tensors make up a tree. "
            f"Type safetensors.numpy.load_file(path) for a dict of ndarrays"
        )
    if metadata["format"] != FORMAT:
        raise ArgumentError(
            f"load: {path!r} was written by polyad {metadata['polyad']} in format {metadata['format']}; "
            f"this is polyad {__version__}, which reads format {FORMAT}"
        )
    return json.loads(metadata["structure"])


def _node(tree: Any, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The node of a tree; its arrays go into `arrays` by their names."""
    kind = type(tree)
    if kind in (Train, Test):
        return {"mode": kind.__name__}
    if kind is dict:
        parts = list(_parts(tree, name))
        return {"dict": [[key, _node(tree[key], part, arrays)] for key, part in parts]}
    if kind in (list, tuple):
        return {kind.__name__: [_node(part, f"{name}.{i}", arrays) for i, part in enumerate(tree)]}
    if is_array(tree):
        arrays[name] = np.array(convert(stop_gradient(tree), "numpy"), order="C", copy=True)
        return {"array": name}
    if tree is None or kind in (bool, int, float, str):
        return {"value": tree}
    raise ArgumentError(
        f"save: {name} is a {kind.__name__}; a file holds dicts, lists and tuples of arrays, numbers, text, booleans, "
        f"None and modes. Make a dict of it"
    )


def _parts(tree: dict[Any, Any], name: str) -> Iterator[tuple[Any, str]]:
    """(key, name of the part): different keys have different names, whatever is in them."""
    for key in tree:
        if type(key) not in (str, int):
            raise ArgumentError(f"save: {name} has the key {key!r}; keys are text or integers")
        text = key.replace("~", "~0").replace(".", "~1") if isinstance(key, str) else f"~{key}~"
        yield key, f"{name}.{text}"


def _tree(node: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    ((kind, value),) = node.items()
    if kind == "dict":
        return {key: _tree(part, arrays) for key, part in value}
    if kind == "list":
        return [_tree(part, arrays) for part in value]
    if kind == "tuple":
        return tuple(_tree(part, arrays) for part in value)
    if kind == "mode":
        return MODES[value]()
    return arrays[value] if kind == "array" else value


def _write(path: Path, content: bytes) -> None:
    """All of the content in the place of the file, or nothing."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
