"""The paper's figures and claims (Hinton, Vinyals and Dean 2015, section 3), beside which ours are set.

Errors are of 10,000 test digits, of one network each; a claim is judged on our own networks alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ERRORS: Mapping[str, int] = {"teacher": 67, "baseline": 146, "distilled": 74}


@dataclass(frozen=True)
class PaperTransfer:
    """The paper's figures of a transfer set that lacks classes."""

    classes: tuple[int, ...]
    """Classes whose biases are moved."""
    before: int
    """Errors."""
    after: int
    """Errors after the biases were moved, by a shift chosen on the test digits."""
    shift: float
    before_on_classes: int | None
    """Errors on digits of these classes, where the paper gives them."""
    after_on_classes: int | None


TRANSFER: Mapping[str, PaperTransfer] = {
    "no_3": PaperTransfer((3,), 206, 109, 3.5, 133, 14),
    "only_7_8": PaperTransfer((7, 8), 4730, 1320, -7.6, None, None),
}
# Asked of ours for "most of the gain", which the interval must clear. The paper's student has (146 - 74) / (146 - 67)
# of it, 91%.
GAIN_WANTED = 0.7
# The same for "mends most of it". Of what a lacking transfer set costs, the paper's biases take back
# (206 - 109) / (206 - 74) and (4730 - 1320) / (4730 - 74), both 73%.
MENDED_WANTED = 0.5
# Of the threes, which the student never saw, the paper's has 98.6% right once the bias is repaired.
THREES_WANTED = 0.95


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the experiment that measures it."""

    key: str
    experiment: int
    text: str


CLAIMS = (
    Claim("teacher_better", 1, "A large regularised net errs less than a small plain one (67 against 146 errors)."),
    Claim("distilled_better", 1, "The small net errs less when it also matches soft targets (74 against 146)."),
    Claim("gain_recovered", 1, "Soft targets transfer most of the large net's gain, jitter included (91% of it)."),
    Claim("high_alike", 2, "With 300 or more units a layer, all temperatures above 8 do about as well."),
    Claim("narrow_best", 2, "With 30 units a layer, temperatures of 2.5 to 4 do better than lower or higher ones."),
    Claim("threes_blamed", 3, "Without any 3 in the transfer set, most errors are on threes (133 of 206)."),
    Claim("threes_repaired", 3, "Raising the bias of 3 mends most of it (206 errors to 109)."),
    Claim("threes_known", 3, "A digit never seen is then mostly right (98.6% of the threes)."),
    Claim("two_repaired", 4, "Trained on 7 and 8 alone, lower biases of them bring 47.3% errors to 13.2%."),
    Claim("matching_limit", 5, "Matching logits is what distillation tends to as the temperature grows."),
    Claim("small_set", 6, "With 3% of the training data, soft targets generalise where hard ones overfit."),
    Claim("more_teachers", 6, "Ours, not the paper's: soft targets of more teachers teach better."),
    Claim("controls", 7, "Ours, not the paper's: smoothing, regularisation or longer training do not explain it."),
)
