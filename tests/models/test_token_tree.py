"""A forest holds every prompt once, and no node twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.token_tree import Forest

token = st.integers(1, 3)
prompt_lists = st.lists(st.lists(token, min_size=1, max_size=6), min_size=1, max_size=25)


def forest_of(prompts: list[list[int]]) -> Forest:
    ids = np.zeros((len(prompts), 7), np.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    return Forest(ids, np.array([len(prompt) for prompt in prompts]))


def beginnings(prompts: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(p[: n + 1]) for p in prompts for n in range(len(p))}


@given(prompt_lists, st.integers(1, 40))
def test_each_prompt_is_read_off_its_end_and_what_that_sees(
    prompts: list[list[int]], most: int
) -> None:
    forest, nodes, start = forest_of(prompts), [], 0
    while start < len(forest):
        tree = forest.tree(start, most)
        assert len(tree.tokens) <= most or len(tree.rows) == 1
        for row, end in zip(tree.rows, tree.ends, strict=True):
            path = np.flatnonzero(tree.visible[end])
            assert tree.tokens[path].tolist() == prompts[row]
            assert tree.positions[path].tolist() == list(range(len(path)))
        nodes += tree.rows.tolist()
        start += len(tree.rows)
        if start < len(forest):  # one more would not have fitted
            further = [*tree.rows, forest.tree(start, most).rows[0]]
            assert len(beginnings([prompts[row] for row in further])) > most
    assert sorted(nodes) == list(range(len(prompts)))
    # and whatever was cut before, the whole is as it was
    assert len(forest.tree(0, 1000).tokens) == len(beginnings(prompts))


@given(prompt_lists)
def test_one_tree_has_a_node_for_each_different_beginning(prompts: list[list[int]]) -> None:
    tree = forest_of(prompts).tree(0, 1000)
    assert len(tree.tokens) == len(beginnings(prompts))


@pytest.mark.parametrize("lengths", [(1, 3), (3, 1)])
def test_padding_is_not_taken_for_a_token_of_the_same_number(lengths: tuple[int, int]) -> None:
    ids = np.array([[5, 0, 0], [5, 0, 0]])
    tree = Forest(ids, np.array(lengths)).tree(0, 10)
    paths = [tree.tokens[tree.visible[end]].tolist() for end in tree.ends]
    assert sorted(paths) == [[5], [5, 0, 0]]
