"""How many instructions XLA executes in one pass of a compiled loop: a measure of speed without noise.

On a CPU every instruction of a loop's body is paid for anew in each pass, however small its work; small
agents in small worlds spend most of a rollout on that.
"""

from __future__ import annotations

import dataclasses
import re

__all__ = ["LoopBody", "loop_body"]

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"= (?:\(.*?\)|\S+) ([\w\-]+)\(")
_CALLED = re.compile(r"(?:to_apply|body|calls)=%?([\w.\-]+)")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
# They name memory and compute nothing.
_FREE = frozenset({"parameter", "constant", "get-tuple-element", "tuple", "bitcast"})


@dataclasses.dataclass(frozen=True)
class LoopBody:
    """One pass of a loop.

    Attributes:
        instructions: executed, fused ones counting as one; those of loops inside are not among them.
        loops: loops inside, those in called computations included.
    """

    instructions: int
    loops: int


def loop_body(text: str, trips: int) -> LoopBody:
    """The body of the loop that runs ``trips`` times, the largest of them.

    Args:
        text: of an optimised module, ``compiled.as_text()``.
        trips: passes, as XLA found them.

    Raises:
        ValueError: there is no such loop.
    """
    computations = _computations(text)
    found = [
        _BODY.search(line)
        for lines in computations.values()
        for line in lines
        if " while(" in line and (known := _TRIPS.search(line)) and int(known.group(1)) == trips
    ]
    bodies = [_measured(match.group(1), computations) for match in found if match]
    if not bodies:
        raise ValueError(f"no loop of {trips} passes in this program")
    return max(bodies, key=lambda body: body.instructions)


def _measured(name: str, computations: dict[str, list[str]]) -> LoopBody:
    instructions = loops = 0
    for line in computations[name]:
        operation = _OPERATION.search(line)
        if operation is None or operation.group(1) in _FREE:
            continue
        called = [one for one in _CALLED.findall(line) if one in computations]
        if operation.group(1) == "while":
            loops += 1 + sum(_measured(one, computations).loops for one in called)
        elif operation.group(1) == "call":
            inside = [_measured(one, computations) for one in called]
            instructions += sum(one.instructions for one in inside)
            loops += sum(one.loops for one in inside)
        else:
            instructions += 1
    return LoopBody(instructions, loops)


def _computations(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if name := _COMPUTATION.match(line):
            lines = found[name.group(1)] = []
        elif line.startswith("}"):
            lines = []
        else:
            lines.append(line)
    return found
