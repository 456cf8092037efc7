"""What imported weights decide in a run's config: keywords of the network, normalisation of RGB, clips and test.

What the user has set stays. `given` names it by keys or sections, as in ("clip.frames", "test").
"""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from jax_video import networks
from jax_video.data import pipeline
from jax_video.errors import UserError
from jax_video.state import IMAGENET, Normalization
from jax_video.weights import names, provenance
from jax_video.weights.source import Source


def set_keywords(config: ConfigDict, source: Source, given: Collection[str]) -> list[str]:
    """Set the keywords that make the network compute what the source's does; return lines for a report.

    Recipes write out all keywords. So one that has the network's default was set by the user only if it is in `given`.

    Raises:
      UserError: the user has set one of them to another value.
    """
    model = config.model
    if model.name not in networks.NETWORKS:
        return []  # whoever builds the network reports it
    fixed = names.keywords(source.layout, model.name) or {}
    told = provenance.keywords(source.layout, model.name, source.arrays)
    defaults = networks.find(model.name).keywords
    wrong = [
        f"model.{key} is {model[key]!r}, but {whose} has {value!r}"
        for whose, values in ((f"layout {source.layout}", fixed), (source.path, told))
        for key, value in values.items()
        if model.get(key, value) != value and (model[key] != defaults[key] or _is_given(f"model.{key}", given))
    ]
    if wrong:
        raise UserError(f"{'; '.join(wrong)}. Leave it out of the config, or take the weights of such a network")
    model.update({**fixed, **told})
    return [f"{who} sets {_options(values)}" for who, values in (("the layout", fixed), ("the file", told)) if values]


def set_normalization(config: ConfigDict, source: Source, version: str, given: Collection[str]) -> list[str]:
    """Set the normalisation of RGB that the weights expect; return a line for a report.

    A normalisation other than ImageNet's in the config was set by the user, and stays.

    Args:
      version: of the layout's code; "" takes it from the file.

    Raises:
      UserError: the layout's normalisation has changed over time, and neither the file nor the user says which it is.
    """
    layout, here = names.layout(source.layout), Normalization(**config.normalize)
    chosen = here != IMAGENET or any(_is_given(f"normalize.{key}", given) for key in config.normalize)
    if source.normalize and not version and not chosen:
        config.normalize.update({key: tuple(values) for key, values in source.normalize.items()})
        return [f"RGB is normalised by {normalization_text(config.normalize)}, as in the run that it was exported from"]
    found = provenance.check_version(source.layout, version, source.version, source.path)
    if layout.versions and not found and not chosen:
        choices = [f"  --normalize={name}: {normalization_text(values)}" for name, values in layout.versions.items()]
        raise UserError(
            f"{source.path} does not tell which RGB its network expects; it has {source.signs}. The code has had\n"
            + "\n".join(choices)
            + "\nSay which. --check, with `video` in its file, proves it."
        )
    usual = layout.versions.get(found, layout.normalize)
    if chosen or not usual:
        other = usual and here != Normalization(**usual)
        note = f", as given; the layout's is {normalization_text(usual)}" if other else ""
        return [f"RGB is normalised by {normalization_text(config.normalize)}{note}"]
    config.normalize.update(usual)
    why = f": code of {found}, by --normalize" if version else f": code of {found}, by {source.signs}" if found else ""
    return [f"RGB is normalised by {normalization_text(usual)}{why}"]


def set_sampling(config: ConfigDict, source: Source, num_classes: int, given: Collection[str]) -> list[str]:
    """Set clips and test to those of the source's own test, as far as they are known; return lines for a report.

    Raises:
      UserError: what the user has set does not fit the rest.
    """
    layout, lines = names.layout(source.layout), []
    clip = provenance.clip(source.layout, config.model.get("frames", 0), num_classes)
    for section, values in (("clip", clip), ("test", layout.test)):
        wanted = {key: value for key, value in values.items() if not _is_given(f"{section}.{key}", given)}
        config[section].update(wanted)
        kept = {key: config[section][key] for key in values if key not in wanted}
        told = [
            f"{_options(options)} {whose}" for options, whose in ((wanted, "as there"), (kept, "as given")) if options
        ]
        lines += [f"{section}: {'; '.join(told)}"] if told else []
    if config.clip.jitter and min(config.clip.jitter) < config.clip.size:  # for training, which may follow
        config.clip.jitter = ()
    pipeline.Sampling(**config.clip)
    return lines


def normalization_text(normalize: ConfigDict | dict) -> str:
    """Section `normalize` of a config, in words."""
    mean, std = (", ".join(map(str, normalize[key])) for key in ("mean", "std"))
    return f"mean {mean} and std {std}"


def _options(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _is_given(key: str, given: Collection[str]) -> bool:
    return any(key == chosen or key.startswith(f"{chosen}.") for chosen in given)
