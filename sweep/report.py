"""The page: what became of every class, and of those refused, why."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from .refusals import Group, group
from .trying import SINGLE_TOLERANCE, TOLERANCE, Tried

STATUSES = {
    "equal": "explained, and equal to the oracle",
    "moved": "explained, tokens moved between calls, and equal to the oracle",
    "differs": "explained, and **not** equal to the oracle",
    "not compared": "explained, not compared",
    "refused": "refused",
    "failed": "**failed** with an error that is not one of heedmap's",
    "no attention": "without attention that heedmap knows",
    "not built": "not built",
}
EQUAL = {"equal": "equal", "moved": "equal, moved"}


def page(tried: Sequence[Tried], seconds: float, workers: int) -> str:
    """The whole page, as Markdown."""
    counted = Counter(each.status for each in tried)
    types = Counter(status for status, _ in {(each.status, each.model_type) for each in tried})
    lines = ["# The sweep", "", *_about(tried, counted, types, seconds, workers), ""]
    lines += ["| what became of it | classes | model types |", "| --- | ---: | ---: |"]
    lines += [f"| {text} | {counted[status]} | {types[status]} |" for status, text in STATUSES.items()]
    lines += ["", *_explained(tried), *_refused(tried)]
    others = {
        "failed": "Failed",
        "not compared": "Explained, not compared",
        "no attention": "Without attention that heedmap knows",
        "not built": "Not built",
    }
    for status, title in others.items():
        lines += _grouped(title, [each for each in tried if each.status == status], ABOUT[status])
    return "\n".join(lines).rstrip() + "\n"


ABOUT = {
    "failed": "An error that heedmap did not raise on purpose is a bug of it.",
    "not compared": "heedmap gave a map, and the oracle has none to hold it against.",
    "no attention": (
        "Convolutions, state spaces, Fourier transforms; and attention that a tiny configuration replaces by another "
        "kind of layer, or that is written in a form which no seam knows."
    ),
    "not built": (
        "No tiny configuration was found by the rules of `sweep/configuring.py`, or no input by those of "
        "`sweep/feeding.py`; or a package is needed that is not installed. It says nothing about heedmap."
    ),
}


def _about(tried: Sequence[Tried], counted: Counter, types: Counter, seconds: float, workers: int) -> list[str]:
    equal = [each for each in tried if each.status in EQUAL]
    single = [each for each in equal if each.short is not None]
    worst = max((each.difference or 0.0 for each in equal), default=0.0)
    alone = sum(on_words_alone(each) for each in equal)
    blind = sum((each.short or 0.0) <= (SINGLE_TOLERANCE if each.single else TOLERANCE) for each in single)
    return [
        f"**{len(equal)} of {len(tried)} model classes are explained and equal to the oracle** "
        f"({len({each.model_type for each in equal})} model types; in {counted['moved']} classes tokens are moved "
        f"between calls), {counted['refused']} are refused, {counted['differs']} differ.",
        "",
        f"torch {version('torch')}, transformers {version('transformers')}, {datetime.date.today().isoformat()}; "
        f"{seconds / 60:.0f} minutes in {workers} processes. `make sweep` writes this page; "
        "`python -m sweep --only 'Bert*' vit` tries a few.",
        "",
        "Every model class that the auto tables of transformers name is built from its configuration, made tiny, with "
        "random weights of a large spread; nothing is downloaded. One number is explained, on the attention the model "
        "has by default: a logit of the last row, or a fixed random direction of the last row's state. The oracle "
        "(`sweep/oracle.py`) takes nothing from heedmap. It runs the model on eager attention, keeps all weights and "
        "their gradients, follows every token through the graph by one vector-Jacobian product for each row, and "
        "multiplies full matrices forward. Where several tokens became one it shares out by the target's gradient, as "
        "[heedmap says it does](how-it-works.md#tokens-that-are-moved); where tokens are moved, those of an input are "
        "compared in the order of their places in it (`sweep/places.py`). *Equal*: every entry of every stream "
        "within 1e-5 of the largest entry in float64, within 1e-3 where a model runs in float32 alone. "
        f"The largest difference among the equal ones is {worst:.1e}. "
        f"Leaving the first call out of the oracle would be told in all but {blind} of them.",
        "",
        f"What a class was given is not always all that it takes: {alone} of the equal ones could see or hear, but "
        "were given words alone (marked *words*). A class with another "
        "head on the same body counts as a class of its own.",
    ]


def on_words_alone(each: Tried) -> bool:
    """Whether a class takes pictures or sounds and was given none."""
    return each.senses and not re.search(r"pixel|image|features|values|audio|patches", each.given)


def _explained(tried: Sequence[Tried]) -> list[str]:
    """A row for the classes of a type that were alike: in status, calls and streams."""
    rows: dict[tuple, list[Tried]] = {}
    for each in tried:
        if each.status in (*EQUAL, "differs"):
            told = EQUAL.get(each.status, "**differs**")
            told += ", *words*" if each.status != "differs" and on_words_alone(each) else ""
            told += ", float32" if each.single else ""
            rows.setdefault((each.model_type, told, each.calls, each.streams), []).append(each)
    lines = [
        "## Explained and compared",
        "",
        "| model type | classes | status | calls | streams | largest difference |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for (model_type, told, calls, streams), members in rows.items():
        largest = max(each.difference or 0.0 for each in members)
        lines.append(f"| {model_type} | {_names(members)} | {told} | {calls} | {streams} | {largest:.0e} |")
    return [*lines, ""]


def _refused(tried: Sequence[Tried]) -> list[str]:
    refused = [each for each in tried if each.status == "refused"]
    groups: dict[Group, list[Tried]] = {}
    for each in refused:
        groups.setdefault(group(each), []).append(each)
    told = sum(bool(each.declared) for each in refused)
    held, apart = (sum(text in each.declared for each in refused) for text in ("equal to the oracle", "**not**"))
    lines = [
        "## Refused",
        "",
        "[What is refused, and how to declare it](how-it-works.md#what-is-refused-and-how-to-declare-it). What the "
        f"messages ask for was declared, one after the other: {told} of {len(refused)} are explained then, from where "
        f"the declared walk ends; {held} of these were held against the oracle that begins there too, {apart} differ. "
        "The example is the beginning of one class's message.",
        "",
    ]
    for one, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines += [
            f"### {one.title}: {len(members)}",
            "",
            " ".join(one.why.split()),
            "",
            f"*What to declare.* {' '.join(one.declare.split())}",
            "",
            f"{members[0].name}: “{_plain(members[0].why)}”",
            "",
            *_declared(members),
            "",
        ]
    return lines


def _declared(members: Sequence[Tried]) -> list[str]:
    """The classes by what was declared of them."""
    alike: dict[str, list[Tried]] = {}
    for each in members:
        alike.setdefault(each.declared, []).append(each)
    return [
        f"* {_names(some)}: {'explained with ' + what if what else 'no declaration was found'}"
        for what, some in sorted(alike.items(), key=lambda item: (not item[0], item[0]))
    ]


def _grouped(title: str, members: Sequence[Tried], about: str) -> list[str]:
    if not members:
        return []
    groups: dict[str, list[Tried]] = {}
    for each in members:
        groups.setdefault(_reason(each), []).append(each)
    lines = [f"## {title}: {len(members)}", "", about, ""]
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines += [f"* {reason + ': ' if reason else ''}{_names(some)}" for reason, some in ordered]
    return [*lines, ""]


def _reason(each: Tried) -> str:
    """A reason short enough that alike ones come together."""
    why = _plain(each.why)
    if each.status == "no attention":
        return ""
    if found := re.search(r"requires the (\S+) library", why):
        return f"needs {found[1]}"
    if each.status == "failed":
        return f"{each.error}: {why[:80]}"
    return re.sub(r"\d+", "n", why)[:90] if each.status == "not compared" else _first(why)


def _first(why: str) -> str:
    """Of an error of a model, what kind it is."""
    for name, pattern in (
        ("too large, or too slow", r"not tiny|not done in|ended by|MemoryError|allocate"),
        (
            "inputs of its own",
            r"missing \d+ required|takes none|must be provided|You have to specify|need to be|expects",
        ),
        (
            "a configuration that does not hold together when made small",
            r"ValidationError|must be divisible|divisible by",
        ),
        ("shapes that do not fit each other when made small", r"size|shape|dimension|groups=|split|expected"),
        ("no number of the output has a gradient", r"no number of the output"),
        ("it cannot be imported", r"^import"),
    ):
        if re.search(pattern, why):
            return name
    return "another error of the model, its configuration made small"


def _names(members: Iterable[Tried]) -> str:
    return ", ".join(each.name for each in members)


def _plain(text: str) -> str:
    text = " ".join(text.split())
    return (text[:200] + " ...").replace("|", "/") if len(text) > 200 else text.replace("|", "/")
