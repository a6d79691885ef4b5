"""Where the sprites and background photographs of the sticker world come from.

``install`` fetches pinned npm packages (npm) and Debian packages (apt, unpacked without root)
into a data folder; nothing of it is committed and nothing needs it at run time. ``iter_sprites``
and ``iter_photographs`` then read what was unpacked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from core.errors import ModelUnavailable

NPM_PACKAGES = {
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "@lobehub/fluent-emoji-flat": "1.1.0",
    "emoji-datasource-twitter": "16.0.0",
    "openmoji": "17.0.0",
    "emojibase-data": "17.0.0",
}
DEBIAN_PACKAGES = (
    "fonts-noto-color-emoji",
    "openclipart-png",
    "mate-backgrounds",
    "ukui-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "plasma-workspace-wallpapers",
)
# For model cards: what the pictures are and whose.
CREDITS = {
    "Fluent Emoji, 3D and flat (Microsoft)": "MIT",
    "Twemoji (Twitter and contributors)": "CC BY 4.0",
    "OpenMoji": "CC BY-SA 4.0",
    "Noto Color Emoji (Google), held out from training": "OFL 1.1",
    "Open Clip Art": "public domain",
    "emojibase (names)": "MIT",
    "MATE backgrounds": "GPL-2+",
    "UKUI wallpapers": "CC BY-SA 3.0",
    "Lomiri wallpapers": "CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0",
    "Plasma wallpapers": "LGPL-3",
    "scikit-image textures (brick, grass, gravel)": "CC0",
}
EMOJI_STYLES = ("fluent_3d", "fluent_flat", "twemoji", "openmoji", "noto")
HELD_OUT_STYLE = "noto"
NOTO_SIZE = 109  # the only size of its bitmaps

# emojibase's group and subgroup numbers: faces, people, flags, symbols and the near-identical
# families (clock faces, moon phases, globes) would make held-out objects look easy.
OBJECT_GROUPS = {3, 4, 5, 6, 7}  # animals, food, travel, activities, objects
LOOKALIKES = set(range(0x1F550, 0x1F568)) | set(range(0x1F311, 0x1F320)) | {0x1F30D, 0x1F30E}

CLIP_ART_FOLDERS = (
    "animals buildings computer/hardware containers decorations electronics food office plants "
    "people/clothing recreation tools transportation/boating transportation/vehicles education"
).split()
CLIP_ART_UNFIT = re.compile(
    r"silhouette|icon|arrow|outline|cards|chess|_bw|black.and.white|line.?art|frame|border|map"
)
# Photographs for backgrounds and region masks; the suite's example pictures are not among them.
PHOTOGRAPHS = (
    "backgrounds/mate/nature/*.jpg",
    "backgrounds/2004default.jpg",
    "backgrounds/*_by_*.jpg",
    "backgrounds/{calla,city,desert,focal-ubuntukylin,goldfish}.png",
    "wallpapers/{FallenLeaf,DarkestHour,Autumn,summer_1am,EveningGlow,Kite,Path,Grey,ColdRipple,"
    "Honeywave,Canopee,Cascade,Flow,Kokkini,Opal,PastelHills}/contents/images/"
    "{2560x1600,3200x2000,3840x2160,5120x2880}.*",
)
EXAMPLE_PHOTOGRAPHS = re.compile(
    r"LadyBird|Fossa|Kleiber|Dragonfly|Wine|friends|umang|goldfish|TwoWings|Bridge"
)


@dataclass(frozen=True)
class Sprite:
    """One picture of one object: RGBA, with the object's code point (or clip-art path)."""

    style: str
    object_id: str
    name: str
    image: Image.Image


def install(folder: Path) -> None:
    """Fetch and unpack all packages that are not in ``folder`` yet.

    Raises ModelUnavailable naming the package that could not be fetched.
    """
    for name, version in NPM_PACKAGES.items():
        _install_npm(folder, name, version)
    for name in DEBIAN_PACKAGES:
        _install_debian(folder, name)


def _install_npm(folder: Path, name: str, version: str) -> None:
    target = folder / "npm" / name
    if target.exists():
        return
    download = folder / "download"
    download.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", str(download)]
    archive = download / _run(command, name).split()[-1]
    partial = target.with_name(target.name + ".partial")
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(target)
    archive.unlink()


def _install_debian(folder: Path, name: str) -> None:
    target = folder / "debian" / name
    if target.exists():
        return
    download = folder / "download"
    download.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", name], name, cwd=download)
    (archive,) = download.glob(f"{name}_*.deb")
    partial = target.with_name(target.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    _run(["dpkg-deb", "-x", str(archive), str(partial)], name)
    partial.rename(target)
    archive.unlink()


def _run(command: list[str], package: str, cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise ModelUnavailable(f"Training data needs {command[0]} to fetch {package}: install it.")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise ModelUnavailable(f"Could not fetch {package}: {done.stderr.strip()[-300:]}")
    return done.stdout


def object_names(folder: Path) -> dict[str, str]:
    """Map the code points (hex, lower case) of drawable single objects to their names."""
    path = folder / "npm" / "emojibase-data" / "package" / "en" / "data.json"
    names = {}
    for row in json.loads(path.read_text()):
        codes = [c for c in row["hexcode"].lower().split("-") if c != "fe0f"]
        if len(codes) != 1 or row.get("group") not in OBJECT_GROUPS:
            continue
        if int(codes[0], 16) not in LOOKALIKES:
            names[codes[0]] = row["label"]
    return names


def iter_sprites(folder: Path, style: str) -> Iterator[Sprite]:
    """Yield every sprite of ``style``: one of EMOJI_STYLES or "clip_art"."""
    if style == "clip_art":
        yield from _iter_clip_art(folder)
        return
    for code, name in object_names(folder).items():
        image = _read_emoji(folder, style, code)
        if image is not None:
            yield Sprite(style, code, name, image)


def _read_emoji(folder: Path, style: str, code: str) -> Image.Image | None:
    npm = folder / "npm"
    if style == "noto":
        return _draw_noto(folder, chr(int(code, 16)))
    if style == "fluent_3d":
        root, suffix = npm / "@lobehub/fluent-emoji-3d/package/assets", ".webp"
    elif style == "fluent_flat":
        root, suffix = npm / "@lobehub/fluent-emoji-flat/package/assets", ".svg"
    elif style == "twemoji":
        root, suffix = npm / "emoji-datasource-twitter/package/img/twitter/64", ".png"
    else:
        root, suffix, code = npm / "openmoji/package/color/svg", ".svg", code.upper()
    for stem in (code, f"{code}-fe0f", f"{code}-FE0F"):
        path = root / (stem + suffix)
        if path.exists():
            return _rasterise(path) if suffix == ".svg" else Image.open(path).convert("RGBA")
    return None


def _rasterise(path: Path, side: int = 144) -> Image.Image:
    import resvg_py  # training only

    png = resvg_py.svg_to_bytes(svg_path=str(path), width=side, height=side)
    return Image.open(BytesIO(bytes(png))).convert("RGBA")


def _draw_noto(folder: Path, character: str) -> Image.Image | None:
    (path,) = (folder / "debian" / "fonts-noto-color-emoji").rglob("NotoColorEmoji.ttf")
    font = ImageFont.truetype(str(path), NOTO_SIZE)
    image = Image.new("RGBA", (144, 144))
    ImageDraw.Draw(image).text((4, 8), character, font=font, embedded_color=True)
    return image if image.getbbox() else None


def _iter_clip_art(folder: Path) -> Iterator[Sprite]:
    (root,) = (folder / "debian" / "openclipart-png").rglob("openclipart/png")
    for path in sorted(root.rglob("*.png")):
        relative = path.relative_to(root).as_posix()
        if not relative.startswith(tuple(CLIP_ART_FOLDERS)) or CLIP_ART_UNFIT.search(relative):
            continue
        try:
            image = Image.open(path).convert("RGBA")
        except (OSError, Image.DecompressionBombError):
            continue
        yield Sprite("clip_art", relative, path.stem.replace("_", " "), image)


def iter_photographs(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield (name, RGB picture) of every background photograph, none of them an example."""
    from skimage import data

    for root in sorted((folder / "debian").glob("*/usr/share")):
        for pattern in PHOTOGRAPHS:
            for path in sorted(p for g in _expand(pattern) for p in root.glob(g)):
                if not EXAMPLE_PHOTOGRAPHS.search(path.as_posix()):
                    yield path.as_posix(), Image.open(path).convert("RGB")
    for name in ("brick", "grass", "gravel"):  # CC0 textures
        yield name, Image.fromarray(getattr(data, name)()).convert("RGB")


def _expand(pattern: str) -> list[str]:
    """Expand ``{a,b}`` groups, which pathlib's glob does not know."""
    match = re.search(r"\{(.*?)\}", pattern)
    if match is None:
        return [pattern]
    return [p for choice in match[1].split(",") for p in _expand(pattern.replace(match[0], choice))]
