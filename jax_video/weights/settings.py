"""What imported weights decide in a run's config: keywords of the network, normalisation of RGB, clips and test.

What the user has set stays. `given` names it by keys or sections, as in ("clip.frames", "test").
"""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from jax_video import networks, recipe
from jax_video.data import pipeline
from jax_video.errors import UserError
from jax_video.state import IMAGENET, Normalization
from jax_video.weights import names, provenance
from jax_video.weights.source import Source


def set_keywords(config: ConfigDict, source: Source, given: Collection[str]) -> list[str]:
    """Set the keywords that make the network compute what the source's does; return lines for a report.

    Recipes write out all keywords. So one that has the network's default was set by the user only if it is in `given`.

    Raises:
      UserError: the user has set one of them to another value; or the weights, in our own layout, are of another
        network, whose arrays may have the same names.
    """
    model, theirs = config.model, source.model or {}
    if model.name not in networks.NETWORKS:
        return []  # whoever builds the network reports it
    if source.layout == "jax_video" and theirs.get("name", model.name) != model.name:
        raise UserError(
            f"{source.path} was exported from a run of {theirs['name']}, and model.name is {model.name}: give the "
            "config of that network. To start another network from such weights, train it with "
            "--config.init_from.path, .layout, .inflate and .skip."
        )
    defaults = networks.find(model.name).keywords
    run = provenance.run_keywords(model.name, theirs)
    fixed = {
        key: value
        for key, value in (names.keywords(source.layout, model.name) or {}).items()
        if run.get(key, value) == value
    }
    told = provenance.keywords(source.layout, model.name, source.arrays)
    told |= {key: value for key, value in run.items() if recipe.with_tuples(model.get(key, defaults[key])) != value}
    wrong = [
        f"model.{key} is {model[key]!r}, but {whose} has {value!r}"
        for whose, values in ((f"layout {source.layout}", fixed), (source.path, told))
        for key, value in values.items()
        if recipe.with_tuples(model.get(key, value)) != value
        and (recipe.with_tuples(model[key]) != defaults[key] or is_given(f"model.{key}", given))
    ]
    if wrong:
        raise UserError(f"{'; '.join(wrong)}. Leave it out of the config, or take the weights of such a network")
    if source.clip and theirs.get("name") == model.name:  # then keywords that follow the clips are the run's, too
        follow = [key for key in ("frames", "size") if key in theirs and not is_given(f"clip.{key}", given)]
        told |= {key: theirs[key] for key in follow if model.get(key, defaults.get(key)) != theirs[key]}
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
    layout, here = names.layout(source.layout), Normalization.of(config.normalize)
    chosen = here != IMAGENET or any(is_given(f"normalize.{key}", given) for key in config.normalize)
    if source.normalize and not version and not chosen:
        config.normalize.update(source.normalize)
        return [f"RGB is normalised by {normalization_text(config.normalize)}, as in the run that it was exported from"]
    if source.normalize and version and not chosen:
        asked = layout.versions.get(version)
        if asked and Normalization.of(asked) != Normalization.of(source.normalize):
            raise UserError(
                f"--normalize={version} is {normalization_text(asked)}, but {source.path} was exported from a run with "
                f"{normalization_text(source.normalize)}: leave --normalize out"
            )
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
        other = usual and here != Normalization.of(usual)
        note = f", as given; the layout's is {normalization_text(usual)}" if other else ""
        return [f"RGB is normalised by {normalization_text(config.normalize)}{note}"]
    config.normalize.update(usual)
    why = f": code of {found}, by --normalize" if version else f": code of {found}, by {source.signs}" if found else ""
    return [f"RGB is normalised by {normalization_text(usual)}{why}"]


def compare_normalization(layout: str, normalize: dict) -> list[str]:
    """Lines for who takes a run's weights to a layout's own code, where that does not normalise RGB as the run does."""
    usual, here = names.layout(layout).normalize, recipe.with_tuples(normalize)
    if usual is None or here == usual:
        return []
    return [
        f"The run has seen RGB normalised by {normalization_text(here)}; the layout's code, as it is today, normalises "
        f"by {normalization_text(usual)}. Give the network what it knows."
    ]


def set_sampling(config: ConfigDict, source: Source, num_classes: int, given: Collection[str]) -> list[str]:
    """Set clips and test to those of the source's own test, as far as they are known; return lines for a report.

    They are those of the run that a file was exported from, if the file tells them, and else the layout's.

    Raises:
      UserError: what the user has set does not fit the rest.
    """
    lines, clip = [], provenance.clip(source.layout, config.model.get("frames", 0), num_classes)
    known = (("clip", source.clip, clip), ("test", source.test, names.layout(source.layout).test))
    for section, run, layout in known:
        values, there = (layout, "as there") if run is None else (run, "as in the run that it was exported from")
        wanted = {key: value for key, value in values.items() if not is_given(f"{section}.{key}", given)}
        config[section].update(wanted)
        kept = {key: config[section][key] for key in values if key not in wanted and key in config[section]}
        told = [f"{_options(options)} {whose}" for options, whose in ((wanted, there), (kept, "as given")) if options]
        lines += [f"{section}: {'; '.join(told)}"] if told else []
    seen = config.clip
    if seen.jitter and not seen.size <= seen.jitter[0] <= seen.short_side <= seen.jitter[1]:  # for training after it
        config.clip.jitter = ()
    pipeline.Sampling(**config.clip)
    return lines


def normalization_text(normalize: ConfigDict | dict) -> str:
    """Section `normalize` of a config, in words."""
    mean, std = (", ".join(map(str, normalize[key])) for key in ("mean", "std"))
    return f"mean {mean} and std {std}"


def _options(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def is_given(key: str, given: Collection[str]) -> bool:
    """Whether the user has set a key of the config: `given` has it, or its section."""
    return any(key == chosen or key.startswith(f"{chosen}.") for chosen in given)
