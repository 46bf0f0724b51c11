"""Why a build failed, as a value that can be completed before it becomes the text of an exception. Pure.

The text becomes that of Prefect's ``BuildError``, and Prefect searches it. Words such as "connection reset" make it
build again (``_is_transient_build_error`` in prefect/utilities/dockerutils.py). The word "denied" makes it add a hint
about ``docker login`` (``_build_error_with_guidance`` in prefect-docker's steps). So the text never contains output of
the build, and notes and tips never contain these words.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

_MOST_NOTES = 2  # lines. With the tip, a message has at most three lines of this package.


@dataclass(frozen=True)
class Failure:
    """Why a build failed. ``str`` gives the text of the exception.

    Attributes:
        buildkit: the error lines of BuildKit or docker; ``""`` if this package found the failure itself
        notes: sentences of this package: what failed, with the value that was seen
        tip: what to do next; ``""`` if there is no certain advice
        output: last lines of the failed step's output, as BuildKit repeats them. They are not part of the text
        concerns: names of the settings that can be the cause, as in `build_settings.DEFAULTS`
    """

    buildkit: str = ""
    notes: tuple[str, ...] = ()
    tip: str = ""
    output: str = field(default="", repr=False)
    concerns: tuple[str, ...] = ()

    def with_note(self, *sentences: str, tip: str = "") -> Failure:
        """Return the failure with more sentences, and with this tip if it has none yet."""
        return replace(self, notes=(*self.notes, *filter(None, sentences)), tip=self.tip or tip)

    def continued(self, sentence: str, tip: str = "") -> Failure:
        """Return the failure with a sentence in the line of the last one, and with this tip if it has none yet."""
        if not self.notes or not self.notes[-1].endswith("."):
            return self.with_note(sentence, tip=tip)
        return replace(self, notes=(*self.notes[:-1], f"{self.notes[-1]} {sentence}"), tip=self.tip or tip)

    def __str__(self) -> str:
        notes = self.notes
        if len(notes) > _MOST_NOTES:
            sentences = (note if note.endswith(".") else f"{note}." for note in notes[:-1])
            notes = (" ".join(sentences), notes[-1])
        return "\n".join(filter(None, [self.buildkit, *notes, self.tip and f"TIP {self.tip}"]))
