"""Degrade a picture to look at: ``python -m core.degradations --image FILE --out DIR``.

Each kind becomes a PNG of the degraded picture and a JSON file of its parameters; ``--sheet``
shows them together, one severity in rows of four, or all five in a row for each kind.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

from core import images
from core.degradations.arrays import Picture
from core.degradations.kinds import DEGRADATIONS, KINDS, find_kind
from core.degradations.levels import SEVERITIES
from core.degradations.pipeline import Degraded, degrade
from core.degradations.sheet import draw_sheet
from core.errors import SuiteError

SHEET_COLUMNS = 4
TILE_SIDE = 256  # px, longer side of a picture on the sheet
SHEET_QUALITY = 85
_SEVERITIES: dict[str, tuple[int | None, ...]] = {"all": SEVERITIES, "published": (None,)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.degradations", description=__doc__)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=list(DEGRADATIONS), metavar="KIND")
    parser.add_argument(
        "--severity",
        default="3",
        choices=[*map(str, SEVERITIES), "all", "published"],
        help="1 mild to 5 harsh, all of them, or the published ranges",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet here")
    args = parser.parse_args(arguments)
    severities = _SEVERITIES.get(args.severity) or (int(args.severity),)
    try:
        image = images.load(args.image).image
        for name in args.kinds:
            find_kind(name)
        degraded = [
            [degrade(image, name, severity=severity, seed=args.seed) for severity in severities]
            for name in args.kinds
        ]
    except SuiteError as error:
        parser.exit(2, f"{error}\n")
    args.out.mkdir(parents=True, exist_ok=True)
    for one in (one for row in degraded for one in row):
        write(one, args.out)
    print(f"Wrote {len(args.kinds) * len(severities)} pictures to {args.out}")
    if args.sheet:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(image, degraded)).save(
            args.sheet, quality=SHEET_QUALITY, optimize=True
        )
        print(f"Wrote {args.sheet}")


def write(degraded: Degraded, folder: Path) -> None:
    """Write a picture and its parameters as NAME_SEVERITY.png and .json."""
    stem = f"{degraded.parameters['name']}_{degraded.parameters['severity'] or 'published'}"
    Image.fromarray(degraded.image).save(folder / f"{stem}.png")
    (folder / f"{stem}.json").write_text(json.dumps(degraded.parameters, indent=2) + "\n")


def contact_sheet(image: Picture, degraded: list[list[Degraded]]) -> Picture:
    """Show the clear picture and its degraded versions (kinds, severities), RGB uint8."""
    clear = images.fit_within(image, TILE_SIDE)
    if len(degraded[0]) > 1:
        rows = [[clear, *(images.fit_within(d.image, TILE_SIDE) for d in row)] for row in degraded]
        titles = [[KINDS["clear"].title, *(_title(d, severity=True) for d in r)] for r in degraded]
        return draw_sheet(rows, titles)
    tiles = [clear, *(images.fit_within(row[0].image, TILE_SIDE) for row in degraded)]
    names = [KINDS["clear"].title, *(_title(row[0], severity=False) for row in degraded)]
    starts = range(0, len(tiles), SHEET_COLUMNS)
    return draw_sheet(
        [tiles[i : i + SHEET_COLUMNS] for i in starts],
        [names[i : i + SHEET_COLUMNS] for i in starts],
    )


def _title(degraded: Degraded, *, severity: bool) -> str:
    title = KINDS[degraded.parameters["name"]].title
    return f"{title} {degraded.parameters['severity']}" if severity else title


if __name__ == "__main__":
    main()
