"""The scores that a command computes, and what they need of the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diswot.cli.options import TeacherOptions
from diswot.errors import UserError


def proxy_names(text: str, teacher: TeacherOptions, init: str | None) -> list[str]:
    """Return the scores that `--proxies` names: separated by commas, or all.

    A function of the user has an absolute path. If the teacher is not trained, `all` leaves out
    the scores that look at inherited weights. Without `init` each score has its own.
    """
    from diswot.proxies.registry import PROXIES, inherits
    from diswot.utils.user_code import rooted

    names = list(PROXIES) if text == "all" else [rooted(name.strip()) for name in text.split(",")]
    if text == "all" and init is None and not teacher.has_weights:
        names = [name for name in names if not inherits([name])]
    check_trained(names, init, trained=teacher.has_weights)
    return names


def check_trained(proxies: Iterable[str], init: str | None, *, trained: bool) -> None:
    """Refuse scores of inherited weights if the teacher has no trained weights."""
    from diswot.proxies.registry import inherits

    needing = [name for name in proxies if inherits([name], init)]
    if needing and not trained:
        verb = "looks" if len(needing) == 1 else "look"
        raise UserError(
            f"{', '.join(needing)} {verb} at weights that the student inherits from a trained "
            "teacher: give --teacher-weights FILE, --pretrained or --trained"
        )


def needs_teacher(proxies: Sequence[str], init: str | None) -> bool:
    """Say whether one of the scores looks at a teacher, or at inherited weights."""
    from diswot.proxies.registry import get_proxy, inherits

    return inherits(proxies, init) or any(get_proxy(name).uses_teacher for name in proxies)


def default_teacher(teacher: TeacherOptions, proxies: Sequence[str], init: str | None) -> list[str]:
    """Return a note if the scores look at the default teacher, with fresh weights."""
    name = TeacherOptions.teacher
    if teacher.has_weights or teacher.teacher != name or not needs_teacher(proxies, init):
        return []
    return [f"the teacher is {name} with fresh weights; see --teacher and --teacher-weights"]
