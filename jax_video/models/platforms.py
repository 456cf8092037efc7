"""Operations whose implementation, their "form", depends on the kind of device."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_instead: contextvars.ContextVar[Mapping[str, Callable]] = contextvars.ContextVar("instead")


@contextlib.contextmanager
def instead(forms: Mapping[str, Callable]) -> Iterator[None]:
    """A context in which operations are traced in these forms, by their names, on every platform."""
    token = _instead.set(forms)
    try:
        yield
    finally:
        _instead.reset(token)


def by_platform(name: str, *, forms: Mapping[str, Callable], default: Callable, outputs: Callable) -> Callable:
    """The function of a new primitive that has a form of its own on some platforms.

    The form is chosen when a program is lowered. `lax.platform_dependent` would trace all forms every time: a third of
    the time that a network takes before it is compiled.

    Args:
      forms: by platform ("cpu", "gpu", "tpu"), functions from arrays and options to a tuple.
      default: the form of all other platforms.
      outputs: a function from the arrays' shapes and the options to the shapes of the results.
    """
    names = {"gpu": ("cuda", "rocm")}  # JAX's names, by the makers of GPUs
    forms = {each: form for platform, form in forms.items() for each in names.get(platform, (platform,))}
    primitive = Primitive(name)
    primitive.multiple_results = True

    def bind(*arrays, **options):
        form = _instead.get({}).get(name, primitive.bind)
        return tuple(form(*arrays, **options))

    def any_form(options):
        made = {form: functools.partial(form, **options) for form in (*forms.values(), default)}  # once each
        each = {platform: made[form] for platform, form in forms.items()}
        return lambda *arrays: lax.platform_dependent(*arrays, default=made[default], **each)

    def shapes(first, *rest, **options):
        return [first.update(shape=leaf.shape, dtype=leaf.dtype) for leaf in outputs(first, *rest, **options)]

    primitive.def_abstract_eval(shapes)

    @functools.cache
    def compiled(options):
        return jax.jit(functools.partial(bind, **dict(options)))

    def impl(*arrays, **options):  # outside of jit; without it, within `jax.disable_jit`, it would call itself
        with jax.disable_jit(False):
            return compiled(tuple(options.items()))(*arrays)

    primitive.def_impl(impl)
    mlir.register_lowering(primitive, mlir.lower_fun(default, multiple_results=True))
    for platform, form in forms.items():
        mlir.register_lowering(primitive, mlir.lower_fun(form, multiple_results=True), platform)

    # Not needed by the networks, but perhaps by a caller: gradients of gradients, and vmap.
    def differentiate(arrays, tangents, **options):
        return jax.jvp(any_form(options), arrays, tuple(map(ad.instantiate_zeros, tangents)))

    def batch(arrays, axes, **options):
        results = jax.vmap(any_form(options), axes)(*arrays)
        return results, [0] * len(results)

    ad.primitive_jvps[primitive] = differentiate
    batching.primitive_batchers[primitive] = batch
    return bind


def alone(function: Callable) -> Callable:
    """The same function, with its result in a tuple."""
    return lambda *arrays, **options: (function(*arrays, **options),)


def traced(function: Callable) -> Callable:
    """A function from shapes to the shapes of another function's results."""
    return lambda *shapes, **options: jax.eval_shape(functools.partial(function, **options), *shapes)
