"""GAE against its authors' generators, restated densely, and against the laws that its rules obey."""

import copy

import numpy as np
import pytest
import torch
from builders import BY_NAME, CLASSES, FAMILIES, Family
from dense import attention_map, record
from generators import CLEAN, Rules, detr, lxmert
from runs import dense_run, distance, lifted, model_of
from torch import nn

import heedmap
from heedmap import logit
from heedmap.errors import InputError
from heedmap.methods.gae import _relevance, _shared
from heedmap.records import Call, State, Wiring

GENERATORS = {  # stream read into, stream read out, the generator, and its layers
    "detr": ("image", "queries", detr, (2, 2)),
    "t5": ("text", "decoder", detr, (2, 2)),
    "bart": ("text", "decoder", detr, (2, 2)),
    "whisper": ("text", "decoder", detr, (2, 2)),
    "nn-transformer": ("source", "target", detr, (2, 2)),
    "lxmert": ("image", "text", lxmert, (2, 1, 2)),
}
ONE_STREAM = [family.name for family in FAMILIES if len({step.reading for step in family.steps}) == 1]


def explained(family: Family, method: str, batch: int = 3) -> heedmap.Explanation:
    model, inputs = model_of(family.name), lifted(family.inputs(batch), torch.float64)
    torch.manual_seed(0)
    return heedmap.explain(model, inputs, family.ask, method=method, verify="always")


def generated(family: Family, rules: Rules, batch: int = 3) -> dict[str, np.ndarray]:
    """The answer's rows of what was added, stream by stream, one example after the other."""
    read, reading, generator, layers = GENERATORS[family.name]
    run = dense_run(family.name, batch)
    maps = [attention_map(a, g, "positive") for a, g in zip(run.weights, run.gradients, strict=True)]
    norms = run.row_norms[family.ends[0]]
    rows = {read: [], reading: []}
    for example in range(batch):
        across, within = generator([each[example] for each in maps], *layers, rules)
        weights = norms[example] / norms[example].sum()
        rows[read].append(weights @ across)
        rows[reading].append(weights @ (within - np.eye(len(within))))
    return {stream: np.stack(each) for stream, each in rows.items()}


def off(e: heedmap.Explanation, family: Family, true: dict[str, np.ndarray]) -> dict[str, float]:
    names = {e[stream].shape[1]: stream for stream in e.streams}
    assert {family.tokens[stream] for stream in true} == names.keys()
    return {stream: distance(e[names[family.tokens[stream]]].numpy(), rows) for stream, rows in true.items()}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", GENERATORS)
def test_as_the_authors_generators(name, batch):
    family = BY_NAME[name]
    found = off(explained(family, "gae", batch), family, generated(family, CLEAN, batch))
    assert max(found.values()) <= 1e-9, found


@pytest.mark.parametrize("name", GENERATORS)
def test_the_row_is_what_was_added_and_the_start(name):
    e = explained(BY_NAME[name], "gae")
    ours = explained(BY_NAME[name], "heed:positive")
    assert e.streams == ours.streams
    assert e.readout == ours.readout
    assert all(torch.equal(e.starts[stream], ours.starts[stream]) for stream in e.streams)
    assert all(torch.equal(e.row(stream), e[stream] + e.starts[stream]) for stream in e.streams)
    assert all((e[stream] >= 0).all() for stream in e.streams)


@pytest.mark.parametrize("name", GENERATORS)
def test_ours_is_gae_without_rules_8_and_9_and_with_rule_10_made_plain(name):
    """heterogenous-attention, section 4."""
    family = BY_NAME[name]
    plain = generated(family, Rules(plain=True))
    found = off(explained(family, "heed:positive"), family, plain)
    assert max(found.values()) <= 1e-9, found
    assert max(off(explained(family, "gae"), family, plain).values()) > 0.01, "rules 8 to 10 say something else"


@pytest.mark.parametrize("variant", ["clean", "official"])
@pytest.mark.parametrize("name", ONE_STREAM)
def test_one_stream_is_the_positive_correction(name, variant):
    """Of one stream only rules 5 and 6 are left."""
    family = BY_NAME[name]
    e, ours = explained(family, f"gae:{variant}"), explained(family, "heed:positive")
    assert e.streams == ours.streams
    for stream in e.streams:
        assert distance(e[stream].numpy(), ours[stream].numpy()) <= 1e-12
        assert torch.equal(e.starts[stream], ours.starts[stream])


def test_two_towers_are_each_by_themselves():
    family = BY_NAME["clip"]
    inputs = lifted(family.inputs(1), torch.float64)
    e, ours = (heedmap.explain(model_of("clip"), inputs, family.ask, method=name) for name in ("gae", "heed:positive"))
    for stream in ours.streams:
        assert distance(e[stream].numpy(), ours[stream].numpy()) <= 1e-12


def test_declared_rows_are_read_out():
    family = BY_NAME["lxmert"]
    inputs = lifted(family.inputs(3), torch.float64)
    readout = heedmap.Readout("visual_feats", after=2, rows="all")
    e, ours = (
        heedmap.explain(model_of("lxmert"), inputs, logit(1), method=name, readout=readout)
        for name in ("gae", "heed:positive")
    )
    assert e.streams == ours.streams == ("visual_feats",)
    assert distance(e["visual_feats"].numpy(), ours["visual_feats"].numpy()) <= 1e-12
    assert e.readout == ours.readout


def test_weights_can_be_replaced():
    model, inputs = model_of("vit"), lifted(BY_NAME["vit"].inputs(1), torch.float64)
    edits = {1: heedmap.weights(model, inputs)[1].flip(-1)}
    e, ours = (
        heedmap.explain(model, inputs, logit(3), method=name, edits=edits)["pixel_values"]
        for name in ("gae", "heed:positive")
    )
    assert distance(e.numpy(), ours.numpy()) <= 1e-12
    plain = heedmap.explain(model, inputs, logit(3), method="gae")["pixel_values"]
    assert distance(e.numpy(), plain.numpy()) > 0.01


@pytest.mark.parametrize("given", [{"correction": "complete"}, {"noise": True}])
def test_what_it_does_not_take_is_refused(given):
    with pytest.raises(InputError, match=rf"Method 'gae' takes no {next(iter(given))}\. Leave it out"):
        heedmap.explain(
            model_of("vit"), lifted(BY_NAME["vit"].inputs(1), torch.float64), logit(1), method="gae", **given
        )


# ------------------------------------------------------------------------------------------- where rule 9 divides by 0


class Small(nn.Module):
    """An encoder of one layer and a decoder of one, one head: the weights of a whole row are easily of one sign."""

    def __init__(self, decodes: bool = True):
        super().__init__()
        self.source, self.own, self.across = (nn.Linear(8, 24) for _ in range(3))
        self.decodes = decodes
        self.head = nn.Linear(8, CLASSES)

    def forward(self, source, target):
        def attend(project, x, y):
            queries, keys, values = project.weight.chunk(3)
            weights = ((x @ queries.T) @ (y @ keys.T).transpose(1, 2) / 8**0.5).softmax(-1)
            return x + weights @ (y @ values.T)

        source = attend(self.source, source, source)
        if self.decodes:
            target = attend(self.own, target, target)
        return self.head(attend(self.across, target, source).mean(1))


def small(decodes: bool = True) -> nn.Module:
    torch.manual_seed(3)
    return Small(decodes).double().eval()


def many(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(count, n, 8, generator=generator, dtype=torch.float64)
            for name, n in (("source", 5), ("target", 3))}  # fmt: skip


def test_a_row_of_zeros_stays_zero_or_drops_the_call_as_the_official_code_does():
    model, inputs = small(), many(24)
    run = record(model, inputs, lambda output: output[:, 1])
    maps = [attention_map(a, g, "positive") for a, g in zip(run.weights, run.gradients, strict=True)]
    empty = np.array([any(not row.any() for each in maps[:2] for row in each[example]) for example in range(24)])
    assert 0 < empty.sum() < 24, "some examples divide by 0, some do not"
    share = run.row_norms[2] / run.row_norms[2].sum(1, keepdims=True)
    for name, rules in (("gae", CLEAN), ("gae:official", Rules(official=True))):
        e = heedmap.explain(model, inputs, logit(1), method=name)
        for example in range(24):
            across, within = detr([each[example] for each in maps], 1, 1, rules)
            found = {stream: e[stream][example].numpy() for stream in e.streams}
            true = {"source": share[example] @ across, "target": share[example] @ (within - np.eye(3))}
            assert max(np.abs(found[stream] - true[stream]).max() for stream in true) <= 1e-9 * np.abs(within).max()
        said = e["source"].any(1).numpy()
        assert said[~empty].any()
        assert said[empty].any() == (name == "gae"), "a row of zeros drops the whole call from the official map"


def test_a_stream_that_never_read_itself_has_nothing_to_divide():
    model, inputs = small(decodes=False), many(3)
    clean, official = (heedmap.explain(model, inputs, logit(1), method=name) for name in ("gae", "gae:official"))
    assert clean["source"].any(1).all()
    assert not official["source"].any()
    assert set(official.streams) == set(clean.streams)


@pytest.mark.parametrize("name", ["detr", "lxmert", "t5"])
def test_official_does_not_count_what_the_answer_cannot_hear(name):
    """Each padded example as it is when its padding is cut off: nothing was dropped for rows that are padding."""
    family = BY_NAME[name]
    true = generated(family, CLEAN)
    found = off(explained(family, "gae:official"), family, true)
    assert max(found.values()) <= 1e-9, found
    if name != "detr":
        dropped = generated(family, Rules(official=True))
        assert not dropped[GENERATORS[name][0]][0].any(), "the padding itself would be rows of zeros"


def test_a_trained_detector_as_the_official_code_has_it():
    """Its first decoder layer's queries have one value between them: rows of one sign, and some that rule 5 empties."""
    from heedmap import menagerie

    detector = heedmap.load("zoo:detr")
    module = copy.deepcopy(detector.module).double()
    dropped = []
    for seed in (700_000, 700_001, 700_002):
        inputs, _ = detector.inputs(menagerie.scene(["zebra", "elephant"], seed=seed).image)
        inputs = lifted(inputs, torch.float64)
        with torch.no_grad():
            logits = module(**inputs).logits[0]
        for query in logits.softmax(-1)[:, :-1].amax(-1).topk(2).indices.tolist():
            index = int(logits[query, :-1].argmax())
            run = record(module, inputs, lambda output, q=query, i=index: output.logits[:, q, i])
            maps = [attention_map(a, g, "positive")[0] for a, g in zip(run.weights, run.gradients, strict=True)]
            clean, official = (detr(maps, 2, 3, rules)[0][query] for rules in (CLEAN, Rules(official=True)))
            target = logit(index, query=query)
            for method, true in (("gae", clean), ("gae:official", official)):
                e = heedmap.explain(module, inputs, target, method=method)
                assert distance(e["pixel_values"].numpy(), true[None]) <= 1e-9
            dropped.append(distance(official[None], clean[None]) > 1e-6)
    assert set(dropped) == {True, False}


# ------------------------------------------------------------------------------------------- laws


def wired(*steps: str) -> Wiring:
    """Calls such as "s<-q", each reading the streams as they stand."""
    tokens, last, calls = {"s": 3, "q": 5}, {}, []
    for index, step in enumerate(steps):
        reading, read = step.split("<-")
        states = [State(stream, last.get(stream)) for stream in (reading, read)]
        calls.append(Call(index, "", "", *states, tokens[reading], tokens[read], 1, "A"))
        last[reading] = index
    return Wiring(tuple(calls), tokens)


def drawn(wiring: Wiring, seed: int = 0) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        call.index: torch.rand(2, call.queries, call.keys, generator=generator, dtype=torch.float64)
        for call in wiring.calls
    }


def test_gradient_one_is_the_rollout():
    wiring = wired(*["s<-s"] * 4)
    maps = {index: each / each.sum(-1, keepdim=True) for index, each in drawn(wiring).items()}
    rolled = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    for index in range(4):
        rolled = (torch.eye(3, dtype=torch.float64) + maps[index]) / 2 @ rolled
    r = torch.eye(3, dtype=torch.float64) + _relevance(wiring, maps, None)[State("s", 3)]["s"]
    assert torch.allclose(r, 2**4 * rolled, rtol=1e-12)


@pytest.mark.parametrize("official", [False, True])
def test_no_positive_gradient_adds_nothing(official):
    wiring = wired("s<-s", "q<-q", "s<-q", "s<-s")
    maps = {index: torch.zeros_like(each) for index, each in drawn(wiring).items()}
    heard = {name: torch.ones(2, n, dtype=torch.bool) for name, n in wiring.tokens.items()} if official else None
    held = _relevance(wiring, maps, heard)[State("s", 3)]
    assert set(held) == {"s", "q"}
    assert not any(each.any() for each in held.values())


def test_normalised_rows_sum_to_two():
    added = drawn(wired("s<-s"))[0]
    assert torch.allclose(_shared(added).sum(-1) + 1, torch.full((2, 3), 2.0, dtype=torch.float64))
    added[:, 1] = 0
    assert torch.allclose(_shared(added).sum(-1), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))


def test_a_cross_call_that_gives_nothing_leaves_nothing():
    wiring = wired("q<-q", "s<-s", "s<-q", "s<-s")
    maps = drawn(wiring)
    maps[2] = torch.zeros_like(maps[2])
    assert not _relevance(wiring, maps, None)[State("s", 3)]["q"].any()


def test_the_comparison_can_fail():
    family = BY_NAME["detr"]
    run = dense_run("detr", 3)
    gradients = [*run.gradients]
    gradients[3] = gradients[3] * (1 + 1e-6)
    maps = [attention_map(a, g, "positive") for a, g in zip(run.weights, gradients, strict=True)]
    rows = np.stack([detr([each[example] for each in maps], 2, 2)[0][2] for example in range(3)])
    e = explained(family, "gae")
    assert distance(e["pixel_values"].numpy(), rows) > 1e-9
