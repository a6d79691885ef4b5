import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.evaluation.__main__ import main, write_card
from core.models.catalogue import catalogue
from core.reports import Report


def test_figures_go_into_the_card_beside_what_is_there(tmp_path: Path) -> None:
    card = tmp_path / "model.json"
    card.write_text(json.dumps({"id": "sam_embedded", "figures": {"edges": {"ods": 0.5}}}))
    entry = replace(catalogue()["sam_embedded"], card=card)
    report = Report("sam", ["sam_embedded"], "scenes", "cpu", {"box_miou": 0.76123}, commit="x")
    write_card(entry, report)
    assert json.loads(card.read_text()) == {
        "id": "sam_embedded",
        "figures": {"edges": {"ods": 0.5}, "sam": {"box_miou": 0.761}},
    }


def test_published_models_have_no_card() -> None:
    report = Report("sam", [], "scenes", "cpu", {}, commit="x")
    with pytest.raises(SystemExit, match="sam_vit_b has no card"):
        write_card(catalogue()["sam_vit_b"], report)


def test_a_quick_look_does_not_go_into_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sam", "--card", "--limit", "3"])
    assert "--card takes the figures of a whole run" in capsys.readouterr().err
