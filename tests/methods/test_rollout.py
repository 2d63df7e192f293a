"""Raw attention, rollout and GMAR: against whole matrices, and by what is known of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from builders import BY_NAME, FAMILIES
from dense import share_of_rows
from readings import fused, gmar, heard, last_steps, read, rollout, thinned
from runs import dense_run, distance, lifted, model_of

import heedmap
from heedmap import logit
from heedmap.errors import InputError
from heedmap.methods import dense
from heedmap.methods.gmar import weighed
from heedmap.methods.rollout import kept
from heedmap.records import Call, State, Wiring

NAMES = [family.name for family in FAMILIES]
ROLLOUTS = {
    "rollout": ("mean", 0.0, True),
    "rollout:max": ("max", 0.0, True),
    "rollout:min": ("min", 0.0, True),
    "rollout:mean+plain": ("mean", 0.0, False),
    "rollout:max+discard": ("max", 0.9, True),
}
SEVERAL = ["vit", "bert", "detr", "lxmert", "t5", "clip", "hand-one-head"]


def explained(name: str, method: str, batch: int = 3) -> heedmap.Explanation:
    family = BY_NAME[name]
    torch.manual_seed(0)
    return heedmap.explain(model_of(name), lifted(family.inputs(batch), torch.float64), family.ask, method=method)


def readings(name: str) -> list[tuple[str, np.ndarray]]:
    family, run = BY_NAME[name], dense_run(name, 3)
    return [(family.steps[end].reading, share_of_rows(run.row_norms[end])) for end in family.ends]


def off(e: heedmap.Explanation, name: str, rows: dict, starts: dict | None = None) -> float:
    """Every stream of the explanation, which a number of tokens tells, against its true row and start."""
    names = {e[stream].shape[1]: stream for stream in e.streams}
    found = []
    for stream, n in BY_NAME[name].tokens.items():
        if stream in rows and n in names:
            found.append(distance(e.row(names[n]).numpy(), rows[stream]))
            start = np.zeros_like(rows[stream]) if starts is None else starts.get(stream, np.zeros_like(rows[stream]))
            found.append(distance(e.starts[names[n]].numpy(), start))
    assert len(found) == 2 * len(e.streams)
    return max(found)


@pytest.mark.parametrize("name", NAMES)
def test_rollout_is_the_row_of_whole_matrices(name):
    family, run = BY_NAME[name], dense_run(name, 3)
    e = explained(name, "rollout")
    j, stays = rollout([fused(a) for a in run.weights], family.steps, family.tokens)
    assert off(e, name, *read(j, stays, readings(name))) <= 1e-9


@pytest.mark.parametrize("method", ROLLOUTS)
@pytest.mark.parametrize("name", SEVERAL)
def test_each_form_of_rollout(name, method):
    how, discard, normalised = ROLLOUTS[method]
    family, run = BY_NAME[name], dense_run(name, 3)
    e = explained(name, method)
    hears = heard(run.weights, family.steps, readings(name))
    maps = [
        thinned(fused(a, how), a, hears[step.reading], discard)
        for a, step in zip(run.weights, family.steps, strict=True)
        if step.reading in hears
    ]
    steps = [step for step in family.steps if step.reading in hears]
    j, stays = rollout(maps, steps, family.tokens, normalised)
    assert off(e, name, *read(j, stays, readings(name))) <= 1e-9
    assert e.method == (method if ":" in method else "rollout:mean")


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("name", SEVERAL)
def test_gmar_is_rollout_of_weighed_heads(name, norm):
    family, run = BY_NAME[name], dense_run(name, 3)
    e = explained(name, f"gmar:{norm}")
    maps = [gmar(a, g, norm) for a, g in zip(run.weights, run.gradients, strict=True)]
    j, stays = rollout(maps, family.steps, family.tokens)
    assert off(e, name, *read(j, stays, readings(name))) <= 1e-9
    if name != "hand-one-head":
        assert not torch.allclose(e[e.streams[0]], explained(name, "rollout")[e.streams[0]], rtol=1e-3)


@pytest.mark.parametrize("name", [*SEVERAL, "siglip", "whisper", "llama-padded"])
def test_raw_is_the_answers_row_of_the_last_maps(name):
    family, run = BY_NAME[name], dense_run(name, 3)
    e = explained(name, "raw")
    rows = {}
    for reading, weights in readings(name):
        for stream, index in last_steps(family.steps, reading).items():
            rows[stream] = np.einsum("bi,bij->bj", weights, run.weights[index].mean(1))
    assert off(e, name, rows) <= 1e-9
    assert all(torch.allclose(e[stream].sum(-1), e[stream].new_ones(3)) for stream in e.streams)


def chain(maps: list, *indices: int) -> np.ndarray:
    """(A + I) / 2 of some calls, the first of them on the right."""
    product = np.eye(maps[indices[0]].shape[-1])
    for index in indices:
        product = (maps[index] + np.eye(product.shape[-1])) / 2 @ product
    return product


def test_official_detr():
    maps, e = [fused(a) for a in dense_run("detr", 3).weights], explained("detr", "rollout:official")
    true = chain(maps, 2, 4).transpose(0, 2, 1) @ maps[5] @ chain(maps, 0, 1)
    assert distance(e["pixel_values"].numpy(), true[:, 2]) <= 1e-9
    assert distance(e.row(e.streams[1]).numpy(), chain(maps, 2, 4)[:, 2]) <= 1e-9


def test_official_lxmert():
    maps, e = [fused(a) for a in dense_run("lxmert", 3).weights], explained("lxmert", "rollout:official")
    words = np.arange(7) < np.array([5, 7, 4])[:, None]  # the code knows no padding: it is as if cut off
    true = (chain(maps, 0, 1, 5)[:, :, 0] * words)[:, None] @ maps[7] @ chain(maps, 2, 6)
    assert distance(e["visual_feats"].numpy(), true[:, 0]) <= 1e-9
    assert distance(e.row("input_ids").numpy(), chain(maps, 0, 1, 5, 9)[:, 0]) <= 1e-9


def test_official_is_rollout_where_one_stream_reads_itself():
    e, plain = explained("vit", "rollout:official"), explained("vit", "rollout")
    assert torch.allclose(e["pixel_values"], plain["pixel_values"], rtol=1e-12)
    assert torch.allclose(e.starts["pixel_values"], plain.starts["pixel_values"], rtol=1e-12)


def test_plain_is_two_to_the_number_of_calls_times_as_much():
    plain, e = explained("vit", "rollout:mean+plain"), explained("vit", "rollout")
    assert torch.allclose(plain.row("pixel_values"), 2**2 * e.row("pixel_values"), rtol=1e-12)


@pytest.mark.parametrize("method", ["raw", "rollout", "rollout:official", "flow", "gmar:l2"])
@pytest.mark.parametrize("name", ["vit", "bert", "lxmert"])
def test_an_example_is_the_same_alone(name, method):
    if method == "flow" and name == "lxmert":
        return
    family, together = BY_NAME[name], explained(name, method)
    for i in range(3):
        inputs = {key: x[i : i + 1] for key, x in lifted(family.inputs(3), torch.float64).items()}
        ask = dataclasses.replace(family.ask, index=family.ask.index[i:])
        alone = heedmap.explain(model_of(name), inputs, ask, method=method)
        assert all(torch.allclose(alone[s][0], together[s][i], rtol=1e-9) for s in together.streams)


def test_several_targets_are_as_each_by_itself():
    model, inputs = model_of("lxmert"), lifted(BY_NAME["lxmert"].inputs(2), torch.float64)
    for method in ("raw", "rollout", "gmar"):
        several = heedmap.explain_each(model, inputs, [logit(1), logit(2)], method=method)
        for e, target in zip(several, (logit(1), logit(2)), strict=True):
            alone = heedmap.explain(model, inputs, target, method=method)
            assert all(torch.equal(e[stream], alone[stream]) for stream in e.streams)


@pytest.mark.parametrize("method", ["raw", "rollout", "gmar", "gradcam-attention"])
def test_declared_rows_and_edited_weights(method):
    model, inputs = model_of("lxmert"), lifted(BY_NAME["lxmert"].inputs(2), torch.float64)
    readout = heedmap.Readout("visual_feats", after=2, rows=1)
    e = heedmap.explain(model, inputs, logit(1), method=method, readout=readout)
    assert e.streams == ("visual_feats",)
    edits = {2: heedmap.weights(model, inputs)[2].flip(-1)}
    edited = heedmap.explain(model, inputs, logit(1), method=method, readout=readout, edits=edits)
    if method == "raw":
        assert torch.allclose(edited["visual_feats"], e["visual_feats"].flip(-1))
    assert not torch.allclose(edited["visual_feats"], e["visual_feats"], equal_nan=True)


# ------------------------------------------------------------------------------------------- laws


def stack(depth: int, tokens: int) -> tuple[Wiring, State]:
    calls = tuple(
        Call(i, "", "", State("s", i - 1 if i else None), State("s", i - 1 if i else None), tokens, tokens, 1, "A")
        for i in range(depth)
    )
    return Wiring(calls, {"s": tokens}), State("s", depth - 1)


def rolled_up(map: torch.Tensor, depth: int) -> torch.Tensor:
    """The row of token 0."""
    wiring, end = stack(depth, map.shape[-1])
    row = torch.eye(map.shape[-1], dtype=torch.float64)[None, 0]
    flow, start = dense.rolled(wiring, dict.fromkeys(range(depth), map), {end: row}, normalised=True)
    return (flow["s"] + start["s"])[0]


@pytest.mark.parametrize("depth", [1, 3, 12])
def test_uniform_attention(depth):
    row = rolled_up(torch.full((1, 10, 10), 0.1, dtype=torch.float64), depth)
    assert torch.allclose(row[1:], row.new_tensor((1 - 2.0**-depth) / 10), rtol=1e-14)
    assert torch.allclose(row[0], row.new_tensor((1 - 2.0**-depth) / 10 + 2.0**-depth), rtol=1e-14)


def test_attention_to_oneself_stays_there():
    assert torch.equal(rolled_up(torch.eye(4, dtype=torch.float64)[None], 5), torch.eye(4, dtype=torch.float64)[0])


def test_what_no_token_hears_stays_where_it_is():
    assert torch.equal(rolled_up(torch.zeros(1, 4, 4, dtype=torch.float64), 3), torch.eye(4, dtype=torch.float64)[0])


def test_the_first_calls_may_be_left_out():
    wiring, end = stack(3, 4)
    maps = {i: torch.rand(1, 4, 4, dtype=torch.float64) for i in (1, 2)}
    flow, start = dense.rolled(wiring, maps, {end: torch.ones(1, 4, dtype=torch.float64)})
    true = torch.ones(1, 4, dtype=torch.float64) @ (torch.eye(4) + maps[2]) @ (torch.eye(4) + maps[1])
    assert torch.allclose((flow["s"] + start["s"]), true[0])


def test_discarding_keeps_the_highest_of_what_counts():
    map, counts = torch.arange(1.0, 11).view(1, 2, 5), torch.ones(1, 2, 5, dtype=torch.bool)
    assert kept(map, counts, 0.8)[0].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 9, 10]]
    counts[0, 1] = False
    assert kept(map, counts, 0.8)[0].tolist() == [[0, 0, 0, 0, 5], [6, 7, 8, 9, 10]]
    assert torch.equal(kept(map, counts, 0.0), map)


def test_heads_whose_gradients_are_of_one_size_count_the_same():
    weights, signs = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4).sub(0.5).sign()
    for norm in ("l1", "l2"):
        assert torch.allclose(weighed(weights, 0.3 * signs, norm), weights.mean(1))
        assert torch.allclose(weighed(weights, torch.zeros_like(weights), norm), weights.mean(1))
        one = torch.zeros_like(weights)
        one[:, 1] = -2.0
        assert torch.allclose(weighed(weights, one, norm), weights[:, 1])


def test_what_it_cannot_do_is_said():
    from heedmap.methods.gmar import gmar as run_gmar
    from heedmap.methods.rollout import rollout as run_rollout

    for run, given in ((run_rollout, {"heads": "sum"}), (run_rollout, {"discard": 1.0}), (run_gmar, {"norm": "l3"})):
        with pytest.raises(InputError, match=repr(next(iter(given.values())))):
            run(model_of("vit"), BY_NAME["vit"].inputs(1), [logit(1)], **given)
