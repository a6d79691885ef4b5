"""Published settings and class names of each data set (CaR, section 4.1, and its code's configs).

Class names are the queries as the authors wrote them, commas and odd spellings included; a class's
label in the data is its position plus one, 0 is background. Where paper and code differ, the code.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.car.config import (
    BACKGROUND_QUERIES,
    SEMANTIC_TEMPLATES,
    CarConfig,
    SamMatching,
    VisualPrompt,
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One data set.

    Args:
        config: thresholds and visual prompts, those of the first pass if there are two.
        classifier: open_clip's name of the classifier; proposals come from ViT-B-16 throughout.
        classes: queries in the order of the labels; () for referring expressions.
        stuff: those of ``classes`` that a second pass looks for, with the others' names as
            background.
        stuff_prompts: visual prompts of the second pass.
        ignore_background: label 0 does not count in the mean IoU.
    """

    title: str
    config: CarConfig
    classifier: str = "ViT-L-14-quickgelu"
    classes: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    stuff_prompts: tuple[VisualPrompt, ...] = ()
    ignore_background: bool = False

    @property
    def things(self) -> tuple[str, ...]:
        """Classes of the first pass."""
        return tuple(name for name in self.classes if name not in self.stuff)


def _config(
    eta: float,
    theta: float,
    box: float,
    prompts: tuple[VisualPrompt, ...],
    iom: float,
    templates: tuple[str, ...] = SEMANTIC_TEMPLATES,
) -> CarConfig:
    return CarConfig(
        mask_threshold=eta,
        confidence_threshold=theta,
        box_threshold=box,
        visual_prompts=prompts,
        background_queries=BACKGROUND_QUERIES,
        sam=SamMatching(iom_threshold=iom),
        templates=templates,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(line.split()) for line in text.strip().split(";"))


VOC = _names(
    """aeroplane; bicycle; bird avian; boat; bottle; bus; car; cat; chair seat; cow; diningtable;
    dog; horse; motorbike; person with clothes,people,human; pottedplant; sheep; sofa; train;
    tvmonitor screen"""
)

COCO_OBJECT = _names(
    """person with clothes,people,human; bicycle; car; motorbike; aeroplane; bus; train; truck;
    boat; traffic light; fire hydrant; stop sign; parking meter; bench; bird avian; cat; dog;
    horse; sheep; cow; elephant; bear; zebra; giraffe; backpack,bag; umbrella,parasol;
    handbag,purse; necktie; suitcase; frisbee; skis; sknowboard; sports ball; kite; baseball bat;
    glove; skateboard; surfboard; tennis racket; bottle; wine glass; cup; fork; knife;
    dessertspoon; bowl; banana; apple; sandwich; orange; broccoli; carrot; hot dog; pizza; donut;
    cake; chair seat; sofa; pottedplant; bed; diningtable; toilet; tvmonitor screen; laptop;
    mouse; remote control; keyboard; cell phone; microwave; oven; toaster; sink; refrigerator;
    book; clock; vase; scissors; teddy bear; hairdrier,blowdrier; toothbrush"""
)

PASCAL_CONTEXT = _names(
    """airplane; bag; bed; bedclothes; bench; bicycle; bird; boat; book; bottle; building; bus;
    cabinet; car; cat; ceiling; chair; cloth; computer; cow; cup; curtain; dog; door; fence;
    floor; flower; food; grass; ground; horse; keyboard; light; motorbike; mountain; mouse;
    person; plate; platform; plant; road; rock; sheep; shelves; sidewalk; sign; sky; snow; sofa;
    table; track; train; tree; truck; monitor; wall; water; window; wood"""
)
PASCAL_CONTEXT_STUFF = _names(
    """bedclothes; ceiling; cloth; curtain; floor; grass; ground; light; mountain; platform; road;
    sidewalk; sky; snow; wall; water; window; wood; door; fence; rock"""
)

ADE_150 = _names(
    """wall; building, edifice; sky; floor, flooring; tree; ceiling; road, route; bed; windowpane,
    window; grass; cabinet; sidewalk, pavement; person, individual, someone, somebody, mortal,
    soul; earth, ground; door, double, door; table; mountain, mount; plant, flora, plant, life;
    curtain, drape, drapery, mantle, pall; chair; car, auto, automobile, machine, motorcar; water;
    painting, picture; sofa, couch, lounge; shelf; house; sea; mirror; rug, carpet, carpeting;
    field; armchair; seat; fence, fencing; desk; rock, stone; wardrobe, closet, press; lamp;
    bathtub, bathing, tub, bath, tub; railing, rail; cushion; base, pedestal, stand; box; column,
    pillar; signboard, sign; chest, of, drawers, chest, bureau, dresser; counter; sand; sink;
    skyscraper; fireplace, hearth, open, fireplace; refrigerator, icebox; grandstand, covered,
    stand; path; stairs, steps; runway; case, display, case, showcase, vitrine; pool, table,
    billiard, table, snooker, table; pillow; screen, door, screen; stairway, staircase; river;
    bridge, span; bookcase; blind, screen; coffee, table, cocktail, table; toilet, can, commode,
    crapper, pot, potty, stool, throne; flower; book; hill; bench; countertop; stove, kitchen,
    stove, range, kitchen, range, cooking, stove; palm, palm, tree; kitchen, island; computer,
    computing, machine, computing, device, data, processor, electronic, computer, information,
    processing, system; swivel, chair; boat; bar; arcade, machine; hovel, hut, hutch, shack,
    shanty; bus, autobus, coach, charabanc, double-decker, jitney, motorbus, motorcoach, omnibus,
    passenger, vehicle; towel; light, light, source; truck, motortruck; tower; chandelier,
    pendant, pendent; awning, sunshade, sunblind; streetlight, street, lamp; booth, cubicle,
    stall, kiosk; television, television, receiver, television, set, tv, tv, set, idiot, box,
    boob, tube, telly, goggle, box; airplane, aeroplane, plane; dirt, track; apparel, wearing,
    apparel, dress, clothes; pole; land, ground, soil; bannister, banister, balustrade,
    balusters, handrail; escalator, moving, staircase, moving, stairway; ottoman, pouf, pouffe,
    puff, hassock; bottle; buffet, counter, sideboard; poster, posting, placard, notice, bill,
    card; stage; van; ship; fountain; conveyer, belt, conveyor, belt, conveyer, conveyor,
    transporter; canopy; washer, automatic, washer, washing, machine; plaything, toy; swimming,
    pool, swimming, bath, natatorium; stool; barrel, cask; basket, handbasket; waterfall, falls;
    tent, collapsible, shelter; bag; minibike, motorbike; cradle; oven; ball; food, solid, food;
    step, stair; tank, storage, tank; trade, name, brand, name, brand, marque; microwave,
    microwave, oven; pot, flowerpot; animal, animate, being, beast, brute, creature, fauna;
    bicycle, bike, wheel, cycle; lake; dishwasher, dish, washer, dishwashing, machine; screen,
    silver, screen, projection, screen; blanket, cover; sculpture; hood, exhaust, hood; sconce;
    vase; traffic, light, traffic, signal, stoplight; tray; ashcan, trash, can, garbage, can,
    wastebin, ash, bin, ash-bin, ashbin, dustbin, trash, barrel, trash, bin; fan; pier, wharf,
    wharfage, dock; crt, screen; plate; monitor, monitoring, device; bulletin, board, notice,
    board; shower; radiator; glass, drinking, glass; clock; flag"""
)
ADE_STUFF = _names(
    """wall; sky; floor, flooring; tree; ceiling; road, route; grass; earth, ground; mountain,
    mount; plant, flora, plant, life; water; sea; field; sand; skyscraper; path; river; bridge,
    span; flower; hill; land, ground, soil; dirt, track; apparel, wearing, apparel, dress,
    clothes; lake; waterfall, falls"""
)

PRESETS: dict[str, Preset] = {
    "voc": Preset(
        title="Pascal VOC 2012",
        config=_config(0.4, 0.6, 0.4, ("circle", "blur"), 0.6),
        classes=VOC,
    ),
    "coco": Preset(
        title="COCO Object",
        config=_config(0.5, 0.3, 0.5, ("blur", "gray"), 0.7),
        classes=COCO_OBJECT,
    ),
    "pascal_context": Preset(
        title="Pascal Context",
        config=_config(0.6, 0.25, 0.4, ("blur", "circle"), 0.5),  # θ is 0.2 in the paper
        classes=PASCAL_CONTEXT,
        stuff=PASCAL_CONTEXT_STUFF,
        stuff_prompts=("blur", "gray"),
    ),
    "ade_150": Preset(
        title="ADE20K, 150 classes",
        config=_config(0.6, 0.25, 0.7, ("gray", "blur"), 0.6),
        classes=ADE_150,
        stuff=ADE_STUFF,
        stuff_prompts=("gray", "blur"),
        ignore_background=True,
    ),
    "refcoco": Preset(
        title="RefCOCO",
        config=_config(0.5, 0.3, 0.5, ("circle",), 0.5, templates=()),
        classifier="ViT-B-16-quickgelu",
    ),
    "refcoco+": Preset(
        title="RefCOCO+",
        config=_config(0.2, 0.1, 0.5, ("circle", "blur"), 0.5, templates=()),
        classifier="ViT-B-16-quickgelu",
    ),
    "refcocog": Preset(
        title="RefCOCOg",
        config=_config(0.5, 0.1, 0.6, ("circle", "blur"), 0.5, templates=()),
        classifier="ViT-B-16-quickgelu",
    ),
    "gres": Preset(
        title="GRES",
        config=_config(0.5, 0.0, 0.3, ("circle",), 0.5, templates=()),
    ),
    "demo": Preset(
        title="Free words",
        config=_config(0.5, 0.0, 0.6, ("gray", "blur"), 0.6),
    ),
}
