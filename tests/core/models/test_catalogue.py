import json
from pathlib import Path

import pytest
import torch

from core.models.catalogue import (
    CATALOGUE_FILE,
    PROJECT,
    Entry,
    catalogue,
    for_method,
    load_catalogue,
    parse_entry,
)
from core.models.loading import file_sha256

EMBEDDED = {
    "id": "tiny",
    "method": "sam",
    "set": "embedded",
    "title": "Tiny",
    "note": "",
    "file": "assets/models/tiny.safetensors",
    "card": "assets/models/tiny.json",
    "license": "MIT",
    "source": "python -m core.training tiny",
    "memory_mib": 1,
    "builder": "package.module:build",
}
CARD = {"config": {"image_size": 256}, "sha256": "ab" * 32, "bytes": 7, "figures": {"miou": 0.5}}


def write_card(project: Path, card: dict) -> None:
    path = project / "assets/models/tiny.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(card))


def test_all_sizes_of_sam_are_listed():
    sams = [entry.id for entry in catalogue().values() if entry.method == "sam"]
    assert sams == ["sam_embedded", "sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam"]
    assert [entry.id for entry in for_method("sam", "embedded")] == ["sam_embedded"]
    assert [entry.id for entry in for_method("sam", "full")][0] == "sam_vit_b"
    assert for_method("sam", "other") == []


def test_published_models_are_pinned():
    for entry in for_method("sam", "full"):
        assert entry.license == "Apache-2.0"
        assert entry.sha256 and entry.bytes
        assert entry.repo is None or len(entry.revision) == 40  # a commit, not a branch
        # Weights alone are float32 in these files; working memory comes on top.
        assert entry.memory_mib > entry.bytes / 2**20


def test_published_names_and_sizes():
    names = {entry.id: (entry.file_name, entry.bytes) for entry in for_method("sam", "full")}
    assert names == {
        "sam_vit_b": ("sam_vit_b_01ec64.pth", 375_042_383),
        "sam_vit_l": ("sam_vit_l_0b3195.pth", 1_249_524_607),
        "sam_vit_h": ("sam_vit_h_4b8939.pth", 2_564_550_879),
        "mobile_sam": ("mobile_sam.pt", 40_728_226),
    }


def test_builders_can_be_imported_and_take_the_configurations():
    from core.clip.build import build_clip
    from core.clip.model import ClipModel
    from core.engine.engine import resolve_builder
    from core.pixellm.build import entry_config
    from core.robustsam.build import compared_sam
    from core.sam.config import SamConfig

    for entry in catalogue().values():
        assert callable(resolve_builder(entry.builder))
        if entry.method == "sam":
            SamConfig.from_dict(entry.config)
        elif entry.method == "clip":
            with torch.device("meta"):
                assert ClipModel(build_clip(entry.config["model"]), len).patch_size in (8, 14, 16)
        elif entry.method == "pixellm":
            assert entry_config(entry).scales == 2
        else:
            assert compared_sam(entry) in catalogue()
            SamConfig.from_dict(entry.config.get("sam", {}))


def test_published_robustsams_are_those_of_their_sams():
    from core.robustsam.config import RobustSamConfig

    for entry in for_method("robustsam", "full"):
        config = {k: v for k, v in entry.config.items() if k != "compare_with"}
        sam = catalogue()[entry.config["compare_with"]]
        built = RobustSamConfig.from_dict(config)
        assert built.sam == RobustSamConfig.from_dict({"sam": sam.config}).sam
        assert (built.early_dim, built.norm_stats) == (sam.config["embed_dim"], "image")
        assert entry.file == f"model_checkpoint/robustsam_checkpoint_{entry.id[-1]}.pth"


def test_facts_of_an_embedded_model_come_from_its_card(tmp_path):
    write_card(tmp_path, CARD)
    entry = parse_entry(EMBEDDED, tmp_path)
    assert (entry.config, entry.sha256, entry.bytes) == ({"image_size": 256}, "ab" * 32, 7)
    assert entry.license == "MIT"
    assert entry.read_card() == CARD
    assert Path(entry.file) == tmp_path / "assets/models/tiny.safetensors"


def test_a_model_that_was_not_trained_yet_is_listed_without_facts(tmp_path):
    entry = parse_entry(EMBEDDED, tmp_path)
    assert (entry.config, entry.sha256, entry.bytes) == ({}, None, None)
    assert entry.read_card() == {}


def test_shipped_weights_are_those_of_their_card():
    for entry in catalogue().values():
        if entry.set == "embedded" and entry.read_card():
            assert Path(entry.file).stat().st_size == entry.bytes
            assert file_sha256(Path(entry.file)) == entry.sha256


def test_the_suite_finds_its_files_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    entry = load_catalogue(CATALOGUE_FILE, PROJECT)["sam_embedded"]
    assert Path(entry.file).parent == PROJECT / "assets" / "models"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"set": "huge"}, "huge"),
        ({"builder": "no function"}, "no function"),
        ({"sha256": "01ec64"}, "01ec64"),
        ({"colour": "red"}, "colour"),
        ({"set": "full"}, "repo or a url"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(change, named, tmp_path):
    with pytest.raises(ValueError, match=named) as caught:
        parse_entry(EMBEDDED | change, tmp_path)
    assert "tiny" in str(caught.value)


def test_a_missing_key_is_named(tmp_path):
    record = {key: value for key, value in EMBEDDED.items() if key != "license"}
    with pytest.raises(ValueError, match="tiny: .*license"):
        parse_entry(record, tmp_path)


def test_an_id_is_listed_once(tmp_path):
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps({"models": [EMBEDDED, EMBEDDED]}))
    with pytest.raises(ValueError, match="tiny is listed twice"):
        load_catalogue(path, tmp_path)


def test_entries_can_be_keys():
    assert len({*catalogue().values()}) == len(catalogue())
    assert isinstance(catalogue()["sam_vit_b"], Entry)
