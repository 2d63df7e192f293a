"""The model classes that transformers' own tables name, each with the configuration it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Found:
    """A model class by its name, and the type of its configuration."""

    name: str
    model_type: str
    task: str  # "" for the model without a head


def classes() -> list[Found]:
    """All of them, each once, in the order of their types and names."""
    from transformers.models.auto import modeling_auto

    found: dict[str, Found] = {}
    tables = sorted(name for name in dir(modeling_auto) if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"))
    for table in sorted(tables, key=lambda name: name != "MODEL_MAPPING_NAMES"):
        task = table.removeprefix("MODEL_").removesuffix("MAPPING_NAMES").removeprefix("FOR_").strip("_")
        for model_type, names in getattr(modeling_auto, table).items():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, Found(name, model_type, task.lower()))
    return sorted(found.values(), key=lambda each: (each.model_type, each.name))


def model_class(found: Found) -> Any:
    import transformers

    return getattr(transformers, found.name)


def config_class(found: Found) -> Any:
    """The class's own configuration; the table's where it names none."""
    from transformers import CONFIG_MAPPING

    return getattr(model_class(found), "config_class", None) or CONFIG_MAPPING[found.model_type]
