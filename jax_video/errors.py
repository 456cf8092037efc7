"""The exceptions that a user is meant to read."""


class UserError(ValueError):
    """A mistake that the user can mend.

    The message says what was found, what was expected and what to do next. Commands print it without a traceback and
    exit with code 2.
    """


class Stopped(Exception):
    """The user asked to stop; the message says what is saved and how to go on. Commands exit with code 130."""
