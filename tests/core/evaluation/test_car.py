"""Word and phrase metrics with known answers, and the whole protocol on tiny models."""

from __future__ import annotations

import argparse
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.car.config import CarConfig, SamMatching
from core.car.presets import PRESETS, Preset
from core.errors import ImageError
from core.evaluation import __main__ as command
from core.evaluation import car, car_data, car_published, car_run
from core.evaluation.car import Answer, WordScores
from core.evaluation.car_data import IGNORED, PhraseClip, PhraseScene, WordScene
from core.evaluation.persam_davis import VideoSequence
from core.models.catalogue import Entry
from core.reports import Report
from core.stickers.atlas import Atlas
from tests.core.benchmark import tiny

SIZE = (8, 10)
IMAGE = np.zeros((*SIZE, 3), np.uint8)
QUICK = CarConfig(
    max_side=48, max_tokens=65, templates=("a {}",), use_crf=False, confidence_threshold=0.1
)


def area(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


LEFT, RIGHT = area(slice(None), slice(5)), area(slice(None), slice(5, None))
TOP, CORNER = area(slice(4), slice(None)), area(slice(4), slice(5))


def scene(words: str = "cat dog car") -> WordScene:
    """The first word on the left, the second in the lower right corner."""
    labels = np.where(LEFT, 1, 0).astype(np.uint8)
    labels[4:, 5:] = 2
    return WordScene(IMAGE, tuple(words.split()), labels)


def count(truth: WordScene, labels: np.ndarray, **options: bool) -> WordScores:
    scores = WordScores(**options)
    scores.add(truth, labels.astype(np.uint8), 2)
    return scores


def test_the_truth_is_a_perfect_answer() -> None:
    figures = count(scene(), scene().labels).figures()
    assert figures["miou"] == figures["word_f1"] == figures["background_iou"] == 1
    assert figures["mean_steps"] == 2


def test_classes_are_summed_over_pictures_before_they_are_divided() -> None:
    scores = count(scene(), np.where(LEFT, 1, 0))
    wrong = replace(scene(), labels=np.where(TOP, 1, 0).astype(np.uint8))
    scores.add(wrong, np.where(CORNER, 1, 0).astype(np.uint8), 4)
    # cat: 40 of 40 pixels, then 20 of 40; dog: 0 of 20; background: 20 of 40, then 40 of 60.
    assert scores.class_ious() == pytest.approx(
        {"background": 60 / 100, "cat": 60 / 80, "dog": 0.0}
    )
    assert scores.figures()["miou"] == pytest.approx((0.6 + 0.75) / 3)
    assert scores.figures()["mean_steps"] == 3


def test_words_that_are_not_there_are_counted_as_words_and_apart_as_classes() -> None:
    """As published the mean is over classes that some picture shows."""
    said = np.where(LEFT, 1, 0)
    said[:4, 5:] = 3
    scores = count(scene(), said)
    assert (scores.found, scores.invented, scores.missed) == (1, 1, 1)
    figures = scores.figures()
    assert figures["word_precision"] == figures["word_recall"] == figures["word_f1"] == 0.5
    assert figures["miou"] == pytest.approx(1 / 3)  # background 0, cat 1, dog 0
    assert figures["miou_with_invented"] == pytest.approx(1 / 4)


def test_ignored_pixels_do_not_count() -> None:
    """Neither as a class's, nor as background, nor as a word that was invented."""
    truth = scene()
    truth.labels[:4, 5:] = IGNORED
    said = truth.labels.copy()
    expected = count(truth, np.where(said == IGNORED, 0, said))
    for filled in (1, 2, 3):
        assert count(truth, np.where(said == IGNORED, filled, said)) == expected
    assert expected.figures()["word_f1"] == expected.figures()["miou"] == 1
    assert "background" not in expected.class_ious(), "all that is left is words"
    assert truth.true_words == ("cat", "dog")


def test_background_can_be_left_out_as_for_ade20k() -> None:
    """Row and column 0 are cut: a class's pixels that were called background are no loss."""
    said = np.where(CORNER, 1, 0)
    scores = count(scene(), said, count_background=False)
    assert scores.class_ious() == {"cat": 1.0, "dog": 0.0}, "a dog is there, and was never said"
    assert "background_iou" not in car.word_figures({"car": scores})
    assert count(scene(), said).class_ious()["cat"] == 0.5


def test_the_higher_score_wins_and_things_are_over_stuff() -> None:
    masks = np.stack([LEFT, TOP, RIGHT])
    scores = np.array([0.9, 0.8, 0.0], np.float32)
    labels = Answer(masks, scores, np.ones(3, bool), 1).labels()
    assert (labels[LEFT] == 1).all() and (labels[:4, 5:] == 2).all()
    assert (labels[4:, 5:] == 0).all(), "a score of 0 was dropped"
    labels = Answer(masks, scores, np.array([False, True, False]), 1).labels()
    assert (labels[TOP] == 2).all() and (labels[4:, :5] == 1).all()


def test_sam_masks_replace_what_they_match() -> None:
    nearly = LEFT.copy()
    nearly[0, 0] = False
    answer = Answer(np.stack([nearly, ~nearly & False]), np.ones(2), np.ones(2, bool), 1)
    snapped = answer.snapped(np.stack([LEFT, RIGHT]), SamMatching())
    assert np.array_equal(snapped.masks[0], LEFT) and not snapped.masks[1].any()
    assert np.array_equal(answer.masks[0], nearly), "the answer itself stays"
    none = answer.snapped(np.zeros((0, *SIZE), bool), SamMatching())
    assert np.array_equal(none.masks, answer.masks)


@dataclass(frozen=True)
class Said:
    """A result with known masks."""

    masks: np.ndarray
    steps: tuple[int, ...] = (1, 2)

    @property
    def segmentation(self) -> Any:
        return argparse.Namespace(size=SIZE)

    def masks_of_queries(self) -> np.ndarray:
        return self.masks

    def scores_of_queries(self) -> np.ndarray:
        return self.masks.any(axis=(1, 2)).astype(np.float32)


KNOWN = {"cat": LEFT, "dog": area(slice(4, None), slice(5, None))}


def known_masks(words: Any) -> np.ndarray:
    return np.stack([KNOWN.get(word, np.zeros(SIZE, bool)) for word in words])


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Cats and dogs are found where they are; all but the first settings see the cat only."""
    asked: list[Any] = []

    def segment(generator: Any, classifier: Any, image: Any, words: Any, config: Any) -> Said:
        asked.append((image, tuple(words)))
        masks = known_masks(words)
        if not config.recurrence:
            masks[[word != "cat" for word in words]] = False
        return Said(masks)

    monkeypatch.setattr(car, "segment_text", segment)
    monkeypatch.setattr(car, "segment_phrases", segment)
    monkeypatch.setattr(car, "merged_mask", lambda result: result.masks.any(axis=0))
    monkeypatch.setattr(car, "prepare", lambda generator, image, config: ("prepared", id(image)))
    return asked


def test_settings_are_compared_on_one_encoded_picture(known: list[Any]) -> None:
    configs = {"car": QUICK, "no_recurrence": replace(QUICK, recurrence=False)}
    model: Any = None
    scores = car.evaluate_words(model, model, [scene()], configs, lambda image: LEFT[None])
    figures = car.word_figures(scores)
    assert figures["miou"] == figures["sam_miou"] == 1 and figures["sam_gain"] == 0
    assert figures["no_recurrence_miou"] == pytest.approx((1 + 0 + 20 / 40) / 3)
    assert figures["recurrence_gain"] == pytest.approx(1 - figures["no_recurrence_miou"])
    assert figures["no_recurrence_word_f1"] == pytest.approx(2 / 3)
    assert {image[0] for image, _ in known} == {"prepared"} and len(known) == 2
    details = car.word_details(scores)
    assert details["words"] == {"found": 2, "invented": 0, "missed": 0}
    assert details["class_ious"]["dog"] == 1 and details["scored_pictures"] == 1


def test_stuff_is_a_second_pass_in_the_order_of_the_words(
    known: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def two_passes(g: Any, c: Any, image: Any, things: Any, stuff: Any, *a: Any, **k: Any) -> Any:
        seen.update(things=things, stuff=stuff, image=image, **k)
        results = (Said(known_masks(words)) for words in (things, stuff))
        return argparse.Namespace(**dict(zip(("things", "stuff"), results, strict=True)))

    monkeypatch.setattr(car, "segment_things_and_stuff", two_passes)
    preset = Preset(title="", config=QUICK, classes=("cat", "car", "dog", "road"))
    preset = replace(preset, stuff=("road", "cat"), stuff_prompts=("gray",))
    truth = scene("cat car dog road")
    truth.labels[truth.labels == 2] = 3
    scores = car.evaluate_words(None, None, [truth], {"car": QUICK}, preset=preset)  # type: ignore[arg-type]
    assert seen["things"] == ["car", "dog"] and seen["stuff"] == ["cat", "road"]
    assert seen["stuff_prompts"] == ("gray",) and seen["image"] is truth.image
    assert scores["car"].figures()["miou"] == 1


def test_phrases_are_merged_and_neighbours_share_the_picture(known: list[Any]) -> None:
    empty = np.zeros(SIZE, bool)
    scenes = [
        PhraseScene(IMAGE, ("cat", "cat"), TOP),
        PhraseScene(IMAGE, ("dog",), KNOWN["dog"]),
        PhraseScene(IMAGE, ("tree",), empty),
    ]
    scores = car.evaluate_phrases(None, None, scenes, QUICK)  # type: ignore[arg-type]
    assert scores.ious().tolist() == pytest.approx([20 / 60, 1, 0])
    figures = scores.figures()
    assert figures["referring_iou"] == pytest.approx(4 / 9)
    assert figures["referring_overall_iou"] == pytest.approx(40 / 80)
    assert figures["referring_precision_50"] == figures["referring_precision_90"]
    assert [words for _, words in known] == [("cat", "cat"), ("dog",), ("tree",)]
    assert scores.details()["objects"] == 3


def test_clips_count_all_frames_objects_and_annotators(known: list[Any]) -> None:
    labels = np.stack([scene().labels] * 3)
    labels[2] = 0
    sequence = VideoSequence("pets", (IMAGE,) * 3, labels)
    phrases = {"first": {1: "cat", 2: "dog"}, "second": {1: "tree", 2: "dog"}}
    figures, details = car.evaluate_clips(
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        [PhraseClip(sequence, phrases)],
        QUICK,
    )
    assert details["objects"]["pets_1_first"]["j"] == pytest.approx(2 / 3)
    assert details["objects"]["pets_1_second"]["j"] == pytest.approx(1 / 3), "two empty masks"
    assert figures["j_mean"] == pytest.approx((2 / 3 + 1 / 3 + 2 / 3 + 2 / 3) / 4)
    assert figures["j_and_f"] == pytest.approx((figures["j_mean"] + figures["f_mean"]) / 2)
    assert {words for _, words in known} == {("cat",), ("dog",), ("tree",)}


def test_nothing_to_evaluate_on_is_said() -> None:
    nothing: Any = None
    with pytest.raises(ImageError, match="no picture with words"):
        car.evaluate_words(nothing, nothing, [], {"car": QUICK})
    with pytest.raises(ImageError, match="no picture with a phrase"):
        car.evaluate_phrases(nothing, nothing, [], QUICK)
    with pytest.raises(ImageError, match="no clip"):
        car.evaluate_clips(nothing, nothing, [], QUICK)


def test_ablations_differ_from_the_settings_in_one_thing() -> None:
    config = CarConfig(visual_prompts=("circle", "blur"))
    changed = car.ablations(config)
    assert changed.pop("prompt_circle_blur") == config
    assert all(other != config for other in changed.values())
    assert {"no_recurrence", "no_background", "no_refinement", "no_crf"} <= changed.keys()


@pytest.fixture
def stickers(named_atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.stickers.atlas.load_atlas", lambda folder: named_atlas)
    monkeypatch.setattr(car_data, "MAX_OBJECTS", 2)
    monkeypatch.setattr(car_data, "SIZE", 64)


@pytest.mark.usefixtures("stickers")
@pytest.mark.parametrize("held", [False, True])
def test_sticker_scenes_ask_for_what_they_show(held: bool) -> None:
    scenes = list(car_data.word_scenes(Path("x"), 5, held_out_style=held))
    assert len(scenes) == 5
    for one in scenes:
        assert len(set(one.words)) == car_data.CANDIDATES == len(one.words)
        assert 1 <= len(one.true_words) <= 2 and "lemon" not in one.words
        for word in one.true_words:
            share = (one.labels == one.words.index(word) + 1).mean()
            assert share >= car_data.MIN_AREA
    again = list(car_data.word_scenes(Path("x"), 5, held_out_style=held))
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(scenes, again, strict=True))


@pytest.mark.usefixtures("stickers")
def test_sticker_phrases_mean_one_object() -> None:
    for one in car_data.phrase_scenes(Path("x"), 3):
        (phrase,) = one.phrases
        assert phrase.startswith("the ") and one.mask.mean() >= car_data.MIN_AREA


def test_too_small_objects_are_not_asked_for(
    named_atlas: Atlas, stickers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(car_data, "MIN_AREA", 0.2)
    for one in car_data._scenes(Path("x"), 8, held_out_style=False, seed=4):
        names = {item.name for item, _, _ in one.objects}
        assert not names & one.small
        assert bool(one.small) <= bool(one.hidden.any())


class FakeEngine:
    """Lends tiny models by any name."""

    device = "cpu"

    def __init__(self) -> None:
        self.lent: list[str] = []

    def entry(self, model_id: str) -> Entry:
        return car_run.catalogue()[model_id]

    @contextmanager
    def model(self, model_id: str) -> Any:
        self.lent.append(model_id)
        yield tiny.tiny_sam() if "sam" in model_id else tiny.tiny_clip().clip


def clip_entry(name: str, model_set: Any, model: str) -> Entry:
    return Entry(
        id=name,
        method="car",
        set=model_set,
        title="",
        note="",
        file="x",
        url="https://example.org/x" if model_set == "full" else None,
        license="",
        source="",
        memory_mib=1,
        builder="core.clip.build:build_from_entry",
        config={"model": model},
    )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine with an embedded CLIP and two published ones, all of them tiny."""
    entries = [
        clip_entry("clip_embedded", "embedded", "segment-studio-vit-tiny"),
        clip_entry("clip_vit_b_16", "full", "ViT-B-16-quickgelu"),
        clip_entry("clip_vit_l_14", "full", "ViT-L-14-quickgelu"),
    ]
    known = car_run.catalogue() | {entry.id: entry for entry in entries}
    monkeypatch.setattr(car_run, "catalogue", lambda: known)
    one = FakeEngine()
    monkeypatch.setattr("core.engine.get_engine", lambda: one)
    monkeypatch.setattr(car_run, "get_engine", lambda: one)
    monkeypatch.setattr(car_run, "settings_of", lambda entry, preset=None: QUICK)
    tokenizer = tiny.tiny_clip()
    monkeypatch.setattr(car_run, "with_tokenizer", lambda entry, clip: tokenizer)
    return one


@pytest.mark.usefixtures("stickers")
def test_the_whole_protocol_on_tiny_models(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    command.main(["car", "--limit", "2", "--json", str(path)])
    report = json.loads(path.read_text())
    bars = {"miou", "recurrence_gain", "word_f1", "sam_gain", "referring_iou", "held_style_miou"}
    assert bars <= report["figures"].keys()
    assert report["models"] == ["clip_embedded"] and "known objects" in report["data"]
    assert report["details"]["limited"] and report["details"]["pictures"] == 2
    assert engine.lent == ["clip_embedded", "sam_embedded"]
    assert "tagclip_later" in capsys.readouterr().out


def args_of(folder: Path, name: str, **changes: Any) -> argparse.Namespace:
    standard = {"model": "clip_embedded", "limit": None, "split": None, "classifier": None}
    standard |= {"sam": None, "parity": False, "data": folder, "format": name}
    return argparse.Namespace(**(standard | changes))


def test_a_published_generator_takes_the_published_classifier(engine: FakeEngine) -> None:
    model = tiny.tiny_clip()
    for asked, lent in (
        ({"model": "clip_vit_b_16"}, ["clip_vit_l_14"]),
        ({"model": "clip_vit_l_14"}, []),
        ({"model": "clip_vit_b_16", "classifier": "clip_embedded"}, ["clip_embedded"]),
        ({}, []),
    ):
        engine.lent.clear()
        with car_run.classifier_of(model, args_of(Path(), "voc", **asked), PRESETS["voc"]) as one:
            assert engine.lent == lent and (one is model) == (not lent)
    with car_run.classifier_of(
        model, args_of(Path(), "x", model="clip_vit_l_14"), PRESETS["refcoco"]
    ):
        assert engine.lent == ["clip_vit_b_16"], "RefCOCO's published figures are with ViT-B/16"


def test_settings_are_the_models_or_the_data_sets() -> None:
    preset = PRESETS["coco"]
    published = clip_entry("clip_vit_b_16", "full", "ViT-B-16-quickgelu")
    assert car_run.settings_of(published, preset) == preset.config
    assert car_run.settings_of(published) == CarConfig()
    embedded = clip_entry("clip_embedded", "embedded", "segment-studio-vit-tiny")
    ours = car_run.settings_of(embedded, preset)
    assert ours == car_run.settings_of(embedded) and ours.max_tokens == 1025
    phrases = car_run.for_phrases(ours)
    assert phrases.templates == () and phrases.presence_threshold is None


def test_all_published_deviations_on_request(engine: FakeEngine) -> None:
    args = args_of(Path(), "voc", parity=True)
    assert car_run.data_settings(args, PRESETS["voc"]) == QUICK.as_published()
    args.parity = False
    assert car_run.data_settings(args, PRESETS["voc"]) == QUICK


def test_the_clips_own_protocol(
    engine: FakeEngine,
    named_atlas: Atlas,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Any] = []

    def evaluate(model: Any, atlas: Atlas, renderings: int) -> Any:
        seen.extend([model.id, atlas, renderings])
        return {"zero_shot_top1": 0.5}, {}

    monkeypatch.setattr("core.evaluation.clip.evaluate_clip", evaluate)
    monkeypatch.setattr("core.stickers.atlas.load_atlas", lambda folder: named_atlas)
    command.main(["clip"])
    assert seen == ["clip_embedded", named_atlas, 4]
    assert "zero_shot_top1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["clip", "--data", "somewhere"])
    assert "leave --data out" in capsys.readouterr().err


def test_a_clip_is_handed_over_with_its_tokenizer() -> None:
    entry = clip_entry("clip_embedded", "embedded", "segment-studio-vit-tiny")
    model = command._as_clip(entry, tiny.tiny_clip().clip)
    assert model.id == "clip_embedded" and model.tokenize(["cat"]).shape == (1, 32)
    assert command.PROTOCOLS["sam"].hand_over is command._as_predictor


def test_an_unknown_format_is_named(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["car", "--data", "somewhere", "--format", "robust-seg"])
    assert "Unknown --format robust-seg: use one of voc" in capsys.readouterr().err


def test_published_figures_stand_beside_ours() -> None:
    rows = car_published.beside("voc", 0.5)
    assert rows[0]["method"] == "car_sam" and rows[0]["value"] == 0.702
    assert {"method": "this run", "value": 0.5, "source": "-"} in rows
    assert [row["value"] for row in rows] == sorted((r["value"] for r in rows), reverse=True)
    assert "this run" in car_published.table(rows)
    assert [row["method"] for row in car_published.beside("coco_stuff", 0.1)] == ["this run"]
    assert car_published.beside("refcoco_testA", 0)[0]["value"] == 0.3536
    assert "0.676" in car_published.semantic_table()


def test_published_figures_name_their_sources_and_doubts() -> None:
    for tables in ("semantic", "further", "referring", "ablations"):
        for row in car_published.PUBLISHED[tables].values():
            assert set(row["source"]) & set(car_published.SOURCES)
            numbers = [value for value in row.values() if isinstance(value, float)]
            assert numbers and all(0 < value < 1 for value in numbers)
    remarks = " ".join(car_published.REMARKS)
    assert "TCL" in remarks and "not verified" in remarks
    json.dumps(car_published.PUBLISHED)


def test_a_report_can_be_written(tmp_path: Path) -> None:
    scores = {"car": count(scene(), scene().labels)}
    details = car.word_details(scores) | car_run.compared("voc", 0.4)
    report = Report("car", ["m"], "d", "cpu", car.word_figures(scores), details, commit="x")
    report.write(tmp_path / "report.json")
    assert "miou" in report.table()
