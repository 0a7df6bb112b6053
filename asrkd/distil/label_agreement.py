"""Whether another system's posteriors are those of these frames and classes: their agreement with the labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from asrkd.errors import InputError

# With fewer frames of a class, its most frequent answer is not reliable.
MIN_CHECKED_FRAMES = 50
# Frames by which a dump may be early or late and is still recognised.
MAX_SHIFT = 5
# A shift is reported from this gain of the frame accuracy on.
MIN_SHIFT_GAIN = 0.01
MIN_STANDARD_ERRORS = 2.0
# Another way of counting the classes is named from this gain of the frame accuracy on.
MIN_ORDER_GAIN = 0.1


@dataclass
class LabelAgreement:
    """Counts of labels and top classes of a teacher, over its utterances."""

    path: Path
    num_classes: int
    confusions: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(label, top class) -> frames."""
    num_inner: int = 0
    """Labelled frames with MAX_SHIFT frames of their utterance before and after them."""
    num_right: Counter[int] = field(default_factory=Counter)
    """Shift -> those of these frames of which the top class of the frame so much later is the label."""
    num_gained: Counter[int] = field(default_factory=Counter)
    """Shift -> those of these that are right with the shift alone."""

    def add(self, labels: Tensor, top_classes: Tensor) -> None:
        """Count an utterance: its labels [T], negative where there is none, and the teacher's top classes [T]."""
        self.confusions.update(zip(labels.tolist(), top_classes.tolist(), strict=True))
        num_frames = len(labels)
        inner = slice(MAX_SHIFT, num_frames - MAX_SHIFT)
        if num_frames <= 2 * MAX_SHIFT:
            return
        expected = labels[inner]
        self.num_inner += int((expected >= 0).sum())
        right = top_classes[inner] == expected
        for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
            shifted = top_classes[MAX_SHIFT + shift : num_frames - MAX_SHIFT + shift] == expected
            self.num_right[shift] += int(shifted.sum())
            self.num_gained[shift] += int((shifted & ~right).sum())

    @property
    def num_right_now(self) -> int:
        """Frames with their label as the top class."""
        return sum(count for (label, top_class), count in self.confusions.items() if label == top_class)

    def update(self, other: LabelAgreement) -> None:
        """Add the counts of other utterances of the same teacher."""
        self.confusions.update(other.confusions)
        self.num_inner += other.num_inner
        self.num_right.update(other.num_right)
        self.num_gained.update(other.num_gained)

    def require(self) -> float:
        """The frame accuracy. InputError if the frames are early or late, or the classes are not these senones.

        Posteriors with the classes in another order, or of another tree, pass every other check. The accuracy over all
        frames does not find them, because silence has the same class numbers in every tree and many of the frames. So
        most of the classes that have enough frames must be the most frequent top class of their own frames. And the
        accuracy must be at least that of a constant answer, the most frequent label.
        """
        num_frames, most, right = Counter[int](), Counter[int](), Counter[int]()
        for (label, top_class), count in self.confusions.items():
            if label >= 0:
                num_frames[label] += count
                most[label] = max(most[label], count)
                right[label] += count * (label == top_class)
        accuracy = right.total() / num_frames.total()
        constant = max(num_frames.values()) / num_frames.total()
        self._require_no_shift(constant)
        checked = [label for label, count in num_frames.items() if count >= MIN_CHECKED_FRAMES]
        recognised = sum(right[label] == most[label] for label in checked)
        if 2 * recognised < len(checked) or accuracy < constant:
            raise InputError(
                f"{self.path}: expected classes in the order of the senones (pdf_id 0 to {self.num_classes - 1}), "
                f"found a frame accuracy of {100 * accuracy:.1f}%, and {recognised} of {len(checked)} senones with "
                f"{MIN_CHECKED_FRAMES} frames or more that are the most frequent top class of their own frames"
                f"{self._other_order(max(accuracy, constant), num_frames.total())}"
            )
        return accuracy

    def _require_no_shift(self, constant: float) -> None:
        """InputError where the labels agree significantly better with the top classes of other frames.

        A label lasts several frames, so that a shift changes runs of about as many frames as it has: in the standard
        error, McNemar's, such a run counts once. An accuracy below that of a constant answer shows nothing.
        """
        if not self.num_inner:
            return
        best = max(self.num_right, key=lambda shift: (self.num_right[shift], -abs(shift)))
        gain = self.num_right[best] - self.num_right[0]
        num_changed = 2 * self.num_gained[best] - gain
        least_gain = max(MIN_SHIFT_GAIN * self.num_inner, MIN_STANDARD_ERRORS * math.sqrt(abs(best) * num_changed))
        if gain <= least_gain or self.num_right[best] < constant * self.num_inner:
            return
        now, shifted = (100 * self.num_right[shift] / self.num_inner for shift in (0, best))
        amount = "1 frame" if abs(best) == 1 else f"{abs(best)} frames"
        at_least = "at least " if abs(best) == MAX_SHIFT else ""
        first, last = ("first", "last") if best > 0 else ("last", "first")
        raise InputError(
            f"{self.path}: expected frames in time with their labels, found a frame accuracy of {now:.1f}%, and of "
            f"{shifted:.1f}% if the file is {at_least}{amount} {'late' if best > 0 else 'early'}: of each matrix, "
            f"remove the {first} {amount} and repeat the {last} as often"
        )

    def _other_order(self, at_least: float, num_frames: int) -> str:
        """A hint at the numbers of the classes, where another way of counting gives a better accuracy; else empty."""
        orders: dict[str, Callable[[int], int]] = {
            "the numbers of the classes less 1 (counted from 1?)": lambda top: top - 1,
            "the numbers of the classes plus 1": lambda top: top + 1,
            "the classes in reverse order": lambda top: self.num_classes - 1 - top,
        }
        for name, number in orders.items():
            right = sum(count for (label, top), count in self.confusions.items() if number(top) == label >= 0)
            if right > (at_least + MIN_ORDER_GAIN) * num_frames:
                return f"; with {name}, {100 * right / num_frames:.1f}% are right"
        return ""
