"""What the configs share: their `key=value` arguments."""


def arguments(text: str, **defaults):
    """`arguments("frames=32,branches=tcb", frames=16, branches="both")` -> {"frames": 32, "branches": "tcb"}.

    Values take the type of their default; true and false are booleans.

    Raises:
      ValueError: an unknown key, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if key not in defaults or not equals:
            raise ValueError(f"unknown config argument {item!r}: expected key=value with one of {', '.join(defaults)}.")
        kind = type(defaults[key])
        try:
            values[key] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise ValueError(f"config argument {item!r}: expected a value like {defaults[key]!r}.") from None
    return values
