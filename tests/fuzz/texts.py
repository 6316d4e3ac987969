"""Malformed text where YAML or JSON is expected: damage by chance, wrong values in right places, and bombs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.fuzz.mutate import mutated

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    10**12,
    2**63,
    -(2**63),
    10**30,
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e39,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "x",
    "0",
    "1e400",
    "nan",
    "\0",
    "a\0b",
    "\u202e",
    "é😀",
    "x" * 5000,
    "../../etc/passwd",
    "/dev/zero",
    "/dev/full",
    ".",
    "..",
    "starter:",
    "starter:codec",
    "hf:",
    "hf:a",
    "whisper:",
    "~",
    "%s%n{0}",
    "[red]x[/]",
    [],
    {},
    [[]],
    [[[]]],
    [None],
    [1, 2],
    [[0, 1]],
    ["x"],
    {"": 1},
    {"x": []},
    {"0": {}},
    [[1, 0]],
    [[0, float("nan")]],
    list(range(300)),
    [[0] * 3],
    [True, "x", None],
)
"""Values that somebody may write, or a program that went wrong."""


def replaced(value: Any, rng: np.random.Generator) -> Any:
    """The same tree with one place in it changed: its value, its key, or it is gone."""
    paths = list(places(value))
    path = paths[int(rng.integers(len(paths)))]
    tree = json.loads(json.dumps(value))
    if not path:
        return ODD[int(rng.integers(len(ODD)))]
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    odd = ODD[int(rng.integers(len(ODD)))]
    match int(rng.integers(6)):
        case 0:
            del holder[path[-1]]
        case 1 if isinstance(holder, dict):
            holder[str(odd)[:80]] = holder.pop(path[-1])
        case 2:
            holder[path[-1]] = [holder[path[-1]]] * 2
        case _:
            holder[path[-1]] = odd
    return tree


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutants(trees: list[Any], rng: np.random.Generator) -> bytes:
    """One malformed file: a tree with odd values as JSON, or its text damaged."""
    tree = trees[int(rng.integers(len(trees)))]
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 4))):
            if isinstance(tree, dict | list):
                tree = replaced(tree, rng)
        return json.dumps(tree, ensure_ascii=bool(rng.random() < 0.5)).encode("utf-8", "surrogatepass")
    text = json.dumps(tree).encode()
    return mutated(text, rng, text[::-1], header=len(text))


def bombs() -> dict[str, bytes]:
    """What is small and grows, or never ends, when it is read as YAML."""
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    merges = ["a0: &a0 {model: x}"]
    merges += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    found = {
        "laughs": "\n".join([*laughs, "model: x"]),
        "laughs in edits": "\n".join([*laughs, "edits: *a9"]),
        "laughs as model": "\n".join([*laughs, "model: *a9"]),
        "laughs in during": "\n".join([*laughs, "during: *a9"]),
        "merges": "\n".join(merges),
        "itself": "&a [*a]",
        "itself in a key": "&a {edits: *a}",
        "itself during": "during: &a [*a, *a]",
        "itself merged": "&a {<<: *a, model: x}",
        "itself as sae": "saes: &a {latent: *a}",
        "many keys": "\n".join(f"k{n}: {n}" for n in range(5_000)),
        "anchor of nothing": "model: *nobody",
        "two documents": "model: x\n---\nmodel: y\n",
        "tab": "\tmodel: x",
        "directive": "%YAML 99.9\n---\nmodel: x",
        "same key": "model: a\nmodel: b\n",
        "key of a list": "? [a, b]\n: c",
        "key of a dict": "? {a: b}\n: c",
        "bom": "\ufeffmodel: x",
        "digits": "edits: [{clamp: {0: " + "9" * 5000 + "}}]",
        "hexadecimal": "edits: [{clamp: {0: 0x" + "f" * 5000 + "}}]",
        "feature of many digits": "edits: [{ablate: [" + "9" * 400 + "]}]",
        "number of sixties": "edits: [{clamp: {0: " + "59:" * 3000 + "59}}]",
        "float": "edits: [{clamp: {0: !!float x}}]",
        "long": "model: " + "x" * 10**6,
        "large": "# " + "x" * 10**8,
    }
    for n, (left, right) in {"lists": ("[", "]"), "dicts": ("{a: ", "}"), "json": ('{"a":', "}")}.items():
        for depth in (50, 2_000, 100_000):
            found[f"{depth} {n}"] = left * depth + "0" + right * depth
    found["dashes"] = "- " * 20_000
    tags = (
        "python/object:os.system",
        "python/object/apply:os.system [touch canary]",
        "python/object/new:os.system [touch canary]",
        "python/name:os.system",
        "python/module:os",
        "python/tuple [1, 2]",
        "int x",
        "float x",
        "bool x",
        "null x",
        "timestamp x",
        "timestamp 2001-99-99",
        "binary é",
        "binary x",
        "omap [a]",
        "pairs [a]",
        "set {a}",
        "set [a]",
        "map [a]",
        "seq {a}",
        "str [a]",
        "unknown x",
    )
    for tag in tags:
        found[f"tag {tag}"] = f"model: !!{tag}\n"
    for moment in ("2001-99-99", "2001-02-30 99:99:99", "0000-00-00", "9999-12-31T23:59:59+99:99"):
        found[f"moment {moment}"] = f"during: {moment}\n"
    encoded = {name: text.encode() for name, text in found.items()}
    encoded |= {
        "utf-16": "model: x".encode("utf-16"),
        "latin-1": "model: é".encode("latin-1"),
        "null": b"model: \0",
        "bytes": bytes(range(256)),
        "nothing": b"",
        "half a letter": b"model: \xc3",
    }
    return encoded
