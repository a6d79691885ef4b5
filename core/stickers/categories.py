"""What kind of thing an emoji object is, for distractors that resemble it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from core.stickers.atlas import Atlas

SMALL_CATEGORY = 4  # objects; a subgroup with fewer is taken as a part of its group


def categories(folder: Path, atlas: Atlas) -> dict[str, str]:
    """Category of every emoji object of the atlas: its Unicode subgroup, or group if rare.

    Rare is a subgroup with few held-out objects, whose tests need distractors.

    Args:
        folder: with the installed sticker packages.
    """
    path = folder / "npm" / "emojibase-data" / "package" / "en"
    rows = json.loads((path / "data.json").read_text(encoding="utf-8"))
    messages = json.loads((path / "messages.json").read_text(encoding="utf-8"))
    group_names = {row["order"]: row["key"] for row in messages["groups"]}
    subgroup_names = {row["order"]: row["key"] for row in messages["subgroups"]}
    tested = {info.object_id for info in atlas.infos if info.split == "test"}
    places: dict[str, tuple[int, int]] = {}
    members: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        if "group" not in row or "subgroup" not in row:
            continue
        code = row["hexcode"].lower().removesuffix("-fe0f")
        places[code] = row["group"], row["subgroup"]
        if code in tested:
            members[row["subgroup"]].add(code)
    return {
        code: subgroup_names[subgroup]
        if len(members[subgroup]) >= SMALL_CATEGORY
        else group_names[group]
        for code, (group, subgroup) in places.items()
    }
