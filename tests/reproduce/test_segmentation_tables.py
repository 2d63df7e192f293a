"""Tables 1 and 2: their rules hold of the paper's numbers, fail of others, and both are made of one measurement."""

import numpy as np
import pytest

from heedmap.errors import InputError
from heedmap.evaluation import segmentation as measuring
from heedmap.evaluation.coco_scores import NUMBERS, Scores
from heedmap.evaluation.segmentation import METHODS, PAPER, Segmentation
from heedmap.evaluation.statistics import Mean
from heedmap.reproduce.findings import Setting
from heedmap.reproduce.heterogenous_attention import tables

SMALL = (0.1, 0.1, 0.1, 0.1, 0.1, 0.1)


def scored(values, noise=0.0002):
    """Numbers that scatter a little, each by itself."""
    drawn = np.array(values) / 100 + np.random.default_rng(len(str(values))).normal(0, noise, (200, len(NUMBERS)))
    return Scores(dict(zip(NUMBERS, (value / 100 for value in values), strict=True)), drawn, 500)


def result(papers):
    found = {scale: {name: scored(rows.get(name, SMALL)) for name in METHODS} for scale, rows in papers.items()}
    sizes = {scale: {name: Mean(1.0, 0.9, 1.1, 500) for name in METHODS} for scale in papers}
    return Segmentation("made", found, sizes, {}, False, 0.5, False, 500, 900, 900, 0, {}, ())


def made(monkeypatch, papers):
    monkeypatch.setattr(tables, "_measured", lambda setting: (result(papers), result(papers)))
    return tables.table_1(Setting()), tables.table_2(Setting())


def test_of_the_papers_own_numbers_everything_holds(monkeypatch):
    first, second = made(monkeypatch, PAPER)
    assert [part.holds for part in first.parts] == [True] * 4
    assert [part.holds for part in second.parts] == [True] * 3
    assert first.parts[0].measured["AP, gae"].value == pytest.approx(13.1)


def test_of_the_scales_exchanged_it_does_not(monkeypatch):
    first, second = made(monkeypatch, {1.0: PAPER[0.3], 0.3: PAPER[1.0]})
    assert [part.holds for part in first.parts] == [True, False, False, True]
    assert [part.holds for part in second.parts] == [False, False, True]


def test_what_is_within_the_scatter_holds_only_where_no_worse_is_claimed(monkeypatch):
    same = {scale: dict.fromkeys(METHODS, PAPER[scale]["gae"]) for scale in PAPER}
    first, second = made(monkeypatch, same)
    assert [part.holds for part in first.parts] == [True, False, False, False]
    assert not any(part.holds for part in second.parts)


def test_both_tables_are_made_of_one_measurement(monkeypatch):
    asked = []
    whole = measuring.segmentations

    def counted(model, collection, *rest, **more):
        asked.append(len(collection.pictures))
        return whole(model, collection, *rest, **more)

    monkeypatch.setattr(measuring, "segmentations", counted)
    tables._measured.cache_clear()
    shares = []
    for table in (tables.table_1, tables.table_2):
        finding = table(Setting(scenes=3, device="cpu", step=shares.append))
        assert finding.more["numbers"]["pictures"] == 3
        assert finding.more["numbers, as the published code makes masks"]["official"]
        assert "masks" in finding.drawings
    assert asked == [3]
    assert shares[-1] == 1


def test_photographs_without_outlines_are_refused(tmp_path):
    with pytest.raises(InputError, match="--coco and --annotations"):
        tables.table_1(Setting(images=(tmp_path / "a.png",)))
