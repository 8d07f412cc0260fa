"""Mutants of the project's code by Cosmic Ray's operators: places first, then a change at each."""

from __future__ import annotations

import difflib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

AREAS = {
    "explain": "hvx/explain/**/*.py",
    "models": "hvx/models/*.py",
    "run": "hvx/run/**/*.py",
    "store": "hvx/store/*.py",
    "capture": "hvx/capture/*.py",
    "measure": "hvx/measure/**/*.py",
    "cli": "hvx/cli/*.py",
    "config": "hvx/config*.py",
}
"""What is sampled, each with its files."""


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file."""

    area: str
    file: str
    lines: tuple[int, ...]
    operator: str
    difference: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.lines[0]} {self.operator}"


def sample_mutants(root: Path, areas: Sequence[str], each: int, seed: int) -> list[Mutant]:
    """Mutants of each area, at random with a seed: ``each`` places of an area, one change at each.

    Places count once however many operators fit them, or else arithmetic would crowd out all else. Type
    annotations are never evaluated, so changes in them are left out.
    """
    mutants: list[Mutant] = []
    for area in areas:
        chance = random.Random(f"{seed} {area}")
        files = sorted(root.glob(AREAS[area]))
        places = [(file, place, ways) for file in files for place, ways in _places(file).items()]
        for file, place, ways in chance.sample(places, min(each, len(places))):
            operator, arguments, occurrence = chance.choice(ways)
            mutants.append(
                _mutant(area, root, file, (place[0][0], place[1][0]), operator, arguments, occurrence)
            )
    return mutants


Place = tuple[tuple[int, int], tuple[int, int]]
Way = tuple[str, dict[str, Any], int]


def _places(file: Path) -> dict[Place, list[Way]]:
    """Where a file can be changed (start and end, by line and column), with the operators that fit there."""
    tree = get_ast(file.read_text(encoding="utf-8"))
    found: dict[Place, list[Way]] = defaultdict(list)
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator_class = cosmic_ray.plugins.get_operator(name)
        if name == "core/NoOp" or operator_class.arguments():
            continue
        operator, occurrence = operator_class(), 0
        for node in ast_nodes(tree):
            for start, end in operator.mutation_positions(node):
                if not _is_annotation(node):
                    found[start, end].append((name, {}, occurrence))
                occurrence += 1
    return dict(sorted(found.items()))


def _is_annotation(node: Any) -> bool:
    """Whether a node lies in a type annotation, which is never evaluated here."""
    for child, parent in _ancestry(node):
        if parent.type == "annassign":
            return bool(parent.children[1] is child)
        if parent.type == "tfpdef":
            return bool(parent.children[2] is child)
        if parent.type == "funcdef":
            return bool(parent.annotation is child)
    return False


def _ancestry(node: Any) -> Iterator[tuple[Any, Any]]:
    while node.parent is not None:
        yield node, node.parent
        node = node.parent


def _mutant(
    area: str,
    root: Path,
    file: Path,
    span: tuple[int, int],
    operator: str,
    arguments: dict[str, Any],
    occurrence: int,
) -> Mutant:
    before = file.read_text(encoding="utf-8")
    after = mutate_code(before, cosmic_ray.plugins.get_operator(operator)(**arguments), occurrence)
    assert after is not None and after != before
    changed = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    shown = "\n".join(line for line in list(changed)[2:] if not line.startswith("@@"))
    lines = tuple(range(span[0], span[1] + 1))
    return Mutant(area, str(file.relative_to(root)), lines, operator.split("/")[1], shown, after)
