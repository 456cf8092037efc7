"""What every command shares: flags, short help, one message per user error, exit codes.

Exit codes: 0 done; 2 an error that the user can mend: a mistake, or the machine (a full disk, a store that is out of
reach); 130 stopped by Ctrl-C, SIGTERM or SIGHUP (what was done is saved where that makes sense), but 0 for a watched
stream, which ends no other way; 1, with a traceback: a fault of this library.
"""

import codecs
import io
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from absl import app, flags
from absl import logging as absl_logging

from jax_video import config_flag, ctrl_c
from jax_video.errors import DISK_ERRORS, Stopped, UserError, shown, unwritable

flags.disclaim_key_flags()  # flags defined here belong to the command that calls, and are listed in its --help


def run(
    main: Callable[[list[str]], None], define_flags: Callable[[], None] | None = None, *, cache: bool = True
) -> None:
    """Run a command; its module's docstring is its help.

    Defines its flags, parses the command line, calls `main(positional arguments)`, and turns user errors into a message
    and an exit code.

    Args:
      cache: keep compiled programs for the next start (`enable_compilation_cache`), unless there are several processes.
    """

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process: `>&-`, pythonw on Windows
            setattr(sys, name, open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
        _show_names(getattr(sys, name))
    os.environ.setdefault("PYTHON_COLORS", "0")  # tracebacks are coloured since 3.13; the escapes would be shown

    def run_main(argv: list[str]) -> None:
        _quieten()
        sys.unraisablehook = _report_unraisable
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file's name may be any bytes; for a terminal some would be a control character.
            codecs.register_error("jax_video", _written)
            sys.stdout.reconfigure(errors="backslashreplace" if sys.stdout.isatty() else "jax_video")
        alone = "distributed" not in flags.FLAGS or flags.FLAGS.distributed is None
        if cache and alone and "jax" in sys.modules:
            from jax_video.compilation_cache import enable_compilation_cache

            enable_compilation_cache()
        ctrl_c.interrupt_main()
        try:
            main(argv[1:])
            sys.stdout.flush()
        finally:
            ctrl_c.end_at_once()

    try:
        ctrl_c.end_at_once()
        sys.argv[1:] = map(_expanded, sys.argv[1:])
        if define_flags is not None:
            define_flags()
        app.run(run_main, flags_parser=_parse_flags)
    except BrokenPipeError:  # `... | head`; what is still buffered has no reader either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Stopped as stopped:
        ctrl_c.stop(str(stopped))
    except KeyboardInterrupt:
        ctrl_c.stop("stopped")
    except Exception as error:
        if ctrl_c.was_pressed():  # Ctrl-C interrupted what then failed
            ctrl_c.stop("stopped")
        missing = _missing_devices(error)
        if not (missing or isinstance(error, UserError | OSError)):
            raise
        _exit(missing or _said(error))


def define_takeover() -> None:
    """Define --takeover, for a command that holds a folder: `flags.FLAGS.takeover`."""
    flags.DEFINE_boolean("takeover", False, "Take the folder over from another process, which is gone.")


def _written(error: UnicodeError) -> tuple[str | bytes, int]:
    """How a character is written that an encoding lacks: a byte of a file's name as it is, others as JSON has them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    place = error.start
    character = error.object[place]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), place + 1
    return json.dumps(character)[1:-1], place + 1


_MOVES = re.compile("(\n|\x1b\\[A)*")  # how tqdm goes from one progress bar to another


def _show_names(stream: TextIO) -> None:
    """Make a stream print control characters visibly: names of files and classes may come from strangers.

    The stream object itself is changed, since loggers and progress bars refer to it.
    """
    write = stream.write

    def show(text: str) -> int:
        if _MOVES.fullmatch(text):
            return write(text)
        start = text[: text.startswith("\r")]  # a progress bar starts its line anew
        return write(start + shown(text[len(start) :], kept="\n\t"))

    vars(stream)["write"] = show


def _quieten() -> None:
    """Show JAX's warnings, such as one about an unused GPU, and hide INFO and WARNING of Orbax, Grain and
    Matplotlib's list of fonts, which a user cannot act on."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("jax", "jaxlib"):
        if (logger := logging.getLogger(name)).level == logging.NOTSET:  # else JAX_LOGGING_LEVEL has set it
            logger.setLevel(logging.WARNING)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of weights that a font has not


def _parse_flags(argv: list[str]) -> list[str]:
    if {"--help", "-h", "-help", "--helpshort"} & set(argv):
        description = sys.modules["__main__"].__doc__ or ""
        recipes = f"\n\n{config_flag.list_recipes()}" if "config" in flags.FLAGS else ""
        print(f"{description.strip()}\n\n{_flags_help()}{recipes}")
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
        given = (flags.FLAGS[name] for name in flags.FLAGS)
        if empty := [f"--{flag.name}" for flag in given if flag.present and flag.value == "" and _is_needed(flag.name)]:
            _exit(f"{' '.join(empty)} is empty: give it a value, or leave it out.")
        return rest
    except flags.Error as error:
        message = str(error)
        if "Traceback" in message:  # from a config that refuses its arguments: its own message is at the end
            message = message.strip().rpartition("Error: ")[2]
        _exit(f"{message}\nSee --help.")
    except (AttributeError, KeyError, TypeError, ValueError):
        unknown = _unknown_config_key(argv)
        if unknown is None:
            raise
        _exit(unknown)
    except OSError:  # a missing file
        _exit(config_flag.missing(_config_file(argv)))


def _is_needed(name: str) -> bool:
    """Whether a flag's value may not be empty, as by an unset variable; a config's may, and Beam's options."""
    return not name.startswith("config") and name != "beam"


def _expanded(argument: str) -> str:
    """A flag with ~ expanded where a path begins, as no shell does in the middle: --workdir=~/runs, --table=a,~/b."""
    if not argument.startswith("-"):
        return argument
    return re.sub(r"(?<=[=,])~[\w.-]*(?=/)|(?<=dir=|out=)~$", lambda match: os.path.expanduser(match[0]), argument)


def _flags_help() -> str:
    """absl's help of the flags, without separate lines for types and defaults."""
    text = re.sub(r"\n +\((?!default: '(?!None'))[^()]*\)(?=\n|$)", "", flags.FLAGS.main_module_help().strip())
    return re.sub(r"\n +\(default: '(.*)'\)", r" [\1]", text)


def _config_file(argv: list[str]) -> str:
    """The text of --config on the command line, before it is parsed; "" if there is none."""
    for argument, following in itertools.pairwise([*argv, ""]):
        if match := re.fullmatch("--?config(=.*)?", argument):
            return match[1][1:] if match[1] else following
    return ""


def _unknown_config_key(argv: list[str]) -> str | None:
    """The message for an unknown `--config.x`, or None: absl's own error names neither the flag nor its neighbours."""
    argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    for argument in argv:
        if not (match := re.match(r"--?(?:no)?config\.([^=]+)", argument)):
            continue
        node: Any = config_flag.load(_config_file(argv))
        config_flag.add_keywords(node)
        for key in match[1].split("."):
            known = ", ".join(node) if hasattr(node, "keys") else "nothing, this is a value"
            if not hasattr(node, "keys") or key not in node:
                return f"unknown config key --config.{match[1]}: there is no {key!r}. Known here: {known}."
            node = node[key]
    return None


def _missing_devices(error: Exception) -> str:
    """The message for an error because JAX_PLATFORMS asks for devices that are not here; "" for any other error."""
    jax: Any = sys.modules.get("jax")
    asked = jax.config.jax_platforms if jax is not None else None
    if not asked or not isinstance(error, RuntimeError | AssertionError):
        return ""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as fault:
        reason = str(fault).partition(" (set JAX_PLATFORMS")[0].splitlines() or ["it is not installed for them"]
        return (
            f"JAX_PLATFORMS={asked} asks for devices that JAX does not find here: {reason[0].rstrip('.')}. Leave it "
            "out, and JAX takes what is there; or install JAX for them: "
            "https://docs.jax.dev/en/latest/installation.html"
        )
    return ""


def _said(error: Exception) -> str:
    """The message of an error that the user can mend."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return unwritable(error.filename or "the output", error)
    return str(error)


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Report an error that nobody can catch, except those of Orbax and TensorStore after a failed read or write.

    If several arrays fail, Orbax raises one error and forgets its coroutines for the others. Threads of TensorStore
    call back, once for each array, into an event loop that Orbax has closed. A Ctrl-C that nobody can catch ends the
    process.
    """
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        ctrl_c.end()
    code = getattr(unraisable.object, "cr_code", None)
    forgotten = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
    if not (forgotten or unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def _exit(message: object) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
