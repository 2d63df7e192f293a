"""The cast: how each kind is drawn, facing right, and the colours it comes in.

Kinds share drawings on purpose, so that the detail that tells two of them apart is known: see `SHARED`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from .shapes import Curve, Shape, band, blob, limb, moved, oval

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "white": (244, 240, 232),
    "grey": (154, 158, 166),
    "black": (66, 62, 72),
    "brown": (146, 94, 58),
    "red": (208, 66, 58),
    "orange": (240, 142, 50),
    "yellow": (246, 212, 84),
    "green": (106, 172, 82),
    "blue": (86, 142, 214),
    "purple": (150, 104, 190),
    "pink": (240, 154, 178),
}

PALETTE: dict[str, tuple[str, ...]] = {
    "zebra": ("white", "yellow", "pink", "blue"),
    "horse": ("brown", "black", "white", "orange"),
    "elephant": ("grey", "blue", "pink", "brown"),
    "giraffe": ("yellow", "orange", "white", "pink"),
    "cat": ("orange", "grey", "black", "white"),
    "dog": ("brown", "white", "grey", "yellow"),
    "snail": ("yellow", "pink", "purple", "orange"),
    "slug": ("yellow", "pink", "purple", "orange"),
    "conch": ("yellow", "pink", "purple", "orange"),
    "bald eagle": ("brown", "black", "grey", "red"),
    "kite": ("brown", "black", "grey", "red"),
    "owl": ("brown", "grey", "purple", "white"),
    "penguin": ("black", "blue", "purple", "grey"),
    "fish": ("orange", "blue", "red", "green"),
    "turtle": ("green", "brown", "blue", "purple"),
    "butterfly": ("orange", "blue", "yellow", "purple"),
}

KINDS: tuple[str, ...] = tuple(PALETTE)

# Two kinds, and the parts in which they differ: (of the first, of the second). What is not listed is drawn the same.
# One exception: a conch's shell is the snail's with knobs and a point added, which are named shell too.
SHARED: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("zebra", "horse"): (("stripes", "mane", "tail"), ("blaze", "mane", "tail")),
    ("snail", "slug"): (("shell",), ("mantle",)),
    ("snail", "conch"): (("body", "head", "tentacles"), ("lip",)),
    ("bald eagle", "kite"): (("head", "tail"), ("head", "tail")),
    ("cat", "dog"): (("head", "ears", "whiskers", "tail"), ("head", "ears", "tail")),
}

# Paints that do not depend on the animal's colour. The others: coat, shade (darker), deep (darker still), light.
PAINTS: dict[str, RGB] = {
    "ink": (40, 36, 44),
    "snow": (252, 250, 244),
    "beak": (252, 186, 40),
    "skin": (250, 196, 168),
    "rose": (232, 110, 124),
    "cream": (252, 234, 200),
    "patch": (132, 84, 48),
    "gold": (250, 208, 70),
    "straw": (206, 190, 120),
}


def eye(x: float, y: float, size: float = 30) -> list[Shape]:
    return [
        Shape("head", "ink", oval(x, y, size, size * 1.15, points=14), ""),
        Shape("head", "snow", oval(x + size * 0.3, y - size * 0.35, size * 0.38, size * 0.38, points=8), ""),
    ]


def leg(x: float, top: float, paint: str, width: float = 82, foot: str = "ink", lean: float = 0) -> list[Shape]:
    tube = limb((x, top, width * 1.15), (x + lean * 0.5, (top + 400) / 2, width), (x + lean, 400, width * 0.9))
    hoof = [
        (x + lean - width * 0.47, 412),
        (x + lean + width * 0.47, 412),
        (x + lean + width * 0.5, 462),
        (x + lean - width * 0.5, 462),
    ]
    return [Shape("legs", paint, tube), Shape("legs", foot, hoof)]


# -- zebra, horse ------------------------------------------------------------------------------------------------------

TRUNK_OF_HORSE = oval(-70, 60, 290, 165)
NECK_OF_HORSE: Curve = [(60, 60), (180, -330), (300, -330), (290, -150), (215, 120)]


def equine(mane: str, tuft: str) -> list[Shape]:
    return [
        Shape("tail", tuft, limb((-330, 20, 50), (-430, 110, 64), (-450, 270, 84), (-440, 330, 40))),
        *leg(-235, 120, "shade", lean=-20),
        *leg(95, 120, "shade", lean=20),
        *leg(-170, 140, "coat", lean=10),
        *leg(165, 140, "coat", lean=30),
        Shape("mane", mane, blob((40, -40), (60, -220), (130, -400), (230, -420), (220, -250), (150, -20))),
        Shape("neck", "coat", blob(*NECK_OF_HORSE)),
        Shape("body", "coat", TRUNK_OF_HORSE),
        Shape("ears", "coat", blob((170, -330), (165, -450), (215, -480), (250, -350), steps=4)),
        Shape(
            "head",
            "coat",
            blob((170, -320), (240, -395), (330, -350), (450, -225), (455, -140), (370, -115), (250, -190)),
        ),
        Shape("head", "deep", blob((400, -240), (455, -215), (462, -135), (385, -112), (370, -170)), ""),
        Shape("head", "ink", oval(432, -200, 13, 18, points=8), ""),
        *eye(285, -285, 30),
    ]


def zebra() -> list[Shape]:
    stripes = [band(TRUNK_OF_HORSE, x, x + 62, slant=-16, taper=0.45) for x in (-318, -212, -106, 0, 106)]
    on_neck = [
        [(62, 10), (100, -90), (262, 20), (245, 70)],
        [(120, -150), (150, -222), (283, -120), (285, -52)],
        [(172, -280), (196, -330), (290, -232), (291, -180)],
    ]
    on_legs = [
        [(x - 46, y), (x + 46, y), (x + 44, y + 46), (x - 44, y + 46)]
        for x, y in ((-166, 250), (-162, 338), (178, 250), (188, 338))
    ]
    return [
        *equine("ink", "ink"),
        *(Shape("stripes", "ink", curve, "") for curve in [*stripes, *on_neck, *on_legs]),
        Shape("stripes", "ink", [(318, -355), (352, -325), (300, -200), (262, -190)], ""),
    ]


def horse() -> list[Shape]:
    return [
        *equine("deep", "deep"),
        Shape("blaze", "snow", blob((300, -372), (345, -350), (440, -235), (425, -215), (340, -290)), ""),
    ]


# -- elephant, giraffe -------------------------------------------------------------------------------------------------


def elephant() -> list[Shape]:
    return [
        Shape("tail", "shade", limb((-380, 20, 34), (-450, 110, 28), (-462, 200, 30))),
        Shape("tail", "ink", oval(-464, 225, 26, 42, points=12)),
        *leg(-270, 100, "shade", 130, "light"),
        *leg(75, 100, "shade", 130, "light"),
        *leg(-190, 130, "coat", 140, "light"),
        *leg(150, 130, "coat", 140, "light"),
        Shape("body", "coat", oval(-90, 20, 320, 250)),
        Shape(
            "trunk",
            "coat",
            limb((330, -160, 190), (420, 0, 140), (425, 180, 110), (405, 310, 92), (428, 385, 82), (470, 402, 70)),
        ),
        Shape("head", "coat", oval(255, -165, 195, 205)),
        Shape(
            "tusk", "snow", blob((330, 40), (400, 45), (440, 130), (500, 170), (420, 200), (350, 130), steps=4), "here"
        ),
        Shape(
            "ears",
            "shade",
            blob((170, -330), (60, -380), (-70, -280), (-60, -90), (40, 60), (150, -20), (195, -160)),
            "here",
        ),
        Shape(
            "ears",
            "rose",
            blob((130, -280), (50, -310), (-25, -240), (-15, -100), (50, 0), (115, -60), (145, -160)),
            "",
        ),
        *eye(315, -215, 30),
    ]


def giraffe() -> list[Shape]:
    spots = [
        (-180, 90, 62, 50),
        (-60, 60, 58, 46),
        (40, 100, 48, 44),
        (-120, 185, 50, 34),
        (0, 185, 44, 30),
        (-225, 170, 34, 34),
    ]
    on_neck = [(95, 10, 44, 36), (150, -70, 38, 34), (155, -165, 34, 34), (200, -245, 32, 34), (105, -85, 24, 30)]
    return [
        Shape("tail", "shade", limb((-270, 90, 30), (-350, 160, 26), (-365, 250, 24))),
        Shape("tail", "ink", oval(-368, 275, 24, 40, points=12)),
        *leg(-190, 160, "shade", 62, "ink", -15),
        *leg(60, 160, "shade", 62, "ink", 15),
        *leg(-140, 170, "coat", 66, "ink", 10),
        *leg(115, 170, "coat", 66, "ink", 20),
        Shape("horns", "patch", limb((195, -390, 34), (180, -470, 30))),
        Shape("horns", "patch", limb((245, -390, 34), (250, -475, 30))),
        Shape("neck", "coat", blob((-30, 90), (90, -120), (150, -340), (270, -340), (240, -120), (180, 150))),
        Shape("body", "coat", oval(-70, 115, 215, 135)),
        Shape("ears", "coat", blob((160, -350), (70, -400), (60, -360), (130, -300), steps=4)),
        Shape(
            "head",
            "coat",
            blob((150, -350), (220, -410), (300, -380), (430, -290), (440, -220), (370, -200), (230, -270)),
        ),
        Shape("head", "cream", blob((380, -300), (438, -270), (444, -218), (375, -200), (355, -250)), ""),
        *(Shape("spots", "patch", oval(*s, tilt=20, points=9), "") for s in spots + on_neck),
        *eye(268, -335, 28),
    ]


# -- cat, dog ----------------------------------------------------------------------------------------------------------


def pet() -> list[Shape]:
    """What cats and dogs share: the body and its legs."""
    return [
        *leg(-240, 150, "shade", 84, "shade", -10),
        *leg(60, 150, "shade", 84, "shade", 10),
        Shape(
            "body",
            "coat",
            blob((-330, 60), (-250, -50), (0, -60), (160, -40), (210, 100), (120, 235), (-120, 225), (-300, 235)),
        ),
        *leg(-195, 170, "coat", 92, "light", 0),
        *leg(125, 170, "coat", 92, "light", 5),
    ]


def cat() -> list[Shape]:
    return [
        Shape(
            "tail", "coat", limb((-300, 60, 70), (-420, -20, 72), (-440, -190, 70), (-350, -330, 66), (-270, -330, 60))
        ),
        Shape("tail", "deep", limb((-400, -285, 66), (-350, -332, 66), (-270, -330, 60)), ""),
        *pet(),
        Shape("ears", "coat", [(20, -250), (5, -490), (190, -360)], "here"),
        Shape("ears", "coat", [(290, -370), (440, -490), (440, -240)], "here"),
        Shape("ears", "rose", [(52, -290), (42, -415), (140, -345)], ""),
        Shape("ears", "rose", [(330, -360), (406, -420), (410, -290)], ""),
        Shape(
            "head",
            "coat",
            blob((20, -190), (70, -330), (230, -370), (390, -330), (440, -190), (360, -50), (230, -20), (100, -50)),
            "here",
        ),
        Shape("head", "deep", [(200, -366), (260, -366), (238, -285), (222, -285)], ""),
        Shape("head", "deep", [(130, -350), (170, -362), (180, -300), (165, -300)], ""),
        Shape("head", "deep", [(290, -362), (330, -350), (295, -300), (280, -300)], ""),
        Shape("head", "light", oval(230, -105, 110, 70, points=18), ""),
        Shape("head", "gold", oval(145, -205, 52, 58, points=14), ""),
        Shape("head", "gold", oval(320, -205, 52, 58, points=14), ""),
        Shape("head", "ink", oval(150, -205, 20, 52, points=10), ""),
        Shape("head", "ink", oval(318, -205, 20, 52, points=10), ""),
        Shape("head", "rose", [(195, -145), (268, -145), (232, -100)], ""),
        *(
            Shape("whiskers", "ink", limb((x, y, 14), (x + dx, y + dy, 8), steps=1), "")
            for x, y, dx, dy in (
                (130, -110, -170, -30),
                (130, -85, -165, 40),
                (330, -110, 165, -30),
                (330, -85, 160, 40),
            )
        ),
    ]


def dog() -> list[Shape]:
    return [
        Shape("tail", "coat", limb((-290, 20, 80), (-380, -90, 70), (-400, -190, 44))),
        *pet(),
        Shape(
            "head",
            "coat",
            blob((10, -230), (60, -370), (200, -410), (310, -340), (330, -200), (270, -60), (120, -30), (30, -90)),
            "here",
        ),
        Shape(
            "head",
            "light",
            blob((230, -260), (330, -265), (470, -215), (485, -130), (400, -70), (270, -60), (210, -150)),
            "here",
        ),
        Shape("head", "rose", blob((330, -80), (400, -82), (410, 20), (365, 50), (325, 10), steps=4), "here"),
        Shape("head", "ink", limb((300, -88, 16), (390, -80, 16), (460, -120, 14)), ""),
        Shape("head", "ink", oval(462, -210, 48, 38, points=14), ""),
        Shape(
            "ears",
            "deep",
            blob((110, -400), (20, -360), (-70, -200), (-60, -40), (30, -10), (90, -120), (140, -280)),
            "here",
        ),
        *eye(225, -285, 36),
    ]


# -- snail, slug, conch ------------------------------------------------------------------------------------------------


def soft_body() -> list[Shape]:
    """What snails and slugs share."""
    return [
        Shape("tentacles", "coat", limb((300, 40, 46), (300, -90, 36), (270, -190, 32))),
        Shape("tentacles", "coat", limb((380, 50, 46), (410, -80, 36), (440, -170, 32))),
        Shape("tentacles", "snow", oval(268, -205, 42, 42, points=14)),
        Shape("tentacles", "snow", oval(444, -185, 42, 42, points=14)),
        Shape("tentacles", "ink", oval(278, -205, 20, 22, points=10), ""),
        Shape("tentacles", "ink", oval(454, -185, 20, 22, points=10), ""),
        Shape(
            "body",
            "coat",
            blob(
                (-490, 330),
                (-380, 250),
                (-200, 170),
                (60, 160),
                (240, 190),
                (330, 300),
                (250, 370),
                (-150, 375),
                (-400, 370),
            ),
        ),
        Shape(
            "head",
            "coat",
            blob((215, 260), (240, 80), (330, 10), (430, 40), (460, 160), (430, 280), (350, 360), (220, 372)),
        ),
        Shape(
            "body",
            "light",
            blob((-440, 350), (-250, 322), (100, 322), (330, 322), (300, 362), (-200, 368), steps=4),
            "",
        ),
        Shape("head", "ink", limb((365, 190, 16), (400, 205, 16), (435, 180, 16), steps=2), ""),
    ]


def shell() -> list[Shape]:
    """What snails and conches share: a whorl with a spire, about the square from -350 to 350."""
    return [
        Shape(
            "shell",
            "shade",
            blob((-200, -230), (-330, -210), (-440, -290), (-390, -130), (-300, 60), (-150, 100), steps=4),
        ),
        Shape("shell", "deep", limb((-395, -215, 22), (-330, -165, 24), (-250, -200, 24)), ""),
        Shape("shell", "shade", oval(20, 20, 335, 300)),
        Shape("shell", "cream", oval(40, 40, 270, 240), ""),
        Shape("shell", "coat", oval(62, 52, 205, 180), ""),
        Shape("shell", "cream", oval(78, 62, 140, 120, points=20), ""),
        Shape("shell", "deep", oval(88, 68, 80, 66, points=16), ""),
    ]


def snail() -> list[Shape]:
    return [*soft_body(), *moved([_here(one) for one in shell()], -120, -70, 0.94, -4)]


def slug() -> list[Shape]:
    mantle = blob((-60, 190), (20, 110), (160, 100), (250, 160), (230, 250), (60, 270), (-50, 250))
    dots = [(-330, 290), (-250, 250), (-160, 290), (-150, 215), (-70, 300)]
    return [
        *soft_body(),
        Shape("mantle", "shade", mantle, "here"),
        *(Shape("mantle", "deep", oval(x, y, 26, 20, points=10), "") for x, y in dots),
    ]


def conch() -> list[Shape]:
    knobs = [(-230, -180, -20, -150), (-90, -255, 10, -160), (60, -270, 60, -140)]
    return [
        *(
            Shape("shell", "shade", blob((x, y), (x + dx, y + dy), (x + 110, y + 20), steps=4))
            for x, y, dx, dy in knobs
        ),
        Shape("shell", "shade", blob((-260, 120), (-60, 320), (180, 440), (330, 490), (340, 380), (220, 60))),
        *moved(shell(), -50, -20, 0.98, 6),
        Shape(
            "lip",
            "snow",
            blob(
                (40, -235),
                (250, -330),
                (440, -210),
                (490, 60),
                (440, 300),
                (345, 480),
                (265, 440),
                (285, 230),
                (250, 20),
                (160, -110),
            ),
            "here",
        ),
        Shape(
            "lip",
            "rose",
            blob((180, -200), (300, -250), (400, -130), (425, 80), (385, 270), (322, 400), (345, 190), (310, -20)),
            "",
        ),
    ]


def _here(shape: Shape) -> Shape:
    return Shape(shape.part, shape.paint, shape.curve, "here" if shape.rim else "")


# -- bald eagle, kite, owl, penguin ------------------------------------------------------------------------------------


def raptor(head: str, tail: list[Shape]) -> list[Shape]:
    """What the two birds of prey share: body, wings, beak and feet. Head and tail are given."""
    far = blob((110, -20), (190, -250), (330, -400), (420, -430), (400, -300), (330, -120), (220, 60))
    near = [
        (-150, 60),
        (-260, -140),
        (-330, -330),
        (-310, -470),
        (-245, -400),
        (-215, -480),
        (-150, -400),
        (-110, -470),
        (-60, -380),
        (-10, -430),
        (30, -330),
        (90, -360),
        (130, -180),
        (150, 40),
        (20, 130),
    ]
    return [
        *tail,
        Shape("wings", "shade", far),
        Shape("feet", "beak", limb((-40, 230, 40), (-60, 320, 36), (-10, 350, 26))),
        Shape("feet", "beak", limb((60, 230, 40), (50, 330, 36), (100, 355, 26))),
        Shape("body", "coat", blob((-250, 120), (-120, 10), (120, -20), (270, 10), (300, 110), (160, 240), (-60, 250))),
        Shape(
            "head",
            head,
            blob((190, 20), (215, -110), (310, -160), (400, -110), (415, 0), (330, 100), (230, 110)),
            "here",
        ),
        Shape(
            "beak", "beak", blob((385, -80), (470, -70), (500, 20), (480, 70), (440, 20), (390, 20), steps=4), "here"
        ),
        *eye(335, -55, 28),
        Shape("wings", "coat", near, "here"),
        Shape(
            "wings",
            "deep",
            [
                (-215, -130),
                (-290, -330),
                (-225, -260),
                (-190, -330),
                (-140, -250),
                (-95, -310),
                (-50, -230),
                (-5, -280),
                (40, -190),
                (80, -60),
            ],
            "",
        ),
    ]


def bald_eagle() -> list[Shape]:
    fan = [(-210, 100), (-470, 40), (-495, 130), (-490, 230), (-450, 300), (-200, 200)]
    return raptor(
        "snow",
        [Shape("tail", "snow", fan), Shape("tail", "straw", [(-330, 140), (-485, 150), (-485, 175), (-330, 165)], "")],
    )


def kite() -> list[Shape]:
    fork = [
        (-200, 90),
        (-380, 60),
        (-500, -20),
        (-430, 130),
        (-390, 175),
        (-430, 230),
        (-490, 370),
        (-360, 270),
        (-190, 210),
    ]
    return raptor("coat", [Shape("tail", "shade", fork)])


def owl() -> list[Shape]:
    chevrons = [(x, y) for y, xs in ((120, (-110, 0, 110)), (210, (-60, 60)), (300, (0,))) for x in xs]
    return [
        Shape("feet", "beak", limb((-150, 410, 50), (-110, 460, 44), (-60, 455, 40))),
        Shape("feet", "beak", limb((60, 455, 40), (110, 460, 44), (150, 410, 50))),
        Shape("tufts", "coat", [(-270, -250), (-290, -480), (-90, -370)]),
        Shape("tufts", "coat", [(270, -250), (290, -480), (90, -370)]),
        Shape(
            "body",
            "coat",
            blob(
                (0, -400),
                (220, -350),
                (310, -150),
                (330, 120),
                (240, 380),
                (0, 440),
                (-240, 380),
                (-330, 120),
                (-310, -150),
                (-220, -350),
            ),
        ),
        Shape("belly", "light", oval(0, 200, 215, 220), ""),
        *(
            Shape("belly", "shade", [(x - 44, y - 24), (x, y + 10), (x + 44, y - 24), (x, y + 44)], "")
            for x, y in chevrons
        ),
        Shape(
            "wings", "shade", blob((-300, -60), (-360, 120), (-310, 330), (-220, 360), (-200, 140), (-230, 0)), "here"
        ),
        Shape("wings", "shade", blob((300, -60), (360, 120), (310, 330), (220, 360), (200, 140), (230, 0)), "here"),
        Shape("head", "cream", oval(-130, -180, 135, 135), "here"),
        Shape("head", "cream", oval(130, -180, 135, 135), "here"),
        Shape("head", "gold", oval(-125, -180, 92, 92, points=20), ""),
        Shape("head", "gold", oval(125, -180, 92, 92, points=20), ""),
        *eye(-120, -180, 56),
        *eye(120, -180, 56),
        Shape("beak", "beak", [(-50, -110), (50, -110), (0, 10)], "here"),
    ]


def penguin() -> list[Shape]:
    return [
        Shape("feet", "beak", oval(-100, 435, 110, 44)),
        Shape("feet", "beak", oval(120, 435, 110, 44)),
        Shape("wings", "coat", blob((-190, -140), (-300, 0), (-400, 200), (-370, 240), (-240, 190), (-160, 60))),
        Shape("wings", "coat", blob((190, -140), (300, 0), (400, 200), (370, 240), (240, 190), (160, 60))),
        Shape(
            "body",
            "coat",
            blob(
                (0, -480),
                (170, -440),
                (230, -280),
                (270, 0),
                (290, 220),
                (210, 410),
                (0, 440),
                (-210, 410),
                (-290, 220),
                (-270, 0),
                (-230, -280),
                (-170, -440),
            ),
        ),
        Shape(
            "belly",
            "snow",
            blob(
                (0, -170),
                (130, -110),
                (200, 80),
                (200, 270),
                (120, 390),
                (0, 405),
                (-120, 390),
                (-200, 270),
                (-200, 80),
                (-130, -110),
            ),
            "",
        ),
        Shape("head", "snow", oval(-85, -290, 88, 100, points=20), ""),
        Shape("head", "snow", oval(85, -290, 88, 100, points=20), ""),
        *eye(-75, -290, 36),
        *eye(75, -290, 36),
        Shape("beak", "beak", [(-70, -235), (0, -265), (70, -235), (0, -130)], "here"),
    ]


# -- fish, turtle, butterfly -------------------------------------------------------------------------------------------


def fish() -> list[Shape]:
    body = oval(60, 0, 360, 245)
    return [
        Shape("fins", "shade", blob((-120, -180), (-60, -400), (120, -420), (260, -180), steps=4)),
        Shape("fins", "shade", blob((-60, 190), (-40, 370), (60, 390), (160, 210), steps=4)),
        Shape(
            "tail", "shade", blob((-250, 0), (-400, -230), (-490, -260), (-430, 0), (-490, 260), (-400, 230), steps=4)
        ),
        Shape("body", "coat", body),
        Shape("stripes", "snow", band(body, -150, -70), ""),
        Shape("stripes", "snow", band(body, 20, 110), ""),
        Shape("head", "light", band(body, 235, 412), ""),
        Shape("fins", "deep", blob((40, 40), (-110, 60), (-130, 160), (10, 150), steps=4), "here"),
        Shape("head", "snow", oval(270, -60, 68, 68, points=16), ""),
        *eye(282, -60, 38),
        Shape("head", "ink", limb((410, 70, 18), (365, 90, 18), (340, 75, 16), steps=2), ""),
    ]


def turtle() -> list[Shape]:
    dome = blob((-400, 180), (-340, -60), (-180, -230), (0, -270), (150, -220), (270, -60), (320, 180), (0, 215))
    plates = [
        [(-60, -190), (60, -180), (110, -70), (20, 10), (-90, -10), (-130, -110)],
        [(-190, -130), (-160, -80), (-125, 10), (-210, 70), (-310, 20), (-270, -60)],
        [(120, -140), (190, -80), (230, 20), (180, 70), (75, 30), (140, -60)],
        [(-180, 110), (-80, 45), (10, 60), (70, 110), (40, 170), (-170, 170)],
    ]
    return [
        Shape("tail", "straw", blob((-380, 190), (-490, 260), (-350, 270), steps=4)),
        Shape("legs", "straw", limb((-260, 220, 120), (-290, 340, 104), (-270, 385, 96))),
        Shape("legs", "straw", limb((170, 220, 120), (200, 340, 104), (225, 385, 96))),
        Shape("head", "straw", limb((250, 160, 130), (360, 60, 140), (405, -30, 170))),
        Shape("shell", "coat", dome, "here"),
        *(Shape("shell", "deep", curve, "") for curve in plates),
        Shape(
            "shell",
            "light",
            blob((-420, 170), (0, 185), (335, 170), (330, 240), (0, 262), (-415, 240), steps=4),
            "here",
        ),
        *eye(425, -50, 32),
        Shape("head", "ink", limb((410, 30, 16), (450, 35, 16), (480, 10, 14), steps=2), ""),
    ]


def butterfly() -> list[Shape]:
    upper = [(20, -20), (90, -250), (280, -420), (440, -400), (470, -240), (380, -60), (200, 30)]
    lower = [(20, 20), (220, 40), (370, 120), (380, 270), (270, 400), (140, 340), (60, 180)]
    both = [(1, "coat"), (-1, "coat")]
    return [
        Shape("antennae", "ink", limb((20, -210, 22), (70, -340, 18), (130, -440, 30)), "behind"),
        Shape("antennae", "ink", limb((-20, -210, 22), (-70, -340, 18), (-130, -440, 30)), "behind"),
        *(Shape("wings", paint, blob(*((side * x, y) for x, y in upper))) for side, paint in both),
        *(Shape("wings", "shade", blob(*((side * x, y) for x, y in lower))) for side, _ in both),
        *(Shape("spots", "snow", oval(side * 350, -290, 66, 60, points=14), "") for side, _ in both),
        *(Shape("spots", "ink", oval(side * 225, -170, 70, 62, points=14), "") for side, _ in both),
        *(Shape("spots", "light", oval(side * 260, 220, 74, 82, points=16), "") for side, _ in both),
        *(Shape("spots", "ink", oval(side * 260, 225, 38, 42, points=12), "") for side, _ in both),
        Shape("body", "ink", limb((0, -170, 80), (0, 60, 92), (0, 310, 44)), "here"),
        Shape("head", "deep", oval(0, -200, 74, 70, points=18), "here"),
        Shape("head", "snow", oval(-28, -210, 22, 24, points=10), ""),
        Shape("head", "snow", oval(28, -210, 22, 24, points=10), ""),
    ]


DRAWINGS: dict[str, Callable[[], list[Shape]]] = {
    "zebra": zebra,
    "horse": horse,
    "elephant": elephant,
    "giraffe": giraffe,
    "cat": cat,
    "dog": dog,
    "snail": snail,
    "slug": slug,
    "conch": conch,
    "bald eagle": bald_eagle,
    "kite": kite,
    "owl": owl,
    "penguin": penguin,
    "fish": fish,
    "turtle": turtle,
    "butterfly": butterfly,
}


@cache
def drawing(kind: str) -> tuple[Shape, ...]:
    return tuple(DRAWINGS[kind]())
