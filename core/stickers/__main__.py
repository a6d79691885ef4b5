"""Write scenes to look at: ``python -m core.stickers --out DIR --count N --seed S``.

Each scene becomes a picture, an indexed PNG of its visible objects and, in ``scenes.jsonl``, a
line with its caption and objects; ``sheet.png`` shows the first ones together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from core import overlays
from core.errors import SuiteError
from core.settings import settings
from core.stickers.atlas import Atlas, load_atlas
from core.stickers.captions import caption
from core.stickers.objects import load_objects
from core.stickers.scenes import SceneGenerator, Scenes

SHEET_COLUMNS, SHEET_ROWS = 6, 4


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.stickers", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "test", "held-out-style"), default="train")
    parser.add_argument("--data", type=Path, default=Path(settings.sticker_folder), help="sprites")
    args = parser.parse_args(arguments)
    try:
        atlas = load_atlas(args.data)
    except SuiteError as error:
        parser.exit(2, f"{error}\n")
    scenes = SceneGenerator(
        atlas, _sprites(atlas, args.split), seed=args.seed, test_photos=args.split != "train"
    ).batch(args.count)
    write_scenes(atlas, scenes, args.out)
    print(f"Wrote {args.count} scenes to {args.out}")


def _sprites(atlas: Atlas, split: str) -> Tensor:
    if split == "train":
        return atlas.training_sprites()
    return atlas.test_sprites(held_out_style=split == "held-out-style")


def write_scenes(atlas: Atlas, scenes: Scenes, folder: Path) -> None:
    """Write pictures, label PNGs, records and a contact sheet of ``scenes``."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(scenes.images.permute(0, 2, 3, 1).cpu().numpy())
    labels = list(scenes.instance_ids.cpu().numpy())
    palette = [0, 0, 0, *(c for k in range(1, 256) for c in overlays.palette(k))]
    with (folder / "scenes.jsonl").open("w") as records:
        for b, (picture, ids) in enumerate(zip(pictures, labels, strict=True)):
            Image.fromarray(picture).save(folder / f"scene_{b:04d}.png")
            indexed = Image.fromarray(ids, mode="P")
            indexed.putpalette(palette)
            indexed.save(folder / f"scene_{b:04d}_labels.png")
            objects = _objects(atlas, scenes, b)
            row = {"scene": b, "caption": caption(o["name"] for o in objects), "objects": objects}
            records.write(json.dumps(row) + "\n")
    shown = [
        overlays.draw(picture, np.stack([ids == k for k in np.unique(ids) if k] or [ids > 0]))
        if row % 2
        else picture
        for row in range(SHEET_ROWS)
        for picture, ids in list(zip(pictures, labels, strict=True))[
            row // 2 * SHEET_COLUMNS : (row // 2 + 1) * SHEET_COLUMNS
        ]
    ]
    Image.fromarray(_grid(shown, SHEET_COLUMNS)).save(folder / "sheet.png")


def _objects(atlas: Atlas, scenes: Scenes, b: int) -> list[dict[str, Any]]:
    """The visible objects of scene ``b``, back to front."""
    rows = []
    for k, index in enumerate(scenes.sprite_indices[b].tolist()):
        area = int((scenes.instance_ids[b] == k + 1).sum())
        if index >= 0 and area:
            info = atlas.infos[index]
            known = load_objects().get(info.object_id)
            rows.append(
                {
                    "id": k + 1,
                    "name": known.name if known else info.name,
                    "style": info.style,
                    "object": info.object_id,
                    "area_px": area,
                    "visible_fraction": round(float(scenes.visible_fractions[b, k]), 3),
                }
            )
    return rows


def _grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Put equal pictures side by side, row by row; a short last row is filled with black."""
    blank = np.zeros_like(pictures[0])
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    return np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])


if __name__ == "__main__":
    main()
