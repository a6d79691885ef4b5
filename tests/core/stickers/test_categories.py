"""Categories of emoji objects."""

from __future__ import annotations

from pathlib import Path

from core.stickers.atlas import Atlas
from core.stickers.categories import SMALL_CATEGORY, categories


def test_rare_categories_fall_back_to_their_group(tmp_path: Path, small_atlas: Atlas) -> None:
    folder = tmp_path / "npm" / "emojibase-data" / "package" / "en"
    folder.mkdir(parents=True)
    rows = ", ".join(
        f'{{"hexcode": "{0x1F340 + i:X}", "group": 3, "subgroup": {int(i == 9)}}}'
        for i in range(12)
    )
    (folder / "data.json").write_text(f'[{rows}, {{"hexcode": "1F1E6"}}]')
    (folder / "messages.json").write_text(
        '{"groups": [{"order": 3, "key": "animals"}],'
        ' "subgroups": [{"order": 0, "key": "bugs"}, {"order": 1, "key": "birds"}]}'
    )
    found = categories(tmp_path, small_atlas)
    assert found["1f349"] == "animals" and len(found) == 12
    assert SMALL_CATEGORY > 1
