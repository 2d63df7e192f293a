"""Blocks of weights: as large as serves and fits, and an explanation does not hang on how large that is."""

import math

import numpy as np
import pytest
import torch
from cases import explain, fresh, inputs_of, most_off, shared

import heedmap
from heedmap import memory, propagation
from heedmap.correction import CORRECTIONS
from heedmap.records import Heads

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
MIB = 2**20
PLENTY = 2**40
SIZES = {"a row": (1, 1), "three rows of the longest": (1, 3), "half a kilobyte": (512, 1), "all": (2**30, 1)}


@pytest.fixture(params=SIZES)
def cut(request, monkeypatch):
    """Blocks of another size, whatever is free."""
    cached, rows = SIZES[request.param]
    monkeypatch.setattr(propagation, "CACHED", cached)
    monkeypatch.setattr(propagation, "ROWS", rows)
    monkeypatch.setattr(propagation, "free", lambda device: None)


# ------------------------------------------------------------------------------------------------------- the same map


@pytest.fixture(scope="module")
def in_one_piece():
    return {
        (name, correction): explain(fresh(name), name, correction=correction)
        for name in ("vit", "t5", "lxmert", "hand-many-heads")
        for correction in ("complete", "positive")
    }


@pytest.mark.parametrize("correction", ["complete", "positive"])
@pytest.mark.parametrize("name", ["vit", "t5", "lxmert", "hand-many-heads"])
def test_an_explanation_does_not_hang_on_its_blocks(name, correction, cut, in_one_piece):
    e = explain(shared(name), name, correction=correction, verify=False)
    assert most_off(e, in_one_piece[name, correction]) <= 1e-6


def test_the_same_blocks_give_the_same_bits(cut):
    first, second = (heedmap.explain(shared("vit"), inputs_of("vit", 2), 1) for _ in range(2))
    assert torch.equal(first["pixel_values"], second["pixel_values"])


@pytest.fixture(scope="module")
def call():
    """A causal call with a mask, some query rows of which carry no gradient; and its dense map in float64."""
    torch.manual_seed(0)
    q, k, v, gradient = (torch.randn(2, 3, 11, 4) for _ in range(4))
    gradient[:, :, 7:10] = 0
    mask = torch.randn(2, 1, 11, 11)
    heads = Heads(v, q, k, None, mask, True, 0.7)
    scores = np.einsum("bhqd,bhkd->bhqk", *(t.double().numpy() for t in (q, k))) * 0.7 + mask.double().numpy()
    weights = np.exp(np.where(np.tri(11), scores, -np.inf))
    weights /= weights.sum(-1, keepdims=True)
    change = np.einsum("bhqd,bhkd->bhqk", gradient.double().numpy(), v.double().numpy())
    return heads, gradient, weights, change


def close(found, true):
    return np.abs(found.double().numpy() - true).max() <= 1e-6 * np.abs(true).max()


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_one_call_by_its_equations(call, correction, cut):
    heads, gradient, weights, change = call
    correct = {"complete": lambda g: g, "positive": lambda g: np.maximum(g, 0), "absolute": np.abs}[correction]
    map = (correct(change) * weights).mean(1)
    line = torch.rand(2, 11)
    arrived, told = (np.einsum(form, line.double().numpy(), map) for form in ("bq,bqk->bk", "bk,bqk->bq"))
    assert close(propagation.pull(heads, gradient, line, CORRECTIONS[correction]), arrived)
    assert close(propagation.push(heads, gradient, line, CORRECTIONS[correction]), told)
    flowed, found = propagation.pull_and_differentiate(
        heads, gradient, line, CORRECTIONS[correction], (True, True, True)
    )
    assert close(flowed, arrived)
    scores = weights * (change - (weights * change).sum(-1, keepdims=True)) * 0.7
    q, k, of = (t.double().numpy() for t in (heads.queries, heads.keys, gradient))
    assert close(found[0], scores @ k)
    assert close(found[1], scores.swapaxes(-1, -2) @ q)
    assert close(found[2], weights.swapaxes(-1, -2) @ of)


# ---------------------------------------------------------------------------------------------------------- their size


@pytest.mark.parametrize(
    ("whole", "row", "device", "spare", "taken"),
    [
        (MIB, 1024, CUDA, 0, MIB),  # small is never too much, and nobody asks
        (2**40, 4096, CPU, PLENTY, 2.5 * MIB),  # what stays in a cache
        (2**40, 4096, CPU, 0, 2.5 * MIB),
        (2**40, MIB, CPU, PLENTY, 64 * MIB),  # very long rows: still enough of them for a product
        (2**40, MIB, CPU, 100 * MIB, 8 * MIB),  # an eighth, as a power of two
        (2**40, MIB, CPU, 127 * MIB, 8 * MIB),  # a little more or less is the same
        (2**40, MIB, CPU, None, 64 * MIB),  # a device that does not say
        (2**40, 4096, CUDA, PLENTY, 256 * MIB),  # what keeps it busy
        (2**40, 4096, CUDA, 2**30, 128 * MIB),
        (2**40, 4096, CUDA, 5, 2.5 * MIB),
        (100 * MIB, 4096, CUDA, PLENTY, 100 * MIB),  # no more than there is
    ],
)
def test_how_large_a_block_is(whole, row, device, spare, taken, monkeypatch):
    monkeypatch.setattr(propagation, "free", lambda asked: spare if asked == device else pytest.fail("another device"))
    assert propagation.block_bytes(whole, row, device) == taken


@pytest.mark.parametrize(("spare", "most"), [(64 * MIB, 8 * MIB), (PLENTY, 64 * 280_000)])
def test_no_block_is_larger_than_that(spare, most, monkeypatch):
    """70,000 keys: a row of weights is 280 kB."""
    monkeypatch.setattr(propagation, "free", lambda device: spare)
    q, gradient = torch.randn(1, 1, 100, 2), torch.randn(1, 1, 100, 2)
    k, v = torch.randn(1, 1, 70_000, 2), torch.randn(1, 1, 70_000, 2)
    met = list(propagation.blocks(Heads(v, q, k, None, None, False, 1.0), gradient, None))
    sizes = [block.weights.nbytes for block in met]
    assert sum(sizes) == 100 * 280_000
    assert max(sizes) <= most < max(sizes) + 280_000
    assert len(sizes) == math.ceil(100 / (most // 280_000))


# ------------------------------------------------------------------------------------------------------ what is free


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine's files: 8 MiB available, and whatever groups a test writes."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "MOUNT", tmp_path / "sys")
    (tmp_path / "meminfo").write_text("MemTotal: 16384 kB\nMemAvailable:    8192 kB\n")

    def group(path, limit, taken, files, names=memory.NEW):
        place = tmp_path / "sys" / path
        place.mkdir(parents=True, exist_ok=True)
        for name, text in zip((*names[:2], "memory.stat"), (limit, taken, f"anon 5\n{names[2]} {files}"), strict=True):
            (place / name).write_text(f"{text}\n")

    return tmp_path, group


def test_what_the_machine_has_available(machine):
    folder, _ = machine
    assert memory.free(CPU) == 8 * MIB
    (folder / "groups").write_text("0::/\n")  # no limit, and no files of one
    assert memory.free(CPU) == 8 * MIB


def test_the_tightest_of_a_containers_limits(machine):
    folder, group = machine
    (folder / "groups").write_text("1:cpu:/elsewhere\n0::/pod/one\n")
    group("pod/one", "max", 1000, 0)
    assert memory.free(CPU) == 8 * MIB
    group("pod", 5000, 3000, 400)  # what its files hold makes way
    assert memory.free(CPU) == 2400
    group("pod/one", 2000, 1500, 0)
    assert memory.free(CPU) == 500
    group("pod/one", 2000, 2500, 0)
    assert memory.free(CPU) == 0


def test_the_older_form_of_such_limits(machine):
    folder, group = machine
    (folder / "groups").write_text("4:memory:/docker/seen/from/outside\n0::/\n")
    group("memory", 7000, 1000, 500, memory.OLD)
    assert memory.free(CPU) == 6500


def test_where_nothing_is_told(machine):
    folder, _ = machine
    (folder / "meminfo").unlink()
    assert memory.free(CPU) is None
    assert memory.free(META) is None


def test_an_accelerators_reserve_is_free_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert memory.free(CUDA) == 140
