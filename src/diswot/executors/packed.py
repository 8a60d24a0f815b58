"""What a worker makes and does, on the way to another process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from diswot.errors import UserError
from diswot.utils import user_code

Ask = Callable[[Any], Any]
Make = Callable[[], Any]
Work = Callable[[Any, Any, Ask], Any]


@dataclass(frozen=True)
class Packed:
    """What a worker makes and how it works, on the way to another process.

    Attributes:
        files: The users' files that are imported there first.
        pickled: `make` and `work`.
    """

    files: tuple[user_code.UserFile, ...]
    pickled: bytes

    @classmethod
    def pack(cls, make: Make, work: Work, dumps: Callable[[Any], bytes] = pickle.dumps) -> Self:
        """Pack two functions and all that they hold.

        Args:
            make: Makes what a worker needs, once.
            work: Given that, a task and a way to ask the driver: returns the task's result.
            dumps: Pickles; what it makes is read by `pickle`.

        Raises:
            UserError: Something cannot be pickled.
        """
        try:
            return cls(user_code.loaded(), dumps((make, work)))
        except Exception as error:  # pickling raises whatever comes
            reason = " ".join(str(error).split())
            raise UserError(
                f"workers need a teacher and a space that can be pickled, as functions of a "
                f"module can: {reason}"
            ) from error

    def unpack(self) -> tuple[Make, Work]:
        """The two functions."""
        for source in self.files:
            user_code.load_file(source)
        functions: tuple[Make, Work] = pickle.loads(self.pickled)
        return functions
