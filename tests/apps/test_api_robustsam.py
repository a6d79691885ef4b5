"""RobustSAM's endpoint on the real server through gradio's Python client."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from core.degradations import degrade
from core.engine import get_engine
from core.images import load
from core.masks import decode_rle
from core.prompts import Points
from core.robustsam.pipeline import compare

CENTRE = [160, 120, 1]


@pytest.fixture(scope="module")
def ask(server, tmp_path_factory, square_picture):
    """Call the endpoint with the square, unless told otherwise."""
    client = server.client(download_files=tmp_path_factory.mktemp("answers"))

    def call(picture=square_picture, **arguments):
        file = None if picture is None else handle_file(str(picture))
        return client.predict(image=file, api_name="/segment_robustsam", **arguments)

    return call


def masks_of(record, name):
    return [decode_rle(one["rle"]) for one in record["results"][name]["instances"]]


def test_answers_are_the_engines_own(ask, square_picture):
    overlays, record, picture, archive = ask(
        points=[CENTRE], degradation="rain", strength=4, seed=3
    )
    image = load(square_picture).image
    degraded = degrade(image, "rain", severity=4, seed=3).image
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), degraded)
    points = Points.parse([CENTRE], image.shape[:2])
    found = compare(get_engine(), "robustsam_embedded", degraded, points=points)
    for name, one in (("sam", found.sam), ("robustsam", found.robust)):
        (mask,) = masks_of(record, name)
        differing = (mask != one.segmentation.masks[0]).mean()
        assert differing < 1e-3
    assert record["degradation"]["name"] == "rain" and record["degradation"]["severity"] == 4
    assert 0 <= record["iou"]["robustsam"] <= 1
    assert len(overlays) == 2 and len(zipfile.ZipFile(archive).namelist()) > 10


def test_robustsam_alone_on_a_picture_as_it_is(ask):
    overlays, record, _, _ = ask(points=[CENTRE], compare=False)
    assert len(overlays) == 1 and record["results"]["sam"] is None
    assert record["iou"] is None and record["agreement"] is None
    assert record["degradation"]["name"] == "clear"


def test_two_boxes_are_two_objects(ask):
    _, record, _, _ = ask(boxes=[[120, 80, 200, 160], [10, 10, 90, 90]], degradation="fog")
    assert len(record["results"]["robustsam"]["instances"]) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "There is no prompt yet"),
        ({"points": [CENTRE], "degradation": "hail"}, "hail"),
        ({"points": [CENTRE], "degradation": "rain", "strength": 6}, "1 (mild) to 5 (harsh)"),
        ({"points": [CENTRE], "degradation": "rain", "seed": -1}, "The seed is -1"),
        ({"points": [CENTRE], "model": "sam_embedded"}, "is no model for this task"),
        ({"points": [CENTRE], "model": "full"}, "RobustSAM ViT-B needs"),
        ({"points": [CENTRE], "picture": None}, "There is no picture"),
    ],
)
def test_what_is_missing_or_wrong_gets_a_sentence(ask, arguments, sentence):
    with pytest.raises(AppError) as raised:
        ask(**{"points": [], "boxes": [], **arguments})
    assert sentence in str(raised.value)
