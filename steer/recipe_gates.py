"""Gates as recipes write them: a file, `when: gate.safetensors`, or a block that changes what the file says,
`when: {gate: gate.safetensors, threshold: 0.5, scope: 2}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, PlainSerializer

from steer.errors import EditError
from steer.gates import Gate, checked_scope


def read_scope(value: Any) -> Any:
    try:
        return None if value is None else checked_scope(value)
    except EditError as error:
        raise ValueError(str(error)) from None


class GateSpec(BaseModel):
    """A file that `Gate.save` wrote, and what takes the place of its own threshold and scope."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gate: str
    threshold: FiniteFloat | None = None
    scope: Annotated[Literal["clip", "window"] | float | None, BeforeValidator(read_scope)] = None

    def load(self, located: Callable[[str], str]) -> Gate:
        """Raises EditError where the file is not a gate that can be read."""
        gate = Gate.load(located(self.gate))
        threshold = gate.threshold if self.threshold is None else self.threshold
        return replace(gate, threshold=threshold, scope=gate.scope if self.scope is None else self.scope)


def as_block(value: Any) -> Any:
    if value is None or isinstance(value, GateSpec):
        return value
    block = {"gate": value} if isinstance(value, str) else value
    if not isinstance(block, Mapping) or not block.get("gate"):
        raise ValueError("a gate is a file, or {gate: file, threshold: number, scope: clip, window or seconds}")
    return block


def as_written(value: GateSpec | None) -> Any:
    """The file alone where it says all."""
    if value is None:
        return None
    said = value.model_dump(mode="json", exclude_none=True)
    return value.gate if len(said) == 1 else said


def moved_gate(written: Any, move: Callable[[str], Any]) -> Any:
    """What is written of a gate, with its file elsewhere."""
    return move(written) if isinstance(written, str) else {**written, "gate": move(written["gate"])}


When = Annotated[GateSpec | None, BeforeValidator(as_block), PlainSerializer(as_written)]
