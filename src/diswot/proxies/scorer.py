"""Computes proxies: of one student, or of all candidates of a search.

A proxy's value is a finite number; or minus infinity, the lowest score; or there is none (NaN, plus
infinity). A student without a path from the images to the logits cannot be trained, such as a cell
of NAS-Bench-201 all of whose edges are `none`: each proxy that needs a pass has the value minus
infinity. A value that is not finite is a `NotScored` error with the reason and is never replaced by
a number. `Scorer.outcomes` returns these errors beside the values of other proxies, and the error
of a proxy that does not fit the two networks, or that fails in them. If the student cannot be
observed, the call raises.

With the initialisation `inherited` a student has what fits of the trained teacher's weights, and
the rest as `default` draws it from (seed, repeat). A student that can inherit nothing is scored
with its fresh weights, so that a search ranks it beside the others. All passes normalise with the
statistics of the scored batch; the running statistics of the student change no score.
"""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from diswot.data.dataset import Batch, Dataset
from diswot.data.own import as_dataset, is_data
from diswot.errors import UserError, one_line, unknown
from diswot.models.initialization import INHERITED, INITS, TEACHER, derive_seed, fresh
from diswot.models.supported import refuse_unsupported
from diswot.observation.boxes import is_boxes
from diswot.observation.modes import measuring, recordable
from diswot.observation.observe import Observation, observe
from diswot.proxies.candidate import Candidate, images_alone
from diswot.proxies.checks import (
    check_outputs,
    check_teacher_free,
    check_types,
    classifier_errors,
    teacher_errors,
)
from diswot.proxies.first_block import first_block_roughness
from diswot.proxies.registry import PROXIES, Proxy, ProxyLike, get_proxies, inherits
from diswot.tasks.detection import check_head
from diswot.utils.devices import CPU, exact

if TYPE_CHECKING:
    from diswot.models.inheritance import TeacherLayers

PROXY = 2  # role of the proxies' random numbers, beside initialization.STUDENT and TEACHER
_FEW = 2  # images of a pass that only shows the number of outputs


class NotScored(ArithmeticError):
    """Error of a proxy without a finite value.

    Attributes:
        proxy: Name of the proxy.
        value: Minus infinity, which is the lowest score; or NaN or plus infinity, which are none.
        reason: Cause, as far as it is known; an exception of the proxy is the `__cause__`, too.
        misfit: Whether the proxy does not fit the two networks, which is a user's mistake.
    """

    def __init__(self, proxy: str, value: float, reason: str = "", *, misfit: bool = False) -> None:
        super().__init__(proxy, value, reason)
        self.proxy, self.value, self.reason, self.misfit = proxy, value, reason, misfit

    def __str__(self) -> str:
        return f"{self.proxy} is {self.value}" + (f": {self.reason}" if self.reason else "")


Outcome = float | NotScored


@dataclass(frozen=True)
class Scorer:
    """The inputs that all candidates of a search share: batches, and one observed teacher each.

    Repeat r scores a candidate on batch r, with weights drawn from (seed, r), against teacher r. On
    one machine with one number of threads, scores are equal to the last bit in any order and in any
    process. Other numbers of threads split sums in other places.

    Attributes:
        teachers: Observation of the teacher in each repeat; None if no proxy compares it.
        roughness: Roughness of the teacher's first block in each repeat; None if no proxy compares
            it.
        batches: Images and labels of each repeat, on the device on which candidates are scored.
        init: Initialisation of the candidates, a key of `initialization.INITS`.
        seed: Seed of the weights and of the proxies' random numbers.
        source: Layers of the trained teacher that candidates inherit from; None where they do not.
        num_classes: Number of outputs, K, that every candidate must have; None for any.
    """

    teachers: tuple[Observation | None, ...]
    roughness: tuple[float | None, ...]
    batches: tuple[Batch, ...]
    init: str = "gaussian"
    seed: int = 0
    source: TeacherLayers | None = None
    num_classes: int | None = None

    @property
    def device(self) -> torch.device:
        """The device on which candidates are scored."""
        return self.batches[0].images.device

    def fresh(self, build: Callable[[], nn.Module], repeat: int = 0) -> nn.Module:
        """Build a candidate with the weights of a repeat, drawn on the CPU.

        `outcomes` gives it what it inherits.
        """
        return fresh(build, self.init, self.seed, repeat)

    def students(self, build: Callable[[], nn.Module]) -> Iterator[nn.Module]:
        """Build a candidate for each repeat, one after the other, as `score` takes them."""
        return (self.fresh(build, repeat) for repeat in range(len(self.batches)))

    def outcomes(
        self, students: Iterable[nn.Module], proxies: Sequence[ProxyLike] | Mapping[str, Proxy]
    ) -> dict[str, list[Outcome]]:
        """Score a candidate; return values and errors, one a repeat, by proxy.

        Args:
            students: The candidate with the weights of each repeat. It is moved to the device of
                the batches, and inherits from the teacher if `source` is given.
            proxies: Names or functions, as `registry.get_proxy` takes them; or rows by name. A
                function's values are found by its name.

        Raises:
            UserError: A proxy is unknown, the candidate cannot be observed, or it has another
                number of outputs.
        """
        rows = proxies if isinstance(proxies, Mapping) else get_proxies(proxies)
        found: dict[str, list[Outcome]] = {name: [] for name in rows}
        repeats = zip(self.teachers, self.roughness, self.batches, students, strict=True)
        with exact(self.device):
            for repeat, (teacher, rough, batch, student) in enumerate(repeats):
                seed = derive_seed(self.seed, repeat, PROXY)
                if self.source is not None:
                    _inherit(self.source, student)
                if self.device.type != CPU:
                    student.to(self.device)
                given = teacher, rough, student, batch, seed, self.num_classes
                for name, outcome in _outcomes(rows, *given).items():
                    found[name].append(outcome)
        return found

    def score(
        self, students: Iterable[nn.Module], proxies: Sequence[ProxyLike] | Mapping[str, Proxy]
    ) -> dict[str, list[float]]:
        """Score a candidate as `outcomes` does; return finite values, one a repeat, by proxy.

        Raises:
            NotScored: A score is not finite.
            UserError: As in `outcomes`, or a proxy does not fit the two networks.
        """
        found = self.outcomes(students, proxies)
        return {name: [_finite(outcome) for outcome in values] for name, values in found.items()}


def scorer(
    teacher: nn.Module | None,
    batches: Sequence[Batch],
    proxies: Sequence[ProxyLike] | None = None,
    *,
    init: str = "gaussian",
    seed: int = 0,
    trained_teacher: bool = False,
    device: torch.device | str | None = None,
    num_classes: int | None = None,
) -> Scorer:
    """Observe the teacher on each batch, as far as the proxies need it.

    A fresh teacher has other random weights than the candidates. Otherwise a candidate would agree
    with it because they share weights. The first block is the exception: there the same draws in
    teacher and candidate remove chance, and the weights are drawn even if the teacher is trained.

    Args:
        teacher: Network, which is not changed. None if no proxy compares it.
        batches: One a repeat.
        proxies: Proxies that will be asked for, names or functions. By default all that a built-in
            proxy may need of the teacher is computed.
        init: Initialisation of the teacher and of candidates, a key of `initialization.INITS`.
        seed: Seed of the weights and of the proxies' random numbers.
        trained_teacher: Whether the teacher keeps its own weights, as it does in any case if the
            candidates inherit them.
        device: Device on which teacher and candidates are scored; that of the batches by default.
            All weights are drawn on the CPU, so that they are the same on all devices.
        num_classes: Number of outputs, K, of every candidate. Default: any that the labels fit.

    Raises:
        UserError: The teacher cannot be observed on these images, a proxy needs a teacher and
            there is none, or a name is unknown.
    """
    if init not in INITS:
        raise unknown("initialisation", init, INITS)
    place = batches[0].images.device if device is None else torch.device(device)
    moved = tuple(Batch(*(part.to(place) for part in batch)) for batch in batches)
    wanted: Sequence[ProxyLike] = tuple(PROXIES) if proxies is None else proxies
    rows = get_proxies(wanted)
    inheriting = inherits(wanted, init)
    if teacher is None:
        if inheriting:
            raise UserError("there is no teacher to inherit weights from")
        if proxies is not None:
            check_teacher_free(rows)
        nothing = (None,) * len(moved)
        return Scorer(nothing, nothing, moved, init, seed, num_classes=num_classes)
    with teacher_errors(moved[0]):
        refuse_unsupported(teacher, float32=True)
    source = _source(teacher) if inheriting else None
    drawn = _observes_teacher(rows) and not trained_teacher and init != INHERITED
    seen = []
    for repeat, batch in enumerate(moved):
        model = fresh(partial(_copy, teacher), init, seed, repeat, TEACHER) if drawn else teacher
        with teacher_errors(batch), exact(place):
            number = derive_seed(seed, repeat, PROXY)
            seen.append((_observed(rows, model, batch), _roughness(rows, teacher, batch, number)))
    observations, rough = zip(*seen, strict=True)
    return Scorer(observations, rough, moved, init, seed, source, num_classes)


def score(
    teacher: nn.Module | Observation | None,
    student: nn.Module,
    batch: Batch | Dataset | object,
    proxies: Sequence[ProxyLike] | ProxyLike = ("default",),
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Score one student against one teacher, both with the weights that they have.

    `detail`, a part of `default` and `default_inherited`, draws weights of its own.

    Args:
        teacher: Network; or its observation on the same batch, which does not show its first
            block: `default`, `default_inherited` and `detail` need the network. None if no proxy
            needs a teacher.
        student: Network.
        batch: Normalised images, B x 3 x H x W, with labels, B; or a data set, a torch map data set
            of (image, label) or a loader of one, of which the batch of 64 images that `seed` draws
            is taken.
        proxies: Names (`list_proxies`), `file.py:function`, `package.module:function`, or functions
            of a `Candidate`, or of the observations of teacher and student; or one of these.
        seed: Seed of the proxies that draw random numbers.

    Returns:
        A finite number by the name of the proxy; higher is better.

    Raises:
        UserError: A proxy is unknown, needs a teacher and there is none, or does not fit the two
            networks; or the student has another number of outputs than the data has classes.
        NotScored: A score is not finite.
    """
    num_classes = None
    if is_data(batch):
        data = as_dataset(batch)
        num_classes, batch = len(data.classes), data.default_batch(seed)
    elif isinstance(batch, tuple) and len(batch) == 2 and all(map(torch.is_tensor, batch)):
        batch = Batch(*batch)
    check_types(teacher, student, batch)
    assert isinstance(batch, Batch)
    rows = get_proxies([proxies] if isinstance(proxies, str) or callable(proxies) else proxies)
    number = derive_seed(seed, 0, PROXY)
    observation, rough = None, None
    with exact(batch.images.device):
        if teacher is None:
            check_teacher_free(rows)
        elif isinstance(teacher, Observation):
            observation = teacher
        else:
            rough = _roughness(rows, teacher, batch, number)
            observation = _observed(rows, teacher, batch)
        found = _outcomes(rows, observation, rough, student, batch, number, num_classes)
    return {name: _finite(outcome) for name, outcome in found.items()}


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of a score over repeats; None for a single repeat."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _source(teacher: nn.Module) -> TeacherLayers:
    from diswot.models.inheritance import TeacherLayers  # loads the compiler of torch

    return TeacherLayers(_copy(teacher))


def _inherit(teacher: TeacherLayers, student: nn.Module) -> None:
    """Copy what fits of the teacher's weights, which may be nothing."""
    from diswot.models.inheritance import inherit

    with torch.inference_mode(False), contextlib.suppress(UserError):
        inherit(teacher, student)


def _observes_teacher(rows: Mapping[str, Proxy]) -> bool:
    return any(row.observes_teacher for row in rows.values())


def _needs_cam(rows: Mapping[str, Proxy]) -> bool:
    return any(row.needs_cam for row in rows.values())


def _observed(rows: Mapping[str, Proxy], teacher: nn.Module, batch: Batch) -> Observation | None:
    """Observe the teacher if a proxy compares its observation."""
    if not _observes_teacher(rows):
        return None
    return observe(_on_device(teacher, batch.images.device), *batch, cam=_needs_cam(rows))


def _roughness(
    rows: Mapping[str, Proxy], teacher: nn.Module, batch: Batch, seed: int
) -> float | None:
    """Measure the roughness of the teacher's first block if a proxy compares it."""
    if not any(row.compares_first_block for row in rows.values()):
        return None
    with recordable(*batch) as inputs:
        moved = _on_device(teacher, inputs[0].device)
        return first_block_roughness(*images_alone(moved, Batch(*inputs)), seed)


def _copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu()


def _on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the network itself if it is on the device, otherwise a copy there."""
    elsewhere = any(each.device != device for each in (*model.parameters(), *model.buffers()))
    return copy.deepcopy(model).to(device) if elsewhere else model


def _outcomes(
    rows: Mapping[str, Proxy],
    teacher: Observation | None,
    rough: float | None,
    student: nn.Module,
    batch: Batch,
    seed: int,
    num_classes: int | None = None,
) -> dict[str, Outcome]:
    recorders = dict.fromkeys(row.recorder for row in rows.values() if row.recorder)
    with recordable(*batch) as inputs:
        candidate = Candidate(
            student, teacher, Batch(*inputs), seed, tuple(recorders), _needs_cam(rows), rough
        )
        boxes = is_boxes(batch.labels)
        if boxes and num_classes is not None:
            check_head("student", student, "the data", num_classes)
        if any(row.needs_forward for row in rows.values()):
            with classifier_errors():
                logits = candidate.observation.logits
            check_outputs(logits, None if boxes else num_classes)
        elif num_classes is not None and not boxes:
            with measuring(student):
                check_outputs(student(inputs[0][:_FEW]), num_classes)
        return {name: _outcome(name, row, candidate) for name, row in rows.items()}


def _outcome(name: str, row: Proxy, candidate: Candidate) -> Outcome:
    if row.needs_forward and candidate.cut_off:
        return NotScored(name, -math.inf, "the logits do not depend on the images")
    reads_pass = row.cost == "forward" or row.recorder is not None
    if reads_pass and not candidate.observation.logits.isfinite().all():
        return NotScored(name, math.nan, "the logits are not finite")
    try:
        value = row.score(candidate)
    except Exception as error:  # a user's network may raise anything
        misfit = isinstance(error, UserError)
        reason = str(error) if misfit else one_line(error)
        outcome = NotScored(name, math.nan, reason, misfit=misfit)
        outcome.__cause__ = error.with_traceback(None)  # its frames hold the student
        return outcome
    return value if math.isfinite(value) else NotScored(name, value)


def _finite(outcome: Outcome) -> float:
    if isinstance(outcome, NotScored):
        if outcome.misfit:
            raise UserError(outcome.reason) from outcome.__cause__
        raise outcome
    return outcome
