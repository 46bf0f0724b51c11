"""The exceptions of this package. They are subclasses of Prefect's ``BuildError``, which callers of Prefect catch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.utilities.dockerutils import BuildError

if TYPE_CHECKING:
    from prefect_docker_attest.failures import Failure

NEVER_SHOWN = frozenset(("buildargs", "build_args", "secrets"))
"""Options whose values are never part of a message, because they can be secrets."""


class OptionError(BuildError, ValueError):
    """A build option or a setting has a wrong value, or ``docker buildx build`` does not support it.

    It is raised before the build starts. The message is one sentence: the option with its value, and the reason.
    A second line starts with ``TIP`` if there is advice.

    Args:
        option: name of the option as the caller wrote it, such as ``shmsize`` or ``buildargs['PORT']``; for a setting,
            its environment variable
        reason: the rest of the sentence, without the full stop, such as ``must be a number of bytes``
        value: the option's value; the message shows it unless the option is one of `NEVER_SHOWN`
        tip: what to do instead

    Attributes:
        option: the argument `option`
        reason: the argument `reason`
        tip: the argument `tip`; ``""`` if there is no advice
    """

    def __init__(self, option: str, reason: str, value: object = ..., *, tip: str = "") -> None:
        # pickle and copy call the class with these arguments, then restore the attributes. The value is not one of
        # them, because it can be a secret or an open file.
        super().__init__(option, reason)
        self.option = option
        self.reason = reason
        self.tip = tip
        subject = option if value is ... or option.partition("[")[0] in NEVER_SHOWN else f"{option}={value!r}"
        self._message = f"{subject} {reason}." + (f"\nTIP {tip}" if tip else "")

    def __str__(self) -> str:
        return self._message


class BuildFailed(BuildError):
    """A build failed, or its result is not the requested image.

    Args:
        failure: why it failed. It is rendered as the text of the exception

    Attributes:
        failure: the argument `failure`
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    @property
    def output(self) -> str:
        """The last lines of the failed step's output, as BuildKit repeats them; ``""`` if no step failed.

        They are not part of the text, because Prefect retries a build if that text contains certain words.
        """
        return self.failure.output

    def __str__(self) -> str:
        return str(self.failure)
