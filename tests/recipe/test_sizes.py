"""Sizes of a new recipe: the corpora that they come from, and room for the tree over its roots."""

from __future__ import annotations

import pytest

from asrkd.errors import InputError
from asrkd.hmm.tree import TreeOptions, least_leaves, require_leaves
from asrkd.recipe.sizes import choose_sizes, choose_vocab_size


@pytest.mark.parametrize(
    ("hours", "num_leaves", "hidden_dim", "num_layers"),
    [(0.1, 300, 512, 4), (0.7, 300, 512, 4), (4, 1200, 768, 4), (100, 4200, 1024, 5), (2000, 14000, 2560, 8)],
)
def test_the_corpora_that_the_sizes_come_from(hours: float, num_leaves: int, hidden_dim: int, num_layers: int) -> None:
    sizes = choose_sizes(hours, num_phones=40)
    assert (sizes.num_leaves, sizes.hidden_dim, sizes.num_layers) == (num_leaves, hidden_dim, num_layers)


def test_between_the_corpora_sizes_grow_and_epochs_fall() -> None:
    hours = [0.5 * 1.5**step for step in range(25)]
    sizes = [choose_sizes(one, num_phones=40) for one in hours]
    for name in ("num_leaves", "hidden_dim", "num_layers", "batch_size"):
        values = [getattr(one, name) for one in sizes]
        assert values == sorted(values)
    for name in ("epochs", "label_epochs"):
        values = [getattr(one, name) for one in sizes]
        assert values == sorted(values, reverse=True) and values[-1] >= 1
    vocab_sizes = [choose_vocab_size(one) for one in hours]
    assert vocab_sizes == sorted(vocab_sizes) and vocab_sizes[0] == 80


@pytest.mark.parametrize("hours", [0.01, 0.7, 5.0, 100.0])
@pytest.mark.parametrize("num_phones", [3, 40, 112, 500, 4000])
def test_the_tree_has_room_over_its_roots(hours: float, num_phones: int) -> None:
    sizes = choose_sizes(hours, num_phones)
    assert sizes.num_leaves >= 1.5 * least_leaves(num_phones)
    require_leaves(TreeOptions(num_leaves=sizes.num_leaves), ["x"] * num_phones)


def test_fewer_leaves_than_roots_are_refused_and_the_number_is_named() -> None:
    """111 subword units and silence: what 5 hours of English gave with 80 pieces."""
    require_leaves(TreeOptions(num_leaves=336), ["x"] * 112)
    with pytest.raises(InputError) as error:
        require_leaves(TreeOptions(num_leaves=300), ["x"] * 112)
    assert str(error.value) == (
        "--tree.num-leaves: expected at least 336, for 3 states of each of 112 phones (silence included), found 300"
    )
