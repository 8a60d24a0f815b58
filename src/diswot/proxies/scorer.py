"""Computes proxies: of one student, or of all candidates of a search.

A proxy's value is a finite number, or minus infinity, the lowest, or none (NaN, plus infinity). A
student without a path from the images to the logits cannot be trained, as with a cell of
NAS-Bench-201 all of whose edges are `none`: every proxy that looks at a pass has the value minus
infinity for it. Sizes (`params`, `macs`, `depth`) are what they are. Whatever is not finite is a
`NotScored` error with the reason, never replaced by a number; `Scorer.outcomes` returns these
errors beside the other proxies' values instead of raising the first one. So it does with a proxy
that does not fit the two networks, or that fails in them; a network that cannot even be observed
fails as a whole.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.models.initialization import TEACHER, derive_seed, fresh
from diswot.observation.observe import Observation, observe, recordable
from diswot.proxies.candidate import Candidate
from diswot.proxies.early_blocks import Opening, opening
from diswot.proxies.registry import Proxy, get_proxy
from diswot.utils.devices import CPU, exact

PROXY = 2  # what proxies draw, apart from initialise.STUDENT and TEACHER


class NotScored(ArithmeticError):
    """A proxy has no finite value.

    Attributes:
        proxy: Its name.
        value: Minus infinity is the lowest score; NaN and plus infinity are none.
        reason: What is known of why.
        misfit: Whether the proxy does not fit the two networks, which is a user's mistake.
    """

    def __init__(self, proxy: str, value: float, reason: str = "", *, misfit: bool = False) -> None:
        super().__init__(f"{proxy} is {value}" + (f": {reason}" if reason else ""))
        self.proxy, self.value, self.reason, self.misfit = proxy, value, reason, misfit

    def __reduce__(self) -> tuple[object, ...]:
        state = {"misfit": self.misfit}
        return type(self), (self.proxy, self.value, self.reason), state

    @property
    def lowest(self) -> bool:
        """Whether the student ranks below all that have a finite value."""
        return self.value == -math.inf


Outcome = float | NotScored


@dataclass(frozen=True)
class Scorer:
    """What stays the same for all candidates of a search: the teacher is looked at once a repeat.

    Repeat r scores a candidate on batch r, with weights drawn from (seed, r), against teacher r.
    Its scores are the same to the last bit in any order and in any process, on one machine and
    one number of threads: sums are split among threads.

    Attributes:
        teachers: The teacher's observation in each repeat.
        openings: What the teacher's first blocks showed in each repeat.
        batches: The images and labels of each repeat, on the device to score on.
        init: How candidates are initialised.
        seed: The user's seed.
    """

    teachers: tuple[Observation | None, ...]
    openings: tuple[Opening | None, ...]
    batches: tuple[Batch, ...]
    init: str = "gaussian"
    seed: int = 0

    @property
    def device(self) -> torch.device:
        """Where candidates are looked at."""
        return self.batches[0].images.device

    def fresh(self, build: Callable[[], nn.Module], repeat: int = 0) -> nn.Module:
        """Build a candidate with the weights of a repeat, drawn on the processor."""
        return fresh(build, self.init, self.seed, repeat)

    def outcomes(
        self, students: Iterable[nn.Module], proxies: Sequence[str]
    ) -> dict[str, list[Outcome]]:
        """Score a candidate, given with the weights of each repeat; a list a proxy.

        It is moved to where the batches are.
        """
        with exact(self.device):
            return self._outcomes(students, proxies)

    def _outcomes(
        self, students: Iterable[nn.Module], proxies: Sequence[str]
    ) -> dict[str, list[Outcome]]:
        rows = {name: get_proxy(name) for name in proxies}
        found: dict[str, list[Outcome]] = {name: [] for name in rows}
        repeats = zip(self.teachers, self.openings, self.batches, students, strict=True)
        for repeat, (teacher, opens, batch, student) in enumerate(repeats):
            seed = derive_seed(self.seed, repeat, PROXY)
            if self.device.type != CPU:
                student.to(self.device)
            for name, outcome in _outcomes(rows, teacher, opens, student, batch, seed).items():
                found[name].append(outcome)
        return found

    def score(
        self, students: Iterable[nn.Module], proxies: Sequence[str]
    ) -> dict[str, list[float]]:
        """The same where all is finite.

        Raises:
            NotScored: A score is not finite.
        """
        found = self.outcomes(students, proxies)
        return {name: [_finite(outcome) for outcome in values] for name, values in found.items()}

    def score_build(
        self, build: Callable[[], nn.Module], proxies: Sequence[str]
    ) -> dict[str, list[float]]:
        """Build a candidate anew for each repeat and score it."""
        return self.score((self.fresh(build, r) for r in range(len(self.batches))), proxies)


def scorer(
    teacher: nn.Module | None,
    batches: Sequence[Batch],
    *,
    init: str = "gaussian",
    seed: int = 0,
    trained_teacher: bool = False,
    device: torch.device | str | None = None,
) -> Scorer:
    """Observe the teacher on each batch, and keep what scoring needs.

    A fresh teacher draws its weights apart from the candidates', or else a candidate would agree
    with it by the weights they share. Not so for its opening, with which theirs is compared: there
    the same draws keep chance out, and the weights are fresh also where the teacher is trained.

    Args:
        teacher: Left as it is; None where no score compares with a teacher.
        batches: One a repeat.
        init: A key of `initialise.INITS`, for the teacher and for candidates.
        seed: The user's seed.
        trained_teacher: Whether to take the teacher's weights as they are.
        device: Where to look at the teacher and at candidates; where the batches are if not given.
            All weights are drawn on the processor, so that they are the same everywhere.

    Raises:
        UserError: The teacher cannot be observed on these images.
    """
    place = batches[0].images.device if device is None else torch.device(device)
    there = [Batch(*(part.to(place) for part in batch)) for batch in batches]
    if teacher is None:
        nothing = (None,) * len(there)
        return Scorer(nothing, nothing, tuple(there), init, seed)
    again = partial(_copy, teacher)
    seen, openings = [], []
    for repeat, batch in enumerate(there):
        model = teacher if trained_teacher else fresh(again, init, seed, repeat, TEACHER)
        try:
            with exact(place):
                seen.append(observe(_there(model, place), *batch, cam=True))
                number = derive_seed(seed, repeat, PROXY)
                openings.append(_opening(_there(teacher, place), batch, number))
        except UserError as error:
            raise UserError(f"the teacher: {error}") from error
        except Exception as error:  # whatever a user's network raises is told in one line
            shape = tuple(batch.images.shape[1:])
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"the teacher cannot take images of shape {shape}: {reason}") from error
    return Scorer(tuple(seen), tuple(openings), tuple(there), init, seed)


def _copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu()


def _there(model: nn.Module, device: torch.device) -> nn.Module:
    """The network itself where it is on that device, or else a copy."""
    elsewhere = any(each.device != device for each in (*model.parameters(), *model.buffers()))
    return copy.deepcopy(model).to(device) if elsewhere else model


def score(
    teacher: nn.Module | Observation,
    student: nn.Module,
    batch: Batch,
    proxies: Sequence[str] = ("default",),
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Score one student against one teacher, both with the weights they have.

    Of `default`, the parts `detail` and `diversity` are of weights drawn for them.

    Args:
        teacher: A network, or what was observed of it on the same batch, which does not tell of
            its first blocks: `default`, `detail` and `diversity` need the network.
        student: A network.
        batch: Normalised images, B x 3 x H x W, and labels, B.
        proxies: Keys of `PROXIES`.
        seed: Of the proxies that draw random numbers.

    Returns:
        A finite number by proxy; higher is better.

    Raises:
        UserError: A proxy is unknown, or does not fit the two networks.
        NotScored: A score is not finite.
    """
    rows = {name: get_proxy(name) for name in proxies}
    number = derive_seed(seed, 0, PROXY)
    with exact(batch.images.device):
        seen, opens = teacher, None
        if not isinstance(seen, Observation):
            if any(row.opens for row in rows.values()):
                opens = _opening(seen, batch, number)
            seen = observe(seen, *batch, cam=_needs_cam(rows))
        found = _outcomes(rows, seen, opens, student, batch, number)
    return {name: _finite(outcome) for name, outcome in found.items()}


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of a score over repeats; None for a single one."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _outcomes(
    rows: Mapping[str, Proxy],
    teacher: Observation | None,
    opens: Opening | None,
    student: nn.Module,
    batch: Batch,
    seed: int,
) -> dict[str, Outcome]:
    watches = dict.fromkeys(row.watch for row in rows.values() if row.watch)
    with recordable(*batch) as given:
        candidate = Candidate(
            student,
            teacher,  # type: ignore[arg-type]
            Batch(*given),
            seed,
            tuple(watches),
            _needs_cam(rows),
            opens,
        )
        if any(row.needs_forward for row in rows.values()):
            _ = candidate.observation
        return {name: _outcome(name, row, candidate) for name, row in rows.items()}


def _opening(teacher: nn.Module, batch: Batch, seed: int) -> Opening | None:
    with recordable(*batch) as (images, _):
        return opening(teacher, images, seed)


def _needs_cam(rows: Mapping[str, Proxy]) -> bool:
    return any(row.needs_cam for row in rows.values())


def _outcome(name: str, row: Proxy, candidate: Candidate) -> Outcome:
    if row.needs_forward and candidate.cut_off:
        return NotScored(name, -math.inf, "the logits do not depend on the images")
    if row.cost == "forward" and not candidate.observation.logits.isfinite().all():
        return NotScored(name, math.nan, "the logits are not finite")
    try:
        value = row.score(candidate)
    except UserError as error:
        return NotScored(name, math.nan, str(error), misfit=True)
    except Exception as error:  # whatever a user's network raises is told in one line
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return NotScored(name, math.nan, reason)
    return value if math.isfinite(value) else NotScored(name, value)


def _finite(outcome: Outcome) -> float:
    if isinstance(outcome, NotScored):
        raise UserError(outcome.reason) if outcome.misfit else outcome
    return outcome
