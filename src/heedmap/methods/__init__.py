"""Every method, ours and the baselines alike, behind one call."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from heedmap.errors import InputError
from heedmap.methods.at_random import at_random
from heedmap.methods.bi import bi
from heedmap.methods.dix import dix
from heedmap.methods.flow import flow
from heedmap.methods.gae import gae
from heedmap.methods.gmar import gmar
from heedmap.methods.grad_eclip import grad_eclip
from heedmap.methods.gradcam import gradcam
from heedmap.methods.gradcam_attention import gradcam_attention
from heedmap.methods.heed import heed
from heedmap.methods.ig import ig
from heedmap.methods.inputxgradient import inputxgradient
from heedmap.methods.known import Method, Methods
from heedmap.methods.layercam import layercam
from heedmap.methods.lrp import lrp
from heedmap.methods.odam import FEATURES, odam
from heedmap.methods.partial_lrp import partial_lrp
from heedmap.methods.raw import raw
from heedmap.methods.rollout import rollout
from heedmap.methods.t_attr import t_attr
from heedmap.methods.tam import tam
from heedmap.methods.tis import tis
from heedmap.methods.vit_cx import vit_cx

OURS: Mapping[str, Method] = {
    "heed": Method(
        heed,
        {
            "complete": {"correction": "complete"},
            "positive": {"correction": "positive"},
            "absolute": {"correction": "absolute"},
            "positive+noise": {"correction": "positive", "noise": True},
        },
        "attention maps corrected by their gradient and rolled up, stream by stream; signed under complete",
        follows=True,
    ),
    "gae": Method(
        gae,
        {"clean": {}, "official": {"official": True}},
        "baseline (Chefer 2021): positive maps, normalised where streams read one another; official is as in its code",
        follows=True,
    ),
    "odam": Method(
        odam,
        {name: {"features": name} for name in FEATURES},
        "baseline (Zhao 2024): gradient times features of a picture that another stream reads: DETR, LXMERT",
        anywhere=False,
    ),
    "raw": Method(
        raw,
        {"mean": {}},
        "baseline: the answer's own row of the last attention weights; asks nothing of the target",
        follows=True,
    ),
    "rollout": Method(
        rollout,
        {
            "mean": {},
            "max": {"heads": "max"},
            "min": {"heads": "min"},
            "mean+plain": {"normalised": False},
            "max+discard": {"heads": "max", "discard": 0.9},
            "official": {"official": True},
        },
        "baseline (Abnar 2020): attention weights and identity multiplied up; asks nothing of the target",
        follows=True,
    ),
    "flow": Method(
        flow,
        {"mean": {}},
        "baseline (Abnar 2020): the greatest flow of attention to each token; slow; asks nothing of the target",
        anywhere=False,
    ),
    "gradcam-attention": Method(
        gradcam_attention,
        {"others": {}, "all": {"over": "all"}},
        "baseline (Chefer 2021): the last attention weights, each head weighed by its mean gradient",
        follows=True,
    ),
    "gradcam": Method(
        gradcam,
        {"tokens": {}},
        "baseline (Selvaraju 2017): features of tokens at the last attention, weighed by their mean gradient",
        anywhere=False,
        follows=True,
    ),
    "layercam": Method(
        layercam,
        {"tokens": {}},
        "baseline (Jiang 2021): features of tokens at the last attention times their positive gradient",
        anywhere=False,
        follows=True,
    ),
    "gmar": Method(
        gmar,
        {"l1": {}, "l2": {"norm": "l2"}},
        "baseline (Jo 2025): rollout in which a head counts by the size of its gradient",
        follows=True,
    ),
    "tam": Method(
        tam,
        {"upper": {}, "all": {"first": 0}},
        "baseline (Yuan 2021): a chain of attention weights times the last one's gradient along a path to the input",
        anywhere=False,
    ),
    "dix": Method(
        dix,
        {"clean": {}, "official": {"official": True}},
        "baseline (Barkan 2023): positive maps averaged while the last attention grows from nothing, rolled out",
        anywhere=False,
        follows=True,
    ),
    "bi": Method(
        bi,
        {"head-wise": {"by": "head"}, "token-wise": {"by": "token"}},
        "baseline (Chen 2023): attention weighed by heads or by tokens, times its gradient along a path to the input",
        anywhere=False,
    ),
    "vit-cx": Method(
        vit_cx,
        {"clean": {}},
        "baseline (Xie 2023): what masks made of a ViT's own features are worth; forward only; scores pixels",
        anywhere=False,
    ),
    "tis": Method(
        tis,
        {"drop": {"form": "drop"}, "noise": {"form": "noise"}},
        "baseline (Englebert 2023): a ViT given half its patches, a thousand times over; forward only; slow",
        anywhere=False,
    ),
    "grad-eclip": Method(
        grad_eclip,
        {"one-head": {"form": "one-head"}, "official": {"form": "official"}, "multi-head": {"form": "multi-head"}},
        "baseline (Zhao 2024): values of the last attention, taken as one head, by their gradient and likeness",
        anywhere=False,
        follows=True,
    ),
    "ig": Method(
        ig,
        {"zero": {}},
        "anchor (Sundararajan 2017): gradients of the input along a path to it; signed; of a picture every pixel",
        anywhere=False,
        follows=True,
    ),
    "inputxgradient": Method(
        inputxgradient,
        {"sum": {}},
        "anchor: input times gradient, summed over channels; signed; of a picture every pixel",
        anywhere=False,
        follows=True,
    ),
    "lrp": Method(
        lrp,
        {"ours": {}, "orig": {"rules": "orig"}},
        "baseline (Bach 2015): relevance handed backward by rules, to tokens and pixels; signed; patented in part",
        anywhere=False,
        follows=True,
    ),
    "partial-lrp": Method(
        partial_lrp,
        {"ours": {}, "orig": {"rules": "orig"}, "signed": {"signed": True}},
        "baseline (Voita 2019): relevance of the last attention weights by the rules of lrp; patented in part",
        anywhere=False,
        follows=True,
    ),
    "t-attr": Method(
        t_attr,
        {"ours": {}, "orig": {"rules": "orig"}, "official": {"start": 1}},
        "baseline (Chefer 2021a): relevance of attention weights by lrp, times gradient, rolled up; patented in part",
        anywhere=False,
        follows=True,
    ),
    "random": Method(
        at_random,
        {"signed": {}, "unsigned": {"signed": False}},
        "anchor: a random number for every token, the same whatever is asked",
        follows=True,
    ),
}
METHODS = Methods(OURS)


def method(text: str) -> tuple[str, Method, dict[str, Any]]:
    """The method that a string such as "heed:positive+noise" names, and the options it stands for."""
    if not isinstance(text, str):
        raise InputError(f"method is {text!r}. heedmap expected a name; the methods are {', '.join(METHODS)}.")
    name, _, variant = text.partition(":")
    if name not in METHODS:
        near = get_close_matches(name.lower(), METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"No method is called {name!r}. The methods are {', '.join(METHODS)}.{hint}")
    chosen = METHODS[name]
    if not variant:
        return name, chosen, {}
    if variant not in chosen.variants:
        raise InputError(f"Method {name!r} has no variant {variant!r}. Its variants are {', '.join(chosen.variants)}.")
    return name, chosen, dict(chosen.variants[variant])
