"""Choosing the joint among the products of a forward pass: the one a reader of the model names, or none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hvx.capture.diagnosis import why_none
from hvx.capture.factors import Form
from hvx.capture.joining import joints
from hvx.capture.records import Seen
from hvx.capture.watch import Watch
from hvx.capture.words import Words
from hvx.errors import HvxError

_NAMED = 6
"""Products that an error line names; the others are counted."""


@dataclass(frozen=True)
class Choice:
    """The products that a watch saw, to choose from; the other attributes say why there are none."""

    model: nn.Module
    watch: Watch
    words: Words
    through_no_grad: bool
    output: Any

    def check(self) -> None:
        """Raise if no product was found.

        Raises:
            HvxError: the line says what was seen.
        """
        if not self.watch.seen:
            raise HvxError(self._why_none())

    def _why_none(self) -> str:
        return why_none(self.model, self.watch, self.words, self.through_no_grad, self.output)

    def default(self, visual: str | None) -> list[Seen]:
        """The joint that a reader of the model would name.

        Raises:
            HvxError: there is none, or more than one could be meant.
        """
        found = self.candidates(visual)
        groups = joints(found, self.output)
        if len({each.site for group in groups for each in group[-1:]}) > 1:
            raise HvxError(
                f"{len(groups)} products of image and words could be the joint; choose by product=, a name "
                f"or a number: {_named(found)}"
            )
        others = [each for each in self.watch.seen if each not in found and _is_vector(each)]
        if others:
            warnings.warn(
                f"explained: {groups[-1][-1].product}; product= chooses another: {_named(others)}",
                UserWarning, stacklevel=4,
            )  # fmt: skip
        return groups[-1]

    def candidates(self, visual: str | None) -> list[Seen]:
        """The products that are one vector for each question; gates only if there is nothing else.

        Raises:
            HvxError: there is none.
        """
        self.check()
        seen = self.watch.seen
        known = [each for each in seen if each.product.joint or (visual and each.product.form is Form.MIXED)]
        plain = [each for each in known if each.product.form is not Form.GATE]
        mixed = [each for each in seen if each.product.form is Form.MIXED]
        if plain or (known and not mixed):
            return plain or known
        if self.watch.cut:
            raise HvxError(self._why_none())
        if mixed:
            raise HvxError(
                "both factors of the joint depend on image and words; say which is V by visual=, the path of "
                f"a module or a file:line that its values come from: {_named(mixed + known)}"
            )
        raise HvxError(
            f"no product of image and words is one vector for each question; choose by product=: "
            f"{_named(seen)}"
        )

    def one(self, choice: int | str | Sequence[str]) -> list[Seen]:
        """The product asked for; several if the name stands for one joint, or if several names are given.

        Raises:
            HvxError: there is no such product, or several that are no joint.
        """
        self.check()
        seen = self.watch.seen
        if not isinstance(choice, int | str):
            return [each for name in choice for each in self.one(name)]
        if isinstance(choice, int):
            if not -len(seen) <= choice < len(seen):
                raise HvxError(f"product {choice}: there are {len(seen)}: {_named(seen)}")
            return [seen[choice]]
        named = [each for each in seen if each.product.name == choice]
        if named:
            return named
        inside = [each for each in seen if choice in (each.product.module, each.product.line)]
        if len(inside) > 1:
            vector = [each for each in inside if _is_vector(each)]
            groups = joints(vector, self.output) if len(vector) == len(inside) else []
            if len(groups) == 1:
                return groups[0]
        if len(inside) != 1:
            what = f"there are {len(inside)}; choose by number or name" if inside else "there is none"
            raise HvxError(f"product '{choice}': {what}: {_named(inside or seen)}")
        return inside


def _is_vector(seen: Seen) -> bool:
    return seen.product.form in (Form.JOINT, Form.GATE, Form.MIXED)


def _named(seen: Sequence[Seen]) -> str:
    named = "; ".join(str(each.product) for each in seen[:_NAMED])
    return named + (f"; and {len(seen) - _NAMED} more" if len(seen) > _NAMED else "")
