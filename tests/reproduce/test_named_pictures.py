"""A person's own pictures, with questions about them and regions of some of them."""

import json

import numpy as np
import pytest
from PIL import Image

from heedmap.errors import InputError
from heedmap.reproduce.findings import Setting
from heedmap.reproduce.heterogenous_attention.roles import on_pictures


@pytest.fixture
def setting(tmp_path):
    for name in ("cat_1.png", "cat_2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    items = [{"sent": f"what is {n}?", "img_id": n, "label": {"yes": 1.0}} for n in (1, 2)]
    (tmp_path / "q.json").write_text(json.dumps(items))
    return Setting(
        images=tuple(sorted(tmp_path.glob("*.png"))), questions=tmp_path / "q.json", regions=tmp_path / "r.npz"
    )


def regions(setting, picture):
    boxes, features = np.zeros((2, 4), np.float32), np.zeros((2, 8), np.float32)
    np.savez(setting.regions, image_id=np.array([picture] * 2), boxes=boxes, features=features)


def test_pictures_without_regions_are_left_out(setting):
    regions(setting, 2)
    assert list(on_pictures(setting)) == ["cat_2.png: what is 2?"]


def test_regions_of_other_pictures_are_told(setting):
    regions(setting, 3)
    with pytest.raises(InputError, match="regions of none of the pictures"):
        on_pictures(setting)
