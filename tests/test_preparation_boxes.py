"""Boxes survive every conversion between COCO, VOC and YOLO."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparation_data import voc_xml, write

from mmdsym.datasets.preparation.boxes import (
    at_least_a_pixel,
    coco_to_edges,
    edges_to_coco,
    edges_to_voc,
    edges_to_yolo,
    voc_is_one_based,
    voc_to_edges,
    yolo_to_edges,
)
from mmdsym.datasets.preparation.cocojson import CocoDocuments
from mmdsym.datasets.preparation.records import Box, SourceImage
from mmdsym.datasets.preparation.sources.xml import read_voc_file
from mmdsym.datasets.preparation.sources.yolo import parse_label_line


@st.composite
def images_with_box(draw):
    """(width, height, edges) of an image and a box of at least one pixel inside it."""
    width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    return width, height, (x1, y1, x2, y2)


@given(images_with_box())
@settings(deadline=None)
def test_coco_and_voc_return_what_they_were_given(case):
    width, height, edges = case
    assert coco_to_edges(edges_to_coco(edges)) == edges
    corners = edges_to_voc(edges)
    assert voc_to_edges(corners) == edges
    # VOC counts pixels, so a box inside the image never names pixel 0 nor one past the last.
    assert min(corners[:2]) >= 1
    assert corners[2] <= width and corners[3] <= height


@given(images_with_box())
@settings(deadline=None)
def test_yolo_returns_what_it_was_given_also_as_text(case):
    width, height, edges = case
    relative = edges_to_yolo(edges, width, height)
    assert all(0 <= value <= 1 for value in relative)
    assert yolo_to_edges(relative, width, height) == pytest.approx(edges, abs=1e-6)
    number, read = parse_label_line(' '.join(map(str, (3, *relative))), width, height)
    assert number == 3
    assert read == pytest.approx(edges, abs=1e-6)


@given(images_with_box())
@settings(deadline=None)
def test_chain_coco_voc_yolo_coco(case):
    width, height, edges = case
    start = edges_to_coco(edges)
    through_voc = voc_to_edges(edges_to_voc(coco_to_edges(start)))
    through_yolo = yolo_to_edges(edges_to_yolo(through_voc, width, height), width, height)
    assert edges_to_coco(through_yolo) == pytest.approx(start, abs=1e-6)


@given(images_with_box())
@settings(max_examples=30, deadline=None)
def test_voc_file_on_disk(case):
    width, height, edges = case
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / 'a.xml', voc_xml([('dent', edges)], 'a.jpg', (width, height)))
        voc = read_voc_file(path)
    assert voc.size == (width, height)
    read = [(label, voc_to_edges(corners)) for label, corners, _ in voc.objects]
    assert read == [('dent', edges)]


def test_one_known_box_in_each_convention():
    edges = (0, 0, 200, 100)
    assert edges_to_coco(edges) == (0, 0, 200, 100)
    assert edges_to_voc(edges) == (1, 1, 200, 100)
    assert edges_to_yolo(edges, 200, 200) == (0.5, 0.25, 1.0, 0.5)
    assert voc_to_edges((1, 1, 200, 100)) == edges
    assert voc_to_edges((0, 0, 200, 100), one_based=False) == edges


def test_polygon_label_becomes_its_bounding_box():
    number, edges = parse_label_line('1 0.1 0.2 0.5 0.2 0.3 0.9', 100, 10)
    assert number == 1
    assert edges == pytest.approx((10, 2, 50, 9))


@pytest.mark.parametrize('line', ['x 0.5 0.5 0.1 0.1', '1 0.5 0.5 0.1', '1 0.5 a 0.1 0.1', '1'])
def test_broken_label_line(line):
    with pytest.raises(ValueError):
        parse_label_line(line, 10, 10)


def test_origin_is_told_from_the_boxes_at_the_border():
    assert voc_is_one_based([(1, 1, 200, 200), (1, 50, 60, 90)])
    assert not voc_is_one_based([(0, 0, 200, 200), (0, 50, 60, 90)])
    # One stray zero among many ones is a fault of that box, not another convention.
    assert voc_is_one_based([(0, 7, 9, 9), (1, 7, 9, 9), (1, 7, 9, 9)])
    assert voc_is_one_based([(5, 5, 9, 9)])
    assert voc_is_one_based([])


@pytest.mark.parametrize(
    'edges, expected',
    [
        ((10, 10, 10.5, 160), (9.75, 10, 10.75, 160)),
        ((199.5, 0, 200, 0.5), (199, 0, 200, 1)),
        ((10, 10, 11, 12), (10, 10, 11, 12)),
        # YOLO's numbers of a box of one pixel; rounding is no fault.
        ((10, 10, 10.99999999, 12), (10, 10, 10.99999999, 12)),
        ((10, 10, 10, 12), (10, 10, 10, 12)),
        ((10, 10, 10.5, 9), (10, 10, 10.5, 9)),
    ],
)
def test_a_box_thinner_than_a_pixel_becomes_one_pixel_wide(edges, expected):
    assert at_least_a_pixel(edges, 200, 200) == expected


def test_no_box_is_written_that_training_would_pass_over():
    """A tile's border can leave a sliver, which MMDetection passes over below one pixel."""
    image = SourceImage(Path('a.png'), 'a.png', [Box(63.4, 5, 64, 25, 'dent')], width=64, height=64)
    (row,) = json.loads(CocoDocuments(['dent'], [image]).document([image]))['annotations']
    assert row['bbox'] == [63, 5, 1, 20] and row['area'] == 20
