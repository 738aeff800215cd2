"""Remembered embeddings: only for boxes that hardly moved, in bounded memory, across a resume."""

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from mmdsym.clip.embedding_reuse import EmbeddingMemory
from mmdsym.errors import UserError

WIDTH = 8
corners = st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(4, 90)] * 2)
box_lists = st.lists(corners, min_size=1, max_size=6).map(
    lambda rows: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows])
)
visits = st.lists(st.tuples(st.sampled_from('abc'), box_lists), min_size=1, max_size=8)


def embed(box: torch.Tensor) -> torch.Tensor:
    """A stand-in whose result tells the box it was made of."""
    return torch.cat([box, box.square()])


def visit(memory: EmbeddingMemory, image: str, boxes: torch.Tensor) -> torch.Tensor:
    entries = memory.recall(image, boxes)
    for entry in entries:
        if entry.feature is None:
            entry.feature = embed(entry.box)
    memory.remember(image, entries)
    return torch.stack([entry.feature for entry in entries])


@given(visits)
def test_switched_off_every_box_has_its_own_embedding(seen):
    memory = EmbeddingMemory(megabytes=0)
    for image, boxes in seen:
        assert torch.equal(visit(memory, image, boxes), torch.stack([embed(b) for b in boxes]))
    assert memory.reused == 0 and memory.used_bytes == 0


@given(visits)
def test_an_embedding_is_of_a_box_that_overlaps_enough(seen):
    memory = EmbeddingMemory()
    for image, boxes in seen:
        of_boxes = visit(memory, image, boxes)[:, :4]
        overlaps = box_iou(boxes, of_boxes).diagonal()
        assert (overlaps >= 0.9 - 1e-6).all()


@given(visits, st.integers(0, 8), st.floats(0.0001, 0.001))
def test_a_restored_memory_goes_on_as_if_nothing_had_happened(seen, cut, megabytes):
    whole, broken = EmbeddingMemory(megabytes), EmbeddingMemory(megabytes)
    for position, (image, boxes) in enumerate(seen):
        if position == cut:
            buffer = io.BytesIO()
            torch.save(broken.state_dict(), buffer)
            buffer.seek(0)
            broken = EmbeddingMemory(megabytes)
            broken.load_state_dict(torch.load(buffer, weights_only=True))
        expected = visit(whole, image, boxes)
        assert torch.equal(visit(broken, image, boxes), expected)
        assert whole.used_bytes == broken.used_bytes <= whole.capacity


def test_a_box_that_stays_is_reused_and_one_that_creeps_is_not():
    memory = EmbeddingMemory()
    box = torch.tensor([[10.0, 10, 50, 50]])
    first = visit(memory, 'a', box)
    assert torch.equal(visit(memory, 'a', box + 0.4), first)
    assert memory.take_counts() == (2, 1)
    assert not torch.equal(visit(memory, 'a', box + 8), first)
    assert not torch.equal(visit(memory, 'b', box + 0.4), first)
    assert memory.take_counts() == (2, 0)


def test_the_image_seen_longest_ago_goes_first():
    one = 16 + 4 * WIDTH
    memory = EmbeddingMemory(megabytes=2.5 * one / 2**20)
    box = torch.tensor([[10.0, 10, 50, 50]])
    for image in 'abac':
        visit(memory, image, box)
    assert memory.used_bytes == 2 * one
    memory.take_counts()
    visit(memory, 'a', box)
    assert memory.take_counts() == (1, 1)
    visit(memory, 'b', box)
    assert memory.take_counts() == (1, 0)


def test_an_image_does_not_fill_the_memory_alone():
    memory = EmbeddingMemory(boxes_per_image=3)
    for shift in range(0, 100, 20):
        visit(memory, 'a', torch.tensor([[0.0, 0, 10, 10]]) + shift)
    assert memory.used_bytes == 3 * (16 + 4 * WIDTH)


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match='min_overlap=1.5'):
        EmbeddingMemory(min_overlap=1.5)
