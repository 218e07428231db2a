"""What the doctor can find."""

from __future__ import annotations

from dataclasses import dataclass

# In the order in which they are told.
DAMAGED, STALE, INCOMPLETE, FOREIGN = "damaged", "stale", "incomplete", "foreign"
KINDS = (DAMAGED, STALE, INCOMPLETE, FOREIGN)

# How they are mended: made again by force, made by the next run, deleted, or by removing a lock; or
# by no command, as the line says.
FORCE, RUN, DELETE, UNLOCK, NOTHING = "force", "run", "delete", "unlock", "nothing"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    path : str
        From the folder that was examined.
    reason : str
        The same words for files with the same trouble.
    mend : str
        FORCE, RUN, DELETE, UNLOCK or NOTHING.
    target : str
        What the command names: an output of the rule for FORCE, what to delete for DELETE.
    group : str
        Findings of one group are told together: the rule, or the folder.
    """

    kind: str
    path: str
    reason: str
    mend: str
    target: str = ""
    group: str = ""
