"""The traffic of a compiled program, read from its HLO text: to a chip's memory, and between chips."""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping

from jax_video.errors import UserError

_COLLECTIVES = "all-reduce all-gather reduce-scatter collective-permute all-to-all".split()
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


def measure(program: str) -> tuple[float, dict[str, tuple[int, float]]]:
    """(bytes read from and written to the chip's main memory, collectives), from a compiled program's text.

    Every instruction reads its operands and writes its result; arrays that are kept on the chip are not counted. XLA's
    own number counts these too, and also what a fusion reads of its parts: five times as much for a ResNet.

    Returns:
      The bytes, and {kind: (how many, bytes of the results)} of the collectives, in which chips exchange data.

    Raises:
      UserError: it is not known how often a loop runs.
    """
    entry, computations = _computations(program)
    traffic, numbers, sizes = 0.0, collections.Counter[str](), collections.Counter[str]()

    def add(computation: str, times: int) -> None:
        nonlocal traffic
        instructions = computations.get(computation, {})
        for instruction in instructions.values():
            for called in instruction.called:
                add(called, times * instruction.times)
            traffic += times * _moved(instruction, instructions)
            if (kind := instruction.kind.removesuffix("-start")) in _COLLECTIVES:
                numbers[kind] += times
                sizes[kind] += times * sum(size for size, _ in instruction.arrays)

    add(entry, 1)
    return traffic, {kind: (number, sizes[kind]) for kind, number in numbers.items()}


@dataclasses.dataclass
class _Instruction:
    """One line of a compiled program's text."""

    kind: str
    arrays: list[tuple[int, bool]]  # of its result: (bytes, whether they are in the chip's main memory)
    operands: list[str]  # names
    called: list[str]  # computations that it runs, such as a loop's body
    times: int  # how often it runs them; 0: not known yet
    condition: str  # the computation that says whether a loop goes on


_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^{}]*\})?")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%\S+) = (.*?) ([a-z-]+)\((.*)")
_FREE = "parameter constant get-tuple-element tuple bitcast iota while conditional call".split()


def _computations(program: str) -> tuple[str, dict[str, dict[str, _Instruction]]]:
    """(name of the computation that runs first, {computation: {instruction's name: instruction}})."""
    entry, current = "", ""
    found: dict[str, dict[str, _Instruction]] = {}
    numbers: dict[str, int] = {}  # constants of the current computation, by name
    limits: dict[str, int] = {}  # by computation: a loop goes on while its counter is below this number
    for line in program.splitlines():
        if line.endswith("{") and (match := re.match(r"(ENTRY )?(%\S+) \(", line)):
            current = match[2]
            entry = current if match[1] else entry
            found[current], numbers = {}, {}
        elif match := _INSTRUCTION.match(line):
            name, result, kind, rest = match.groups()
            arrays = [
                (_BYTES.get(of, 0) * math.prod(map(int, filter(None, shape.split(",")))), "S(" not in layout)
                for of, shape, layout in _SHAPE.findall(result)
            ]
            called = re.findall(r"(?:body|to_apply|true_computation|false_computation)=(%[\w.-]+)", rest)
            called += re.findall(r"%[\w.-]+", "".join(re.findall(r"branch_computations=\{([^}]*)\}", rest)))
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
            without_layouts = re.sub(r"\{[^{}]*\}", "", rest)
            operands = re.findall(r"%[\w.-]+", without_layouts.partition(")")[0])
            if number := re.match(r"(\d+)\)", rest) if kind == "constant" else None:
                numbers[name] = int(number[1])
            if kind == "compare" and "direction=LT" in rest:
                limits[current] = max((numbers[name] for name in operands if name in numbers), default=0)
            condition = re.search(r"condition=(%[\w.-]+)", rest)
            runs = called if kind in ("while", "conditional", "call") else []
            found.setdefault(current, {})[name] = _Instruction(
                kind,
                arrays,
                operands,
                runs,
                int(trips[1]) if trips else int(kind != "while"),
                condition[1] if condition else "",
            )
    for instruction in (each for computation in found.values() for each in computation.values()):
        # The loop of a `lax.scan` counts up from zero, and the compiler for TPUs does not say how far.
        if instruction.kind == "while":
            instruction.times = instruction.times or limits.get(instruction.condition, 0)
            if not instruction.times:
                raise UserError(
                    "the compiled program has a loop of which this version cannot read how often it runs; expected a "
                    "count, or a condition that a counter is less than a constant. Plan without micro_batch."
                )
    return entry, found


def _moved(instruction: _Instruction, instructions: Mapping[str, _Instruction]) -> int:
    """Bytes that an instruction reads from main memory and writes to it; `instructions`: its neighbours."""
    if instruction.kind in _FREE or instruction.kind.endswith("-done"):
        return 0
    if instruction.kind in ("copy-start", "slice-start"):  # the result lists the operand, too
        arrays = [(size, main) for size, main in instruction.arrays if size > 4]
        return min((size for size, _ in arrays), default=0) * sum(main for _, main in arrays)
    read = (instructions[name].arrays for name in instruction.operands if name in instructions)
    return sum(size for arrays in (instruction.arrays, *read) for size, main in arrays if main)
