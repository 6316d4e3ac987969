"""YAML, and so JSON, as plain values: no tag is executed, and no alias grows beyond memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hooks.files import read_text

MAX_BYTES, MAX_VALUES = 2**20, 100_000
"""Of a recipe, and of what its aliases stand for when each is written out."""
UNREADABLE = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What PyYAML raises for text that is none, and for tags and dates with values that are not theirs."""


def read_yaml(path: Path) -> Any:
    """What a file says.

    Raises:
        OSError: it cannot be read.
        Exception: one of `UNREADABLE`.
    """
    return plain_values(read_text(path, MAX_BYTES))


def plain_values(text: str) -> Any:
    """What YAML says (JSON is YAML), as plain values; raises one of `UNREADABLE`."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        # told before it is built: a merge of merges is copied at each level
        if written_out(node, {}) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has with all its aliases; without end for one that holds itself."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES  # as long as it is not known: where it is met again, it holds itself
        parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ()
        pairs = parts if isinstance(node, yaml.MappingNode) else ((part,) for part in parts)
        known[id(node)] = 1 + sum(written_out(part, known) for pair in pairs for part in pair)
    return known[id(node)]
