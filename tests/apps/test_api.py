"""The public endpoints, SAM's at work, on the real server through gradio's Python client."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from pycocotools import mask as coco

from apps.suite.examples import FOLDER
from core.masks import decode_rle, iou

SQUARE = (120, 80, 200, 160)  # x0, y0, x1, y1 in `square_picture`, 320×240

# Name: parameters with their defaults ("–": required), and what comes back.
ENDPOINTS = {
    "/segment_sam": (
        {"image": "–", "points": [], "boxes": [], "multimask": True, "model": "embedded"},
        ["overlay", "record", "archive"],
    ),
    "/segment_everything": (
        {
            "image": "–",
            "points_per_side": None,
            "pred_iou_thresh": None,
            "stability_score_thresh": None,
            "min_area_px": 0,
            "model": "embedded",
        },
        ["overlay", "record", "archive"],
    ),
    "/segment_words": (
        {"image": "–", "words": "", "threshold": None, "model": "embedded"},
        ["overlay", "record", "archive"],
    ),
    "/propose_objects": (
        {"image": "–", "points_per_side": None, "max_proposals": 1000, "model": "embedded"},
        ["overlay", "record", "archive"],
    ),
    "/segment_edges": (
        {"image": "–", "thin": True, "model": "embedded"},
        ["overlay", "record"],
    ),
    "/segment_persam": (
        {
            "reference_image": None,
            "reference_mask": None,
            "test_images": None,
            "variant": "persam",
            "steps": 1000,
            "learning_rate": 0.001,
            "guided_attention": None,
            "semantic_prompt": None,
            "refinement_1": True,
            "refinement_2": True,
            "negative_point": None,
            "points": 1,
            "max_instances": 1,
            "presence_threshold": None,
            "profile": None,
            "model": "embedded",
        },
        ["overlays", "records", "archive"],
    ),
    "/learn_persam": (
        {
            "reference_image": None,
            "reference_mask": None,
            "name": "my object",
            "variant": "persam_f",
            "steps": 1000,
            "learning_rate": 0.001,
            "model": "embedded",
        },
        ["profile", "record"],
    ),
    "/follow_persam": (
        {
            "clip": None,
            "first_mask": None,
            "start": 0,
            "variant": "persam",
            "profile": None,
            "model": "embedded",
        },
        ["overlay", "record", "archive"],
    ),
    "/segment_robustsam": (
        {
            "image": "–",
            "points": [],
            "boxes": [],
            "degradation": "none",
            "strength": 3,
            "seed": 0,
            "compare": True,
            "model": "embedded",
        },
        ["overlays", "record", "picture", "archive"],
    ),
    "/segment_text": (
        {
            "image": "–",
            "queries": "–",
            "background_queries": None,
            "preset": "auto",
            "eta": None,
            "theta": None,
            "crf_lambda": None,
            "use_crf": True,
            "use_sam": False,
            "mode": "words",
            "presence_threshold": None,
            "model": "embedded",
        },
        ["overlay", "record", "archive"],
    ),
    "/chat_segment": (
        {
            "image": "–",
            "message": "",
            "history": [],
            "temperature": 0,
            "max_new_tokens": 512,
            "seed": 0,
            "style": "as_asked",
            "mask_threshold": 0,
            "model": "embedded",
        },
        ["answer", "record", "history", "overlay", "archive"],
    ),
    "/dreambooth_train": (
        {
            "images": None,
            "masks": None,
            "class_noun": "",
            "identifier": "sks",
            "preset": "quick",
            "masked": True,
            "method": None,
            "steps": None,
            "learning_rate": None,
            "rank": None,
            "prior": None,
            "seed": 0,
            "model": "embedded",
            "sam": "embedded",
            "training": "",
        },
        ["record", "weights"],
    ),
    "/dreambooth_sample": (
        {
            "training": "",
            "weights": None,
            "prompt": "a photo of {}",
            "seeds": [1, 2, 3, 4],
            "guidance": None,
            "steps": None,
            "before": True,
        },
        ["after", "before", "record", "archive"],
    ),
    "/list_models": ({}, ["1st"]),
    "/health": ({}, ["1st"]),
}


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return server.client(download_files=tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def ask(client, square_picture):
    """Call an endpoint with the square, unless told otherwise."""

    def call(api_name, picture=square_picture, **arguments):
        return client.predict(image=handle_file(str(picture)), api_name=api_name, **arguments)

    return call


def square_mask():
    mask = np.zeros((240, 320), bool)
    mask[SQUARE[1] : SQUARE[3], SQUARE[0] : SQUARE[2]] = True
    return mask


def test_the_endpoints_are_those_of_the_specification(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    seen = {
        name: (
            {
                parameter["parameter_name"]: parameter["parameter_default"]
                if parameter["parameter_has_default"]
                else "–"
                for parameter in endpoint["parameters"]
            },
            [value["label"] for value in endpoint["returns"]],
        )
        for name, endpoint in named.items()
    }
    assert seen == ENDPOINTS


def test_every_endpoint_explains_itself(server):
    import httpx

    told = httpx.get(f"{server.url}gradio_api/info", trust_env=False).json()["named_endpoints"]
    assert told.keys() == ENDPOINTS.keys()
    assert all(len(endpoint["description"]) > 40 for endpoint in told.values())


@pytest.mark.parametrize(
    "prompts",
    [
        {"points": [[160, 120, 1]]},
        {"points": [[160, 120, 1]], "multimask": False},
        {"boxes": [list(SQUARE)]},
        {"boxes": [list(SQUARE)], "points": [[160, 120, 1], [20, 20, 0]]},
    ],
    ids=["point", "one mask", "box", "box and points"],
)
def test_the_square_is_segmented(ask, prompts):
    overlay, record, archive = ask("/segment_sam", **prompts)
    (instance,) = record["instances"]
    mask = decode_rle(instance["rle"])
    assert iou(mask, square_mask()) >= 0.9
    assert record["method"] == "sam" and record["model_set"] == "embedded"
    assert record["image"] == {"width": 320, "height": 240}
    assert set(record["seconds"]) == {"encode", "predict", "total"}
    assert instance["id"] == 1 and instance["score_kind"] == "predicted_iou"
    assert 0 <= instance["score"] <= 1
    assert instance["area_px"] == mask.sum()
    picture = Image.open(overlay)
    assert picture.format == "PNG" and picture.size == (320, 240)
    with zipfile.ZipFile(archive) as files:
        names = {name.rsplit("Z_", 1)[-1]: name for name in files.namelist()}
        inside = json.loads(files.read(names["instances.json"]))
        assert inside["instances"][0]["rle"] == instance["rle"]
        assert "parameters.json" in names and "mask_1.png" in names


def test_two_boxes_are_two_objects(ask):
    record = ask("/segment_sam", boxes=[list(SQUARE), [10, 10, 60, 60]])[1]
    assert [instance["id"] for instance in record["instances"]] == [1, 2]
    assert iou(decode_rle(record["instances"][0]["rle"]), square_mask()) >= 0.9


def test_a_turned_picture_answers_in_upright_pixels(ask, turned_picture):
    record = ask("/segment_sam", turned_picture, points=[[160, 120, 1]])[1]
    assert record["image"] == {"width": 320, "height": 240}
    assert iou(decode_rle(record["instances"][0]["rle"]), square_mask()) >= 0.85


def test_the_second_click_needs_no_encoder(client, ask, square_picture, tmp_path):
    path = tmp_path / "other.png"
    pixels = np.asarray(Image.open(square_picture)).copy()
    pixels[0, 0] = (1, 2, 3)  # another picture, by content
    Image.fromarray(pixels).save(path)

    def misses():
        return client.predict(api_name="/health")["engine"]["embeddings"]["misses"]

    before = misses()
    ask("/segment_sam", path, points=[[160, 120, 1]])
    assert misses() == before + 1
    renamed = tmp_path / "renamed.png"
    path.rename(renamed)
    ask("/segment_sam", renamed, points=[[150, 110, 1]])
    ask("/segment_sam", renamed, boxes=[list(SQUARE)])
    assert misses() == before + 1


def test_everything_is_sorted_by_size_and_obeys_its_parameters(ask):
    settings = {"points_per_side": 6, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    record = ask("/segment_everything", **settings)[1]
    areas = [instance["area_px"] for instance in record["instances"]]
    assert record["method"] == "sam_everything"
    assert len(areas) >= 2 and areas == sorted(areas, reverse=True)
    best = max(iou(decode_rle(one["rle"]), square_mask()) for one in record["instances"])
    assert best >= 0.9
    assert record["parameters"]["points_per_side"] == 6
    stricter = ask("/segment_everything", **{**settings, "pred_iou_thresh": 0.5})[1]
    assert len(stricter["instances"]) < len(areas)
    assert all(instance["score"] >= 0.5 for instance in stricter["instances"])


def test_words_choose_among_everything(ask):
    farm = FOLDER / "text" / "farm.jpg"
    record = ask("/segment_words", farm, words='["cow", "violin"]')[1]
    assert (record["method"], record["parameters"]["queries"]) == ("sam_text", ["cow", "violin"])
    (cow,) = {one["label"] for one in record["instances"]}
    kinds = {one["score_kind"] for one in record["instances"]}
    assert cow == "cow" and kinds == {"clip_similarity"}
    (missing,) = record["dropped"]
    assert missing["label"] == "violin" and missing["score"] < 0.5
    none = ask("/segment_words", farm, words="cow, violin", threshold=1.0)[1]
    assert not none["instances"] and len(none["dropped"]) == 2


def test_proposals_are_few_if_few_are_asked_for(ask):
    record = ask("/propose_objects", points_per_side=5, max_proposals=3)[1]
    assert record["method"] == "sam_proposals"
    assert len(record["instances"]) == 3


def test_edges_surround_the_square(ask):
    path, told = ask("/segment_edges", thin=False)
    edges = np.asarray(Image.open(path))
    assert edges.shape == (240, 320) and edges.dtype == np.uint8
    assert told["method"] == "sam_edges" and told["parameters"] == {"thin": False}
    x0, y0, x1, y1 = SQUARE
    side = edges[(y0 + y1) // 2, x0 - 6 : x0 + 6]
    assert side.max() > 4 * max(1, edges[(y0 + y1) // 2, (x0 + x1) // 2])


def test_models_are_listed_with_what_they_need(client):
    models = {model["id"]: model for model in client.predict(api_name="/list_models")["models"]}
    assert models["sam_embedded"]["present"] and models["sam_embedded"]["set"] == "embedded"
    assert not models["sam_vit_h"]["present"]
    assert all(model["license"] and model["source"] for model in models.values())
    assert models["sam_vit_b"]["everything"]["points_per_side"] == 32


def test_health_tells_versions_and_device(client):
    health = client.predict(api_name="/health")
    assert health["status"] == "ok" and health["queue"] == 0
    assert "sam_embedded" in health["models_present"]
    assert {"gradio", "torch"} <= health["versions"].keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "There is no prompt yet"),
        ({"points": [[1, 2]]}, "write them as [[x, y, label], …]"),
        ({"points": [[1, 2, 3]]}, "A point has label 3"),
        ({"points": [["nan", 2, 1]]}, "not a finite number"),
        ({"points": [[1, 2, 1]] * 51}, "There are 51 points; the limit is 50"),
        ({"boxes": [[1, 1, 1, 5]]}, "Box 1 covers 0 px²"),
        ({"boxes": [[0, 0, 9, 9]] * 21}, "There are 21 boxes; the limit is 20"),
        ({"points": [[1, 2, 1]], "model": "full"}, "SAM ViT-B needs 375 MB"),
        ({"points": [[1, 2, 1]], "model": "<b>x"}, "There is no model '&lt;b&gt;x'"),
    ],
)
def test_wrong_prompts_get_a_sentence(ask, arguments, sentence):
    with pytest.raises(AppError) as raised:
        ask("/segment_sam", **arguments)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("api_name", "arguments", "sentence"),
    [
        ("/segment_everything", {"points_per_side": 129}, "There are 129 points per side"),
        ("/segment_everything", {"pred_iou_thresh": 5}, "No mask reaches predicted IoU 5.00"),
        ("/segment_words", {"words": " ,"}, "There is no query"),
        ("/segment_words", {"words": "cow", "threshold": 2}, "threshold is 2; it must be 0 to 1"),
        ("/propose_objects", {"points_per_side": -5}, "There are -5 points per side"),
        ("/propose_objects", {"max_proposals": 0}, "max_proposals is 0"),
    ],
)
def test_wrong_parameters_get_a_sentence(ask, api_name, arguments, sentence):
    with pytest.raises(AppError, match=sentence):
        ask(api_name, **arguments)


def _text(path: Path) -> None:
    path.write_text("this is no picture")


def _drawing(path: Path) -> None:
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")


def _too_many_pixels(path: Path) -> None:
    Image.new("1", (14_000, 14_000)).save(path)


def _too_long(path: Path) -> None:
    Image.new("L", (5000, 50)).save(path)


def _cut_off(path: Path) -> None:
    Image.effect_noise((99, 99), 50).save(path)
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (_text, "The file is not a picture that can be read"),
        (_drawing, "SVG drawings are not accepted"),
        (_too_many_pixels, "the limit of 25 megapixels"),
        (_too_long, "The picture is 5000×50 pixels; the limit is 4096"),
        (_cut_off, "The picture is damaged or cut off"),
    ],
)
def test_wrong_files_get_a_sentence(ask, tmp_path, write, sentence):
    path = tmp_path / "picture.png"
    write(path)
    with pytest.raises(AppError, match=sentence):
        ask("/segment_sam", path, points=[[5, 5, 1]])


def test_no_picture_gets_a_sentence(client):
    with pytest.raises(AppError, match="There is no picture"):
        client.predict(image=None, points=[[1, 1, 1]], api_name="/segment_sam")


def test_answers_of_two_clients_do_not_mix(server, square_picture, tmp_path):
    plain = tmp_path / "plain.png"
    small = Image.new("RGB", (64, 48), (90, 120, 150))
    small.paste((226, 110, 30), (16, 8, 44, 36))
    small.save(plain)
    first, second = server.client(download_files=False), server.client(download_files=False)
    jobs = [
        client.submit(
            image=handle_file(str(picture)), points=[[30, 20, 1]], api_name="/segment_sam"
        )
        for _ in range(2)
        for client, picture in ((first, square_picture), (second, plain))
    ]
    sizes = [job.result(timeout=60)[1]["image"]["width"] for job in jobs]
    assert sizes == [320, 64, 320, 64]


def test_masks_are_those_of_coco(ask):
    record = ask("/segment_sam", points=[[160, 120, 1]])[1]
    rle = record["instances"][0]["rle"]
    assert rle["size"] == [240, 320]
    assert coco.area(rle) == record["instances"][0]["area_px"]
