"""PerSAM's public endpoints, on the real server, against the engine's own results."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from numpy.testing import assert_array_equal
from PIL import Image, ImageDraw

from core.engine import get_engine
from core.masks import decode_rle, iou
from core.models.catalogue import catalogue
from core.models.presets import calibrated_threshold
from core.persam.clips import davis_palette, read_clip, write_clip
from core.persam.config import FitConfig, PersamConfig
from core.persam.exports import clip_record, picture_record
from core.persam.pipeline import find, learn
from core.persam.profile import Profile
from core.persam.target import Reference
from core.persam.video import VideoConfig, VideoObject, follow

MODEL = "sam_embedded"
SIZE = (96, 128)


def draw_star(x: int, y: int, radius: int = 22) -> tuple[np.ndarray, np.ndarray]:
    """A yellow star on grey noise: RGB uint8 (96, 128, 3), and its mask."""
    noise = np.random.default_rng(x).integers(60, 100, (*SIZE, 1)).astype(np.uint8)
    picture = Image.fromarray(np.repeat(noise, 3, axis=2))
    mask = Image.new("L", picture.size)
    turns = np.pi * np.arange(10) / 5
    reach = np.where(np.arange(10) % 2, 0.5, 1) * radius
    corners = np.stack([x + reach * np.sin(turns), y - reach * np.cos(turns)], axis=1)
    outline = [tuple(corner) for corner in corners]
    ImageDraw.Draw(picture).polygon(outline, fill=(240, 200, 30))
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return np.array(picture), np.array(mask) > 0


REFERENCE = draw_star(50, 50)
TESTS = [draw_star(80, 40), draw_star(40, 60, 26)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The pictures as files: reference, its mask, two tests of the same name, a clip."""
    folder = tmp_path_factory.mktemp("stars")
    Image.fromarray(REFERENCE[0]).save(folder / "reference.png")
    Image.fromarray(REFERENCE[1]).save(folder / "mask.png")
    for n, (image, _) in enumerate(TESTS):
        (folder / str(n)).mkdir()
        Image.fromarray(image).save(folder / str(n) / "star.png")
    frames = [draw_star(30 + 4 * t, 50)[0] for t in range(6)]
    write_clip(folder / "falling star.mp4", frames, 10)
    return folder


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return server.client(download_files=tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def ask(client, folder):
    """Call an endpoint; the arguments that are paths go as files. The star, unless told else."""
    usual = {
        "/segment_persam": {
            "reference_image": folder / "reference.png",
            "reference_mask": folder / "mask.png",
            "test_images": [folder / "0" / "star.png", folder / "1" / "star.png"],
        },
        "/learn_persam": {
            "reference_image": folder / "reference.png",
            "reference_mask": folder / "mask.png",
        },
        "/follow_persam": {
            "clip": folder / "falling star.mp4",
            "first_mask": folder / "first.png",
        },
    }
    Image.fromarray(draw_star(30, 50)[1]).save(folder / "first.png")

    def as_argument(value):
        if isinstance(value, list):
            return [as_argument(one) for one in value]
        return handle_file(str(value)) if isinstance(value, Path) else value

    def call(api_name, **arguments):
        arguments = {**usual[api_name], **arguments}
        return client.predict(
            api_name=api_name, **{key: as_argument(value) for key, value in arguments.items()}
        )

    return call


@pytest.fixture(scope="module")
def profile(ask) -> Path:
    """A profile with learned weights, as the server saved it."""
    return Path(ask("/learn_persam", name="star")[0])


def known(fit: FitConfig | None = None) -> Profile:
    learned = learn(get_engine(), MODEL, [Reference(*REFERENCE)], fit=fit)
    return learned.profile


def timeless(told: dict) -> dict:
    return {key: value for key, value in told.items() if key not in ("seconds", "parameters")}


def settings_of(config: PersamConfig, **more) -> dict:
    threshold = config.presence_threshold
    if threshold is None:
        threshold = calibrated_threshold(catalogue()[MODEL])
    return {**vars(config), "presence_threshold": threshold, "objects": ["my object"], **more}


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        ({}, PersamConfig()),
        ({"presence_threshold": 0}, PersamConfig(presence_threshold=0)),
        (
            {
                "guided_attention": False,
                "semantic_prompt": False,
                "negative_point": False,
                "refinement_1": False,
                "refinement_2": False,
                "points": 3,
                "max_instances": 2,
            },
            PersamConfig(
                guided_attention=False,
                semantic_prompt=False,
                negative_point=False,
                refinement_1=False,
                refinement_2=False,
                points=3,
                max_instances=2,
            ),
        ),
        ({"variant": "persam_f", "steps": 40}, PersamConfig.persam_f()),
        (
            {"variant": "persam_f", "steps": 40, "guided_attention": True, "learning_rate": 0.01},
            PersamConfig.persam_f(guided_attention=True),
        ),
    ],
    ids=["as published", "always a mask", "all off", "persam_f", "persam_f guided"],
)
def test_answers_are_the_engines_own(ask, arguments, config):
    overlays, records, archive = ask("/segment_persam", **arguments)
    fit, more = None, {}
    if "steps" in arguments:
        more = {"steps": 40, "learning_rate": arguments.get("learning_rate", 1e-3)}
        fit = FitConfig(**more)
    settings = settings_of(config, **more)
    personal = known(fit)
    config = replace(config, presence_threshold=settings["presence_threshold"])
    assert len(overlays) == len(records) == 2
    for record, name, (image, _) in zip(records, ("star", "star-2"), TESTS, strict=True):
        result = find(get_engine(), MODEL, image, personal, config)
        assert timeless(record) == timeless(picture_record(name, result))
        assert record["parameters"] == settings
        assert set(record["seconds"]) == {"encode", "predict", "total"}
    names = zipfile.ZipFile(archive).namelist()
    assert {name.split("/")[0] for name in names if "/" in name} == {"01_star", "02_star-2"}


def test_the_star_is_found_and_drawn(ask):
    overlays, records, archive = ask("/segment_persam", presence_threshold=0)
    assert [shown["caption"] for shown in overlays] == ["star", "star-2"]
    for shown, record, (image, truth) in zip(overlays, records, TESTS, strict=True):
        best = max(iou(decode_rle(one["rle"]), truth) for one in record["instances"])
        assert best > 0.5
        picture = Image.open(shown["image"])
        assert picture.format == "PNG" and picture.size == SIZE[::-1]
        assert (np.asarray(picture) != image).any()
    with zipfile.ZipFile(archive) as files:
        (results,) = (name for name in files.namelist() if name.endswith("_results.json"))
        assert json.loads(files.read(results)) == records


def test_absent_is_an_answer(ask):
    overlays, records, _ = ask("/segment_persam", presence_threshold=1)
    assert len(overlays) == 2
    for record in records:
        assert record["instances"] == []
        (dropped,) = record["dropped"]
        assert "not in this picture" in dropped["reason"]
        (row,) = record["objects"]
        assert row["presence_threshold"] == 1 and 0 < row["presence_score"] < 1


def test_a_mask_of_another_size_is_resized_and_said(ask, folder, tmp_path):
    large = Image.open(folder / "mask.png").resize((256, 192), Image.Resampling.NEAREST)
    large.save(tmp_path / "mask.png")
    records = ask("/segment_persam", reference_mask=tmp_path / "mask.png")[1]
    sentence = "The mask was resized from 256×192 to 128×96 pixels."
    assert all(sentence in record["warnings"] for record in records)
    usual = ask("/segment_persam")[1]
    assert [one["instances"] for one in records] == [one["instances"] for one in usual]


def _coloured(mask: Image.Image) -> Image.Image:
    return Image.merge("RGB", [mask, Image.new("L", mask.size), mask.point(lambda v: v // 2)])


def _transparent(mask: Image.Image) -> Image.Image:
    image = Image.new("RGBA", mask.size, (0, 0, 0, 0))
    image.putalpha(mask)
    return image


def _indexed(mask: Image.Image) -> Image.Image:
    picture = mask.point(lambda v: 8 if v else 0)
    picture.putpalette(davis_palette())  # value 8 is a dark red
    return picture


@pytest.mark.parametrize("form", [_coloured, _transparent, _indexed])
def test_masks_come_in_many_forms(ask, folder, tmp_path, form):
    form(Image.open(folder / "mask.png").convert("L")).save(tmp_path / "mask.png")
    pictures = [folder / "0" / "star.png"]
    usual = ask("/segment_persam", test_images=pictures)[1][0]
    told = ask("/segment_persam", reference_mask=tmp_path / "mask.png", test_images=pictures)[1][0]
    assert told["instances"] == usual["instances"]
    assert told["warnings"] == usual["warnings"] == []


def test_a_learned_profile_is_the_engines_own_and_finds_the_same(ask, folder):
    path, told = ask("/learn_persam", name="  my\nstar ", steps=150)
    learned = learn(
        get_engine(), MODEL, [Reference(*REFERENCE)], name="my star", fit=FitConfig(steps=150)
    )
    saved = Profile.read(Path(path))
    assert saved.name == told["name"] == "my star"
    assert_array_equal(saved.target.means, learned.profile.target.means)
    weights = learned.fit.weights
    assert told["weights"] == {
        "w1": weights.w1,
        "w2": weights.w2,
        "w3": 1 - weights.w1 - weights.w2,
    }
    curve = told["loss_curve"]
    assert len(curve) == 100 and curve[0][0] == 0 and curve[-1][0] == 149
    assert [loss for _, loss in curve] == [
        pytest.approx(float(learned.fit.loss[step]), abs=1e-6) for step, _ in curve
    ]
    assert told["method"] == "persam_f" and told["parameters"]["steps"] == 150
    assert set(told["seconds"]) == {"encode", "fit", "total"} and told["warnings"] == []
    for variant in ("persam", "persam_f"):
        by_profile = ask(
            "/segment_persam",
            reference_image=None,
            reference_mask=None,
            profile=Path(path),
            variant=variant,
        )[1]
        by_reference = ask("/segment_persam", variant=variant, steps=150)[1]
        for one, other in zip(by_profile, by_reference, strict=True):
            assert [i["rle"] for i in one["instances"]] == [i["rle"] for i in other["instances"]]
            assert {i["label"] for i in one["instances"]} <= {"my star"}


def test_persam_alone_learns_no_weights(ask):
    path, told = ask("/learn_persam", variant="persam")
    assert told["weights"] is None and told["loss_curve"] == [] and told["parameters"] == {}
    assert Profile.read(Path(path)).scale_weights is None


def test_a_clip_is_followed_as_the_engine_does(ask, folder):
    overlay, told, archive = ask("/follow_persam")
    clip = read_clip(folder / "falling star.mp4")
    mask = draw_star(30, 50)[1]
    config = VideoConfig.for_model(catalogue()[MODEL], learned=False)
    result = follow(get_engine(), MODEL, clip.frames, [VideoObject("my object", 0, mask)], config)
    expected = clip_record(clip, result)
    assert {key: told[key] for key in expected if key != "seconds"} == {
        key: value for key, value in expected.items() if key != "seconds"
    }
    assert told["complete"] and told["frames_done"] == 6
    assert told["model"] == MODEL and told["warnings"] == []
    assert told["parameters"] == {"variant": "persam", "start": 0, **vars(config)}
    assert len(read_clip(Path(overlay)).frames) == 6
    with zipfile.ZipFile(archive) as files:
        assert files.namelist() == [
            f"Annotations/Full-Resolution/falling-star/{t:05d}.png" for t in range(6)
        ]
        for name, frame in zip(files.namelist(), result.frames, strict=True):
            with Image.open(io.BytesIO(files.read(name))) as picture:
                assert_array_equal(np.array(picture), frame.labels)


def test_an_indexed_mask_holds_several_objects(ask, folder, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[draw_star(34, 50)[1]] = 1
    labels[70:90, 100:120] = 3
    labels[:4] = 255  # void
    picture = Image.fromarray(labels)
    picture.putpalette(davis_palette())
    picture.save(tmp_path / "first.png")
    told = ask("/follow_persam", first_mask=tmp_path / "first.png", start=1)[1]
    assert [row["name"] for row in told["objects"]] == ["object 1", "object 3"]
    assert told["warnings"] == ["The mask's values [1, 3] became objects 1 to 2."]
    assert told["frames"][0]["scores"] == [None, None], "they start in the second frame"
    assert told["frames"][1]["area_px"] == [int((labels == 1).sum()), 400]


@pytest.mark.parametrize("variant", ["persam", "persam_f"])
def test_a_profile_is_followed_without_a_mask(ask, profile, folder, variant):
    told = ask("/follow_persam", first_mask=None, profile=profile, variant=variant)[1]
    config = VideoConfig.for_model(catalogue()[MODEL], learned=variant == "persam_f")
    clip = read_clip(folder / "falling star.mp4")
    source = VideoObject("star", profile=Profile.read(profile))
    result = follow(get_engine(), MODEL, clip.frames, [source], config)
    assert told["frames"] == clip_record(clip, result)["frames"]
    assert told["objects"][0]["name"] == "star"


def black(path: Path) -> Path:
    Image.new("L", SIZE[::-1]).save(path)
    return path


def damaged(path: Path, profile: Path) -> Path:
    data = bytearray(profile.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"reference_image": None}, "There is no picture; give one as `reference_image`."),
        ({"reference_mask": None}, "The reference has no mask; give one as `reference_mask`."),
        ({"test_images": None}, "There is no test picture; give one or more as `test_images`."),
        ({"variant": "sam"}, "There is no variant 'sam'; use 'persam' or 'persam_f'."),
        ({"variant": "persam_f", "steps": 0}, "steps is 0; it must be 1 to 5000."),
        ({"variant": "persam_f", "learning_rate": 2}, "learning_rate is 2; it must be"),
        ({"points": 0}, "points is 0; it must be 1 to"),
        ({"max_instances": 1000}, "max_instances is 1000; it must be 1 to"),
        ({"presence_threshold": 1.5}, "presence_threshold is 1.5; it must be 0 to 1."),
        ({"model": "full"}, "SAM ViT-B needs 375 MB"),
    ],
)
def test_what_is_missing_or_wrong_gets_a_sentence(ask, arguments, sentence):
    with pytest.raises(AppError) as raised:
        ask("/segment_persam", **arguments)
    assert sentence in str(raised.value)


def test_an_empty_mask_gets_a_sentence(ask, tmp_path):
    mask = black(tmp_path / "mask.png")
    for endpoint in ("/segment_persam", "/learn_persam"):
        with pytest.raises(AppError, match="The mask is empty; paint the object first."):
            ask(endpoint, reference_mask=mask)
    for form in ("L", "P"):
        Image.open(mask).convert(form).save(tmp_path / "first.png")
        with pytest.raises(AppError, match="The mask is empty; paint the object first."):
            ask("/follow_persam", first_mask=tmp_path / "first.png")


def test_too_many_pictures_and_unreadable_ones_get_a_sentence(ask, folder, tmp_path):
    star = folder / "0" / "star.png"
    with pytest.raises(AppError, match="There are 21 test pictures; the limit is 20"):
        ask("/segment_persam", test_images=[star] * 21)
    (tmp_path / "text.png").write_text("this is no picture")
    with pytest.raises(AppError, match="Test picture 2: The file is not a picture"):
        ask("/segment_persam", test_images=[star, tmp_path / "text.png"])


def test_other_profiles_get_a_sentence(ask, profile, tmp_path):
    alone = {"reference_image": None, "reference_mask": None}
    with pytest.raises(AppError, match="Give either a reference picture with its mask, or"):
        ask("/segment_persam", profile=profile)
    with pytest.raises(AppError, match="The profile is damaged"):
        ask("/segment_persam", **alone, profile=damaged(tmp_path / "p.safetensors", profile))
    with pytest.raises(AppError, match="This is no PerSAM profile"):
        ask("/segment_persam", **alone, profile=black(tmp_path / "picture.png"))
    foreign = replace(Profile.read(profile), model_id="sam_vit_b").save(tmp_path / "vit_b")
    with pytest.raises(AppError, match="made with the model sam_vit_b"):
        ask("/segment_persam", **alone, profile=foreign)
    bare = replace(Profile.read(profile), scale_weights=None).save(tmp_path / "bare")
    with pytest.raises(AppError, match="has no learned mask weights"):
        ask("/segment_persam", **alone, profile=bare, variant="persam_f")
    with pytest.raises(AppError, match="has no learned mask weights"):
        ask("/follow_persam", first_mask=None, profile=bare, variant="persam_f")


@pytest.mark.parametrize(
    ("name", "sentence"), [(" ", "The name has 0 characters"), ("x" * 101, "has 101 characters")]
)
def test_names_have_limits(ask, name, sentence):
    with pytest.raises(AppError, match=sentence):
        ask("/learn_persam", name=name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"clip": None}, "There is no clip; give one as `clip`."),
        ({"first_mask": None}, "There is nothing to follow; give `first_mask` or a `profile`."),
        ({"start": 6}, "starts at frame 6 and the clip has 6"),
        ({"start": -1}, "starts at frame -1 and the clip has 6"),
        ({"variant": "x"}, "There is no variant 'x'"),
    ],
)
def test_wrong_clips_get_a_sentence(ask, arguments, sentence):
    with pytest.raises(AppError) as raised:
        ask("/follow_persam", **arguments)
    assert sentence in str(raised.value)


def test_what_is_no_clip_gets_a_sentence(ask, folder, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video at all" * 10)
    with pytest.raises(AppError, match="The clip is damaged or of an unknown kind"):
        ask("/follow_persam", clip=tmp_path / "clip.mp4")
    with pytest.raises(AppError, match="unknown kind"):
        ask("/follow_persam", clip=folder / "reference.png")


def test_masks_of_many_objects_get_a_sentence(ask, profile, tmp_path):
    labels = np.repeat(np.arange(SIZE[0], dtype=np.uint8)[:, None] // 8, SIZE[1], axis=1)
    for most, expected in ((2, "The profile is of one object and the mask has 2"), (11, "11 obj")):
        picture = Image.fromarray(np.where(labels <= most, labels, 0).astype(np.uint8))
        picture.putpalette(davis_palette())
        picture.save(tmp_path / "first.png")
        with pytest.raises(AppError, match=expected):
            ask("/follow_persam", first_mask=tmp_path / "first.png", profile=profile)
