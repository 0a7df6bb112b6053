"""Seeds of a recipe's networks, as functions of the run's seed."""

from __future__ import annotations

SEEDS_PER_RUN = 1000
# Torch takes seeds of 63 bits.
MAX_SEED = 10**12
# Teachers and students draw their seeds from ranges that do not overlap.
STUDENT_SEED_OFFSET = 500


def teacher_seed(run_seed: int, member: int) -> int:
    """Seed of teacher `member` (from 0)."""
    return SEEDS_PER_RUN * run_seed + member


def student_seed(run_seed: int, member: int) -> int:
    """Seed of the students with number `member` (from 0). Students of all kinds share it, so that they are pairs."""
    return SEEDS_PER_RUN * run_seed + STUDENT_SEED_OFFSET + member
