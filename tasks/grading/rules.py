"""The conventions on which data sets disagree, with the policy that holds unless a task sets another.

`docs/grading.md` holds the same table with examples. The reason of a verdict names the convention that decided it.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.errors import UserError


@dataclass(frozen=True, slots=True)
class Rules:
    """How a task reads what is ambiguous.

    order: whether a bare list `1, 2` may come in any order; in `(1, 2)` order always counts, in `{1, 2}` never.
    percent: whether `10%` is the same as 10 and as 0.1 ("either"), only as 10 ("number") or only as 0.1 ("value").
    degrees: whether 90 degrees is the same as 90 and as pi/2 ("either"), only 90 ("number") or only pi/2 ("value").
    units: whether a unit may be left out ("optional"), must be there when the gold answer has one ("required"), or is
        never looked at ("ignored"). Two known units must agree, after conversion, unless they are ignored.
    decimal_comma: whether `3,14` is 3.14 and `1.234` is 1234.
    assignment: whether `x = 2` is the same as 2.
    unsimplified: whether 2/4 and 1 + 1 may stand for 1/2 and 2.
    rounded_digits: a decimal with at least so many significant digits may stand for the exact number it is the rounding
        or truncation of; 0 never.
    rel_tol: numbers within this share of the gold answer are the same; 0 is exact.
    case: whether the letter case of a text answer counts.
    """

    order: Literal["any", "kept"] = "any"
    percent: Literal["either", "number", "value"] = "either"
    degrees: Literal["either", "number", "value"] = "either"
    units: Literal["optional", "required", "ignored"] = "optional"
    decimal_comma: bool = False
    assignment: bool = True
    unsimplified: bool = True
    rounded_digits: int = 10
    rel_tol: float = 0.0
    case: bool = False

    def __post_init__(self) -> None:
        """Refuse values that mean nothing. Raises UserError."""
        for field, allowed in CHOICES.items():
            if getattr(self, field) not in allowed:
                raise UserError(f"grading rule {field} is one of {', '.join(allowed)}, got '{getattr(self, field)}'")
        if not 0 <= self.rel_tol < 1:
            raise UserError(f"grading rule rel_tol is a share of the gold answer from 0 to 1, got {self.rel_tol}")

    def document(self) -> dict[str, Any]:
        """The rules as JSON values, to be sent to a worker and to name a memo."""
        return asdict(self)


CHOICES = {
    "order": ("any", "kept"),
    "percent": ("either", "number", "value"),
    "degrees": ("either", "number", "value"),
    "units": ("optional", "required", "ignored"),
}
DEFAULT = Rules()
