"""Choosing the joint among the products of a forward pass, by name or by default."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hvx.capture.error_messages import explain_missing_product
from hvx.capture.factors import Form
from hvx.capture.joining import joints
from hvx.capture.recorder import ProductRecorder
from hvx.capture.records import RecordedProduct
from hvx.capture.words import Words
from hvx.errors import HvxError

_MAX_LISTED = 6
"""Products that an error message names; the others are counted."""


@dataclass(frozen=True)
class ProductChoice:
    """The recorded products, to choose from; the other attributes explain why there are none."""

    model: nn.Module
    recorder: ProductRecorder
    words: Words
    through_no_grad: bool
    output: Any

    def check(self) -> None:
        """Raise if no product was found.

        Raises:
            HvxError: the message says what was seen.
        """
        if not self.recorder.seen:
            raise HvxError(self._why_none())

    def _why_none(self) -> str:
        return explain_missing_product(
            self.model, self.recorder, self.words, self.through_no_grad, self.output
        )

    def default(self, visual: str | None) -> list[RecordedProduct]:
        """The only joint of the forward, explained if the user names none.

        Raises:
            HvxError: there is none, or there are several.
        """
        candidates = self.candidates(visual)
        groups = joints(candidates, self.output)
        if len({record.site for group in groups for record in group[-1:]}) > 1:
            raise HvxError(
                f"{len(groups)} products of image and words could be the joint; choose by product=, a name "
                f"or a number: {_listed(candidates)}"
            )
        others = [record for record in self.recorder.seen if record not in candidates and _is_vector(record)]
        if others:
            warnings.warn(
                f"explained: {groups[-1][-1].product}; product= chooses another: {_listed(others)}",
                UserWarning, stacklevel=4,
            )  # fmt: skip
        return groups[-1]

    def candidates(self, visual: str | None) -> list[RecordedProduct]:
        """The products that are one vector for each question; gates only if there is nothing else.

        Raises:
            HvxError: there is none.
        """
        self.check()
        seen = self.recorder.seen
        mixed = [record for record in seen if record.product.form is Form.MIXED]
        vectors = [record for record in seen if record.product.joint or (visual and record in mixed)]
        plain = [record for record in vectors if record.product.form is not Form.GATE]
        if plain or (vectors and not mixed):
            return plain or vectors
        if self.recorder.cut:
            raise HvxError(self._why_none())
        if mixed:
            raise HvxError(
                "both factors of the joint depend on image and words; say which is V by visual=, the path of "
                f"a module or a file:line that its values come from: {_listed(mixed + vectors)}"
            )
        raise HvxError(
            f"no product of image and words is one vector for each question; choose by product=: "
            f"{_listed(seen)}"
        )

    def one(self, choice: int | str | Sequence[str]) -> list[RecordedProduct]:
        """The named product; several if the name stands for one joint, or if several names are given.

        Raises:
            HvxError: there is no such product, or several that do not form a joint.
        """
        self.check()
        seen = self.recorder.seen
        if not isinstance(choice, int | str):
            return [record for name in choice for record in self.one(name)]
        if isinstance(choice, int):
            if not -len(seen) <= choice < len(seen):
                raise HvxError(f"product {choice}: there are {len(seen)}: {_listed(seen)}")
            return [seen[choice]]
        by_name = [record for record in seen if record.product.name == choice]
        if by_name:
            return by_name
        matches = [record for record in seen if choice in (record.product.module, record.product.line)]
        if len(matches) > 1:
            vector = [record for record in matches if _is_vector(record)]
            groups = joints(vector, self.output) if len(vector) == len(matches) else []
            if len(groups) == 1:
                return groups[0]
        if len(matches) != 1:
            problem = f"there are {len(matches)}; choose by number or name" if matches else "there is none"
            raise HvxError(f"product '{choice}': {problem}: {_listed(matches or seen)}")
        return matches


def _is_vector(seen: RecordedProduct) -> bool:
    return seen.product.form in (Form.JOINT, Form.GATE, Form.MIXED)


def _listed(seen: Sequence[RecordedProduct]) -> str:
    named = "; ".join(str(record.product) for record in seen[:_MAX_LISTED])
    return named + (f"; and {len(seen) - _MAX_LISTED} more" if len(seen) > _MAX_LISTED else "")
