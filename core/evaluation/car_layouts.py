"""The folders of CaR's data sets as they were published (CaR, section 4.1 and its code's notes).

Label pictures with class names for VOC, Context, COCO and ADE20K; phrases with masks for RefCOCO,
RefCOCO+ and RefCOCOg; clips with phrases for Ref-DAVIS. All files of a data set are looked for
before the first picture is read, since a run takes hours.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.car.presets import COCO_OBJECT, PRESETS, Preset
from core.errors import ImageError
from core.evaluation.car_data import IGNORED, PhraseClip, PhraseScene, WordScene
from core.evaluation.persam_davis import davis_sequences
from core.images import load

# The 91 stuff classes of COCO-Stuff in the order of their ids, "wall-brick" said as one would.
COCO_STUFF = tuple(
    " ".join(name.split())
    for name in """banner; blanket; branch; bridge; building; bush; cabinet; cage; cardboard;
    carpet; ceiling; tile ceiling; cloth; clothes; clouds; counter; cupboard; curtain; desk; dirt;
    door; fence; marble floor; floor; stone floor; tile floor; wood floor; flower; fog; food;
    fruit; furniture; grass; gravel; ground; hill; house; leaves; light; mat; metal; mirror; moss;
    mountain; mud; napkin; net; paper; pavement; pillow; plant; plastic; platform; playing field;
    railing; railroad; river; road; rock; roof; rug; salad; sand; sea; shelf; sky; skyscraper;
    snow; solid; stairs; stone; straw; structure; table; tent; textile; towel; tree; vegetable;
    brick wall; concrete wall; wall; panel wall; stone wall; tile wall; wood wall; water;
    water drops; window blind; window; wood""".split(";")
)
# Pixel values of the unconverted label pictures that no thing has.
UNUSED_COCO_VALUES = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
COCO_VALUES = tuple(value for value in range(182) if value not in UNUSED_COCO_VALUES)

# Of the released code; Ref-DAVIS has no settings there, COCO-Stuff no evaluation.
COCO_STUFF_PRESET = Preset(
    title="COCO-Stuff, 171 classes",
    config=PRESETS["pascal_context"].config,
    classes=COCO_OBJECT + COCO_STUFF,
    stuff=COCO_STUFF,
    stuff_prompts=PRESETS["pascal_context"].stuff_prompts,
    ignore_background=True,
)

REFERRING = ("refcoco", "refcoco+", "refcocog")
SPLIT_BY = ("umd", "unc", "google")  # the one preferred first, where a folder has several
# Sequences whose names the expressions' files spell otherwise than DAVIS.
DAVIS_NAMES = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}

Files = list[tuple[Path, Path]]  # pictures with their label pictures


@dataclass(frozen=True)
class WordLayout:
    """A data set of label pictures.

    Args:
        preset: settings and class names.
        find: lists a folder's pictures and label pictures of a split.
        split: by default.
        published: column of ``car_published``.
    """

    preset: Preset
    find: Callable[[Path, str], tuple[Files, dict[int, int]]]
    split: str
    published: str


def read_words(name: str, folder: Path, split: str | None = None) -> Iterator[WordScene]:
    """Yield the pictures of a data set of ``WORD_LAYOUTS``, each with all class names.

    Args:
        split: None: the validation pictures.

    Raises:
        ImageError: a file is missing, or a label picture has another size than its picture.
    """
    layout = WORD_LAYOUTS[name]
    files, values = layout.find(folder, split or layout.split)
    for picture, labels in files:
        for path in (picture, labels):
            if not path.is_file():
                raise ImageError(
                    f"{_below(path, folder)} is missing: every picture needs its label picture."
                )
    table = np.full(256, IGNORED, np.uint8)
    table[list(values)] = list(values.values())
    for picture, labels in files:
        image, truth = load(picture).image, table[_read_labels(labels)]
        if truth.shape != image.shape[:2]:
            raise ImageError(
                f"{labels.name} is {truth.shape}, its picture {image.shape[:2]} (height, width)."
            )
        yield WordScene(image, layout.preset.classes, truth)


def _voc(folder: Path, split: str) -> tuple[Files, dict[int, int]]:
    """VOC 2012: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/."""
    root = _root(folder, ("VOC2012", "VOCdevkit/VOC2012"), "ImageSets/Segmentation")
    return _listed(root, f"ImageSets/Segmentation/{split}.txt", "SegmentationClass"), _same(20)


def _context(folder: Path, split: str) -> tuple[Files, dict[int, int]]:
    """Pascal Context as mmsegmentation converts it: VOC 2010's folder and two more."""
    root = _root(folder, ("VOC2010", "VOCdevkit/VOC2010"), "ImageSets/SegmentationContext")
    listing = f"ImageSets/SegmentationContext/{split}.txt"
    return _listed(root, listing, "SegmentationClassContext"), _same(59)


def _coco_object(folder: Path, split: str) -> tuple[Files, dict[int, int]]:
    """COCO-Object as GroupViT converts it: annotations/<split>/<id>_instanceTrainIds.png."""
    suffix = "_instanceTrainIds.png"
    return _labelled(folder, f"annotations/{split}", suffix, f"images/{split}"), _same(80)


def _coco_stuff(folder: Path, split: str) -> tuple[Files, dict[int, int]]:
    """COCO-Stuff: mmsegmentation's annotations/<split>/<id>_labelTrainIds.png, or unconverted."""
    if (folder / "stuffthingmaps" / split).is_dir():
        files = _labelled(folder, f"stuffthingmaps/{split}", ".png", f"images/{split}")
        return files, {value: k + 1 for k, value in enumerate(COCO_VALUES)}
    suffix = "_labelTrainIds.png"
    files = _labelled(folder, f"annotations/{split}", suffix, f"images/{split}")
    return files, {k: k + 1 for k in range(len(COCO_VALUES))}


def _ade20k(folder: Path, split: str) -> tuple[Files, dict[int, int]]:
    """ADE20K of the scene parsing challenge: images/<split>/, annotations/<split>/; 0 is other."""
    root = _root(folder, ("ADEChallengeData2016",), "annotations")
    return _labelled(root, f"annotations/{split}", ".png", f"images/{split}"), _same(150)


WORD_LAYOUTS: dict[str, WordLayout] = {
    "voc": WordLayout(PRESETS["voc"], _voc, "val", "voc"),
    "context": WordLayout(PRESETS["pascal_context"], _context, "val", "context"),
    "coco_object": WordLayout(PRESETS["coco"], _coco_object, "val2017", "coco_object"),
    "coco_stuff": WordLayout(COCO_STUFF_PRESET, _coco_stuff, "val2017", "coco_stuff"),
    "ade20k": WordLayout(PRESETS["ade_150"], _ade20k, "validation", "ade20k"),
}
FORMATS = (*WORD_LAYOUTS, "refcoco", "ref_davis")


def _same(classes: int) -> dict[int, int]:
    """Values that are labels already: any others are ignored."""
    return {value: value for value in range(classes + 1)}


def _root(folder: Path, inner: tuple[str, ...], needs: str) -> Path:
    """The folder itself or one inside of it, that has what a data set needs."""
    for root in (folder, *(folder / name for name in inner)):
        if (root / needs).is_dir():
            return root
    raise ImageError(f"{folder} has no {needs}/, nor has a folder {' or '.join(inner)} in it.")


def _listed(root: Path, listing: str, labels: str) -> Files:
    """Files of the stems that a text file lists."""
    if not (root / listing).is_file():
        raise ImageError(f"{root} has no {listing}, which lists the pictures.")
    return [
        (root / "JPEGImages" / f"{stem}.jpg", root / labels / f"{stem}.png")
        for stem in (root / listing).read_text().split()
    ]


def _labelled(root: Path, labels: str, suffix: str, pictures: str) -> Files:
    """All label pictures of a folder, with the picture of the same stem."""
    found = sorted((root / labels).glob(f"*{suffix}"))
    if not found:
        raise ImageError(f"{root} has no label pictures {labels}/*{suffix}.")
    return [(root / pictures / f"{path.name[: -len(suffix)]}.jpg", path) for path in found]


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """Values of a label picture (H, W), of a palette's indices too."""
    with Image.open(path) as opened:
        if opened.mode not in ("P", "L"):
            raise ImageError(
                f"{path.name} has pixels of mode {opened.mode}: a label picture has one number "
                "for each."
            )
        return np.array(opened)


def referring_name(folder: Path) -> str:
    """Which of the three data sets a folder holds, by its name.

    Raises:
        ImageError: it has another name.
    """
    if folder.name not in REFERRING:
        raise ImageError(
            f"{folder} has to be named as its data set is: one of {', '.join(REFERRING)}."
        )
    return folder.name


def refcoco_column(folder: Path, split: str | None) -> str:
    """Column of ``car_published``: "refcocog_google_val"; who split the others is always unc."""
    name, (by, part) = referring_name(folder), _split_by(folder, split)
    said = f"{name}_{by}" if name == "refcocog" else name.replace("+", "_plus")
    return f"{said}_{part}"


def refcoco_scenes(folder: Path, split: str | None = None) -> Iterator[PhraseScene]:
    """Yield RefCOCO's objects, each with all of its expressions, those of a picture in a row.

    ``refs(unc).p`` (also umd, google) and ``instances.json`` as https://github.com/lichengunc/refer
    has them; COCO's train2014 pictures below the folder, or below images/ beside it.

    Args:
        split: "testA", or with who made it "google/val"; None: "val".

    Raises:
        ImageError: a file is missing, or the expressions hold anything but plain data.
    """
    from pycocotools.coco import COCO

    by, part = _split_by(folder, split)
    refs = [ref for ref in read_refs(folder / f"refs({by}).p") if ref["split"] == part]
    if not refs:
        raise ImageError(f"refs({by}).p of {folder} has no expressions of the split {part}.")
    coco = COCO()
    coco.dataset = json.loads(_needed(folder / "instances.json").read_text("utf-8"))
    coco.createIndex()
    paths = _pictures(folder)
    names = {ref["image_id"]: coco.imgs[ref["image_id"]]["file_name"] for ref in refs}
    for name in names.values():
        if name not in paths:
            raise ImageError(f"{name} is neither below {folder} nor below images/ beside it.")
    shown, image = None, np.zeros(0, np.uint8)
    for ref in sorted(refs, key=lambda ref: (ref["image_id"], ref["ref_id"])):
        if ref["image_id"] != shown:
            shown, image = ref["image_id"], load(paths[names[ref["image_id"]]]).image
        mask = coco.annToMask(coco.anns[ref["ann_id"]]).astype(bool)
        yield PhraseScene(image, tuple(s["sent"] for s in ref["sentences"]), mask)


def _split_by(folder: Path, split: str | None) -> tuple[str, str]:
    """Who made a split, and its name."""
    by, _, part = (split or "val").rpartition("/")
    there = [name for name in SPLIT_BY if (folder / f"refs({name}).p").is_file()]
    if not there or (by and by not in there):
        raise ImageError(f"{folder} has no refs({by or 'unc'}).p with referring expressions.")
    return by or there[0], part


def _pictures(folder: Path) -> dict[str, Path]:
    return {
        path.name: path
        for root in (folder.parent / "images", folder)
        if root.is_dir()
        for path in root.rglob("*.jpg")
    }


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings and numbers; whatever would import or call something stops it."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_refs(path: Path) -> list[dict[str, Any]]:
    """Read a pickle of referring expressions, which may come from anywhere, as plain data.

    Raises:
        ImageError: it is damaged, holds other things, or lacks a field.
    """
    needed = ("ref_id", "ann_id", "image_id", "split", "sentences")
    try:
        with path.open("rb") as file:
            refs = _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises anything
        raise ImageError(f"{path.name} is no plain list of expressions: {error}.") from error
    if not isinstance(refs, list) or not all(
        isinstance(ref, dict) and all(key in ref for key in needed) for ref in refs
    ):
        raise ImageError(f"{path.name} is no list of expressions with {', '.join(needed)}.")
    return refs


def davis_clips(folder: Path, split: str | None = None) -> Iterator[PhraseClip]:
    """Yield Ref-DAVIS 2017: DAVIS's folders, and davis_text_annotations/Davis17_annot*.txt.

    Each of these files is one annotator's view of either the first frame or the whole clip.

    Raises:
        ImageError: files are missing, or a clip has no expressions.
    """
    root = _root(folder, ("DAVIS",), "ImageSets")
    places = (folder / "davis_text_annotations", root / "davis_text_annotations", folder)
    files = next((found for at in places if (found := sorted(at.glob("Davis17_annot*.txt")))), [])
    if not files:
        raise ImageError(f"{folder} has no davis_text_annotations/Davis17_annot*.txt (Ref-DAVIS).")
    phrases = {path.stem: _read_expressions(path) for path in files}
    for sequence in davis_sequences(root, split or "val"):
        own = {file: names.get(sequence.name, {}) for file, names in phrases.items()}
        if not any(own.values()):
            raise ImageError(f"{sequence.name} has no expressions in Davis17_annot*.txt.")
        yield PhraseClip(sequence, own)


def _read_expressions(path: Path) -> dict[str, dict[int, str]]:
    """Lines such as ``bear 1 "a brown bear"``: phrases by sequence and object."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # the second annotator's
        text = content.decode("latin-1")
    found: dict[str, dict[int, str]] = {}
    for line in filter(str.strip, text.splitlines()):
        parts = line.split(maxsplit=2)
        if len(parts) < 3 or not parts[1].isdecimal():
            raise ImageError(f"{path.name} has a line that is no name, number and phrase: {line}")
        name = DAVIS_NAMES.get(parts[0], parts[0])
        found.setdefault(name, {})[int(parts[1])] = parts[2].strip().strip('"')
    return found


def _needed(path: Path) -> Path:
    if not path.is_file():
        raise ImageError(f"{path.parent} has no {path.name}.")
    return path


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
