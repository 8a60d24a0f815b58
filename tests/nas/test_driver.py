"""The driver by itself: a made executor says how candidates end, and in which order."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial, TrialState
from torch import nn

from diswot.costs.budget import Budget, Excess
from diswot.executors.inline import Inline
from diswot.executors.protocol import TaskResult
from diswot.nas import driver as module
from diswot.nas import peers, stopping
from diswot.nas.aging_evolution import AgingEvolutionSampler
from diswot.nas.driver import Driver
from diswot.nas.measuring import MeasuredFirst
from diswot.nas.peers import Peers
from diswot.nas.progress import SearchProgress
from diswot.nas.proposal import Proposer
from diswot.nas.samplers import plan_sampler
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params

optuna.logging.set_verbosity(optuna.logging.WARNING)

Result = Callable[[int], TrialResult | None]


def space(trial: BaseTrial) -> nn.Module:
    """One choice, `a`, and a network of `a` parameters."""
    return nn.Linear(trial.suggest_int("a", 0, 99) or 1, 1, bias=False)


@dataclass
class Hands:
    """An executor of some workers, which evaluates architectures of one choice, `a`.

    Attributes:
        result: How an architecture ends; None is a death of its worker.
        size: Number of workers.
        backwards: Whether the last task that was submitted ends first.
        meanwhile: Called each time a result is waited for.
        examined: The architectures evaluated.
        messages: Messages out and back.
    """

    result: Result
    size: int = 1
    backwards: bool = False
    meanwhile: Callable[[], None] = lambda: None
    examined: list[int] = field(default_factory=list)
    messages: int = 0
    _tasks: list[tuple[int, Params]] = field(default_factory=list)

    @property
    def room(self) -> int:
        return self.size - len(self._tasks)

    def submit(self, key: Hashable, task: Any) -> None:
        assert isinstance(key, int)
        self.messages += 1
        params, latency = task
        assert latency is None or latency == params["a"] / 4
        self._tasks.append((key, params))

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        self.meanwhile()
        if not self._tasks:
            return []
        self.messages += 1
        number, params = self._tasks.pop(-1 if self.backwards else 0)
        self.examined.append(params["a"])
        result = self.result(params["a"])
        if result is None:
            return [TaskResult(number, None, "killed", "of a signal")]
        return [TaskResult(number, result)]


def scored(a: int) -> TrialResult:
    score = float(a)
    return TrialResult(score, {"toy": [score]}, a, {"macs": 10.0 * a})


def rejected(a: int) -> TrialResult:
    return TrialResult(rejected=Excess("params", a, 0), margins={"params": 1.0})


def broken(a: int) -> TrialResult:
    return TrialResult(failed=f"ValueError: {a}", kind="error")


def begun(
    proposals: Iterable[int], hands: Hands, objectives: Sequence[str] = ("score",)
) -> tuple[Driver, list[SearchProgress]]:
    """A driver whose sampler proposes these, in memory, and the list that takes its progress."""
    sampler = plan_sampler(deque({"a": a} for a in proposals))
    directions = ["maximize", *["minimize"] * (len(objectives) - 1)]
    study = optuna.create_study(sampler=sampler, directions=directions)
    return Driver(study, Proposer(space), hands, objectives=tuple(objectives)), []


def ends(loop: Driver) -> list[dict[str, Any]]:
    """How the trials ended, in their order, without costs and sizes."""
    kept = [dict(trial.user_attrs.get("end", {})) for trial in loop.study.trials]
    left = ("costs", "model_params", "margins")
    return [{name: value for name, value in end.items() if name not in left} for end in kept]


# How many


def test_rejected_ones_do_not_count() -> None:
    """Even ones are outside the budget; of three trials within it 5 is the best."""
    hands = Hands(lambda a: scored(a) if a % 2 else rejected(a))
    loop, progress = begun(range(10), hands)

    loop.sample(3, progress.append)

    assert hands.examined == [0, 1, 2, 3, 4, 5]
    assert loop.history.within == 3 and loop.history.best == 5
    assert loop.history.outcomes == {"scored": 3, "rejected": 3}
    assert [p.done for p in progress] == [0, 0, 1, 1, 2, 2, 3]
    assert {p.total for p in progress} == {3}
    assert [p.best for p in progress] == [None, None, 1, 1, 3, 3, 5]
    states = [trial.state for trial in loop.study.trials]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE] * 3


EXECUTORS = pytest.mark.parametrize(
    ("size", "backwards"), [(1, False), (2, False), (3, True), (5, False), (5, True)]
)


def test_a_grid_that_is_exhausted_ends_it() -> None:
    """Its sampler stops the study, which Optuna allows within `Study.optimize` alone."""
    loop, progress = begun((), Hands(scored))
    loop.study.sampler = optuna.samplers.GridSampler({"a": [3, 7]}, seed=0)

    loop.sample(9, progress.append)

    assert sorted(loop.executor.examined) == [3, 7]  # type: ignore[attr-defined]
    assert loop.stopped == "the sampler has no other proposals"
    assert all(trial.state == TrialState.COMPLETE for trial in loop.study.trials)


@EXECUTORS
@pytest.mark.parametrize(("within", "looked"), [((), 4), ((1,), 5), ((2, 5), 9), ((2, 5, 6, 7), 8)])
def test_proposals_that_come_no_nearer_to_the_budget_end_it(
    within: tuple[int, ...],
    looked: int,
    size: int,
    backwards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After three in a row that are no nearer, the first of all is; or after four within it."""
    monkeypatch.setattr(stopping, "STALLED", 3)
    hands = Hands(lambda a: scored(a) if a in within else rejected(a), size, backwards)
    loop, progress = begun(range(30), hands)

    loop.sample(4, progress.append)

    assert loop.history.within == len(within) or (size > 1 and within != (2, 5, 6, 7))
    if size == 1:
        assert hands.examined == list(range(looked)) and len(loop.study.trials) == looked
    else:
        assert looked - 1 <= len(loop.study.trials) <= looked + 2 * size


def test_a_nearer_proposal_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The excess falls at every second proposal, ten times; then three are no nearer."""
    monkeypatch.setattr(stopping, "STALLED", 3)

    def result(a: int) -> TrialResult:
        margin = 1 / (2 + min(a, 20) // 2)
        return TrialResult(rejected=Excess("params", a, 0), margins={"params": margin})

    hands = Hands(result)
    loop, progress = begun(range(40), hands)
    loop.sample(1, progress.append)

    assert hands.examined == list(range(24)) and loop.history.nearest[1] == 20


@EXECUTORS
@pytest.mark.parametrize(("within", "looked"), [((), 3), ((2,), 6), ((4,), 3)])
def test_nothing_but_failures_end_it(
    within: tuple[int, ...],
    looked: int,
    size: int,
    backwards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where one was scored, failures are trials like others."""
    monkeypatch.setattr(stopping, "MAX_FAILED", 3)
    hands = Hands(lambda a: scored(a) if a in within else broken(a), size, backwards)
    loop, progress = begun(range(20), hands)

    loop.sample(6, progress.append)

    examined = hands.examined
    assert sorted(examined) == list(range(len(examined)))
    assert (len(examined) == looked) if size == 1 else (3 <= len(examined) <= 6)
    assert loop.history.outcomes["failed"] == len(examined) - loop.history.outcomes["scored"]
    assert {trial.state for trial in loop.study.trials if trial.number not in within} == {
        TrialState.FAIL
    }


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_more_are_asked_for_than_one_alone_would(size: int) -> None:
    hands = Hands(scored, size)
    loop, progress = begun(range(9), hands)

    loop.sample(5, progress.append)

    assert len(loop.study.trials) == 5 and sorted(hands.examined) == list(range(5))


# What is known


def test_equal_architectures_are_examined_once() -> None:
    hands = Hands(lambda a: scored(a) if a else broken(a))
    loop, progress = begun([3, 0, 3, 0, 4], hands)

    loop.sample(5, progress.append)

    assert hands.examined == [3, 0, 4]
    assert ends(loop)[2:4] == [{"reused": 0, "score": 3.0}, broken(0).as_attribute()]
    assert loop.history.outcomes == {"scored": 2, "failed": 2, "reused": 1}
    assert loop.history.reasons == {"ValueError: 0": 2} and loop.history.kinds == {"error": 2}
    assert loop.history.repeat({"a": 3}) == scored(3).repeated(0)
    assert loop.study.trials[2].value == 3


def kept(places: int) -> float:
    """Bytes that our own lines allocated and keep, of each of 100 trials with many choices."""

    def wide(trial: BaseTrial) -> nn.Module:
        for place in range(places):
            trial.suggest_int(f"place{place}", 0, 9)
        return nn.Linear(1, 1)

    folder = Path(module.__file__).parent
    ours = [
        tracemalloc.Filter(True, str(folder / "*")),
        tracemalloc.Filter(False, str(folder / "trial_result.py")),  # the record in the study
    ]
    study = optuna.create_study(sampler=AgingEvolutionSampler())
    loop = Driver(study, Proposer(wide), Inline(lambda task: scored(1)))
    sizes = []
    tracemalloc.start()
    for trials in (100, 200):
        loop.sample(trials, lambda progress: None)
        traces = tracemalloc.take_snapshot().filter_traces(ours).traces
        sizes.append(sum(trace.size for trace in traces))
    tracemalloc.stop()
    return (sizes[1] - sizes[0]) / 100


def test_of_a_trial_is_kept_who_it_was_and_its_number() -> None:
    """Twice in some 200 bytes, however many choices it has; the rest is in the study."""
    few, many = kept(8), kept(32)

    assert 100 < few < 500 and many == pytest.approx(few, rel=0.2)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_first_of_equal_open_trials_is_the_scored_one(backwards: bool) -> None:
    """Whichever a worker takes up first: so it does not depend on the number of workers."""
    hands = Hands(scored, 3, backwards)
    loop, progress = begun([5, 5, 6, 5], hands)

    loop.sample(4, progress.append)

    assert Counter(hands.examined) == {5: 1, 6: 1}
    assert ends(loop)[0]["scores"] == {"toy": [5.0]}
    assert [ends(loop)[i] for i in (1, 3)] == [{"reused": 0, "score": 5.0}] * 2
    assert progress[-1].done == 4 and not loop._waiting and not loop._open


@pytest.mark.parametrize("backwards", [False, True])
def test_open_trials_that_wait_for_a_dead_one_fail_with_it(backwards: bool) -> None:
    hands = Hands(lambda a: None, 2, backwards)
    loop, progress = begun([5, 5], hands)

    loop.sample(2, progress.append)

    dead = {"failed": "killed: of a signal", "kind": "killed"}
    assert hands.examined == [5] and ends(loop) == [dead, dead]
    assert loop.history.kinds == {"killed": 2}


@pytest.mark.parametrize("backwards", [False, True])
def test_rejected_ones_that_wait_are_counted_with_the_first(
    backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "STALLED", 4)
    hands = Hands(rejected, 2, backwards)
    loop, progress = begun([5, 5, 6, 6, 7, 7], hands)

    loop.sample(1, progress.append)

    assert sorted(hands.examined) == [5, 6, 7] and loop.history.outcomes == {"rejected": 5}


def test_values_are_told_in_the_order_of_the_objectives() -> None:
    loop, progress = begun([3, 3], Hands(scored), ["score", "macs"])

    loop.sample(2, progress.append)

    assert [trial.values for trial in loop.study.trials] == [[3.0, 30.0], [3.0, 30.0]]


# A list


@pytest.mark.parametrize("size", [1, 3])
def test_list_is_visited_once_but_for_what_is_known(size: int) -> None:
    hands = Hands(lambda a: broken(a) if a == 2 else scored(a), size)
    loop, progress = begun([1, 4], hands)
    loop.sample(2, progress.append)

    loop.visit([{"a": a} for a in range(5)], progress.append)

    assert sorted(hands.examined[2:]) == [0, 2, 3]
    assert [(p.done, p.total) for p in progress[3:]] == [(2, 5), (3, 5), (4, 5), (5, 5)]
    loop.visit([{"a": a} for a in range(5)], progress.append)
    assert len(hands.examined) == 5 and progress[-1].done == 5


# What a killed process leaves


def opened(loop: Driver, result: TrialResult | None = None) -> None:
    """Leave a trial open, as a killed process does, before or after its result was written."""
    trial = loop.study.ask()
    trial.suggest_int("a", 0, 99)
    if result is not None:
        trial.set_user_attr("end", result.as_attribute())


def test_an_interrupted_trial_is_evaluated_first() -> None:
    """A trial whose result was written is only reported to Optuna; no number is lost."""
    loop, progress = begun([1, 2, 3, 4, 5], hands := Hands(scored))
    for result in (scored(1), None, rejected(3)):
        opened(loop, result)
    loop.study.sampler = plan_sampler(deque({"a": a} for a in (9, 4, 5)))

    loop.resume()
    assert loop.history.outcomes == {"scored": 1, "rejected": 1} and loop.history.best == 1
    loop.sample(3, progress.append)

    assert hands.examined == [2, 4] and [p.done for p in progress] == [1, 2, 3]
    states = [trial.state for trial in loop.study.trials]
    complete = TrialState.COMPLETE
    assert states == [complete, complete, TrialState.PRUNED, complete]


def test_a_trial_that_is_interrupted_again_and_again_fails() -> None:
    loop, _ = begun([7], Hands(scored))
    opened(loop)
    for _ in range(module.TRIES):
        loop.study.sampler = plan_sampler(deque([{"a": 7}]))
        loop = Driver(loop.study, Proposer(space), Hands(scored))
        loop.resume()

    assert ends(loop) == [
        {"failed": "the search ended 3 times while this candidate was evaluated", "kind": "killed"}
    ]


# Messages


def test_one_message_out_and_one_back() -> None:
    """Known architectures and networks with too many parameters are not submitted at all."""
    hands = Hands(scored)
    loop, progress = begun([3, 4, 3, 50, 5], hands)
    loop.budget = Budget(max_params=40)

    loop.sample(4, progress.append)

    assert hands.examined == [3, 4, 5] and hands.messages == 6
    assert loop.history.outcomes == {"scored": 3, "reused": 1, "rejected": 1}
    excess = {"of": "params", "value": 50, "limit": 40}
    assert loop.study.trials[3].user_attrs["end"]["rejected"] == excess


def test_latency_is_measured_before_an_evaluation() -> None:
    """`a` of 2 is outside; of 3 it fails; the others are evaluated with what was measured."""
    results: dict[int, Any] = {2: rejected(2), 3: broken(3)}
    hands = Hands(scored)
    loop, progress = begun([1, 2, 3, 4], hands)
    measure = Inline(lambda params: results.get(params["a"], params["a"] / 4))
    loop.executor = MeasuredFirst(measure, hands)

    loop.sample(3, progress.append)

    assert hands.examined == [1, 4]
    assert loop.history.outcomes == {"scored": 2, "rejected": 1, "failed": 1}


def test_a_space_that_fails_is_a_failed_candidate() -> None:
    def failing(trial: BaseTrial) -> nn.Module:
        raise ValueError(f"no {trial.suggest_int('a', 0, 99)}")

    loop, progress = begun([1, 2], hands := Hands(scored))
    loop.propose = Proposer(failing)
    loop.sample(2, progress.append)

    assert not hands.examined and loop.history.reasons == {
        "ValueError: no 1": 1,
        "ValueError: no 2": 1,
    }


# Other processes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


def joined(hands: Hands) -> tuple[Driver, optuna.Trial]:
    """A loop that proposes 5 and then 6, in a study in which another process is at 5."""
    loop, _ = begun([5, 5, 6], hands)
    theirs = loop.study.ask()
    theirs.suggest_int("a", 0, 99)
    theirs.set_user_attr(peers.OWNER, "another")
    loop.peers = Peers(loop.study)
    return loop, theirs


@pytest.mark.parametrize("end", [scored(5), broken(5)])
def test_trial_waits_for_that_of_another_process(end: TrialResult, quick: None) -> None:
    hands = Hands(scored)
    loop, theirs = joined(hands)

    def finish() -> None:
        """Theirs, once ours is waiting for it."""
        if loop._waiting and not loop.history.outcomes:
            theirs.set_user_attr("end", end.as_attribute())
            state = TrialState.COMPLETE if end.score is not None else TrialState.FAIL
            loop.study.tell(theirs, end.score, state)

    hands.meanwhile = finish
    loop.sample(3, lambda progress: None)

    assert hands.examined == [6]
    again = {"reused": 0, "score": 5.0} if end.score else broken(5).as_attribute()
    assert ends(loop)[1] == again and loop.history.within == 3


def test_trial_that_waits_for_a_dead_process_is_examined_here(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "GRACE", 0.2)
    hands = Hands(scored)
    loop, theirs = joined(hands)

    loop.sample(2, lambda progress: None)

    assert sorted(hands.examined) == [5, 6] and loop.history.outcomes == {"scored": 2}
    assert loop.study.trials[theirs.number].state == TrialState.FAIL
    assert ends(loop)[1]["score"] == 5


def test_trial_that_another_process_gave_up_leaves_its_score_to_the_one_that_waits(
    quick: None,
) -> None:
    """The other process thought that this one was dead, and was wrong."""

    def given_up(a: int) -> TrialResult:
        if a == 5:
            first = loop.study.trials[0]._trial_id
            loop.study._storage.set_trial_state_values(first, TrialState.FAIL)
        return scored(a)

    hands = Hands(given_up, 3)
    loop, _ = begun([5, 5, 5, 6], hands)
    loop.peers = Peers(loop.study)
    loop.sample(3, lambda progress: None)

    assert hands.examined == [5, 6] and loop.history.outcomes == {"scored": 2, "reused": 1}
    assert not loop.peers.own  # of those that were looked at nothing is kept
    assert ends(loop)[1:3] == [
        {"score": 5.0, "scores": {"toy": [5.0]}},
        {"reused": 1, "score": 5.0},
    ]


def test_what_another_process_is_at_is_left_out_of_a_list(quick: None) -> None:
    hands = Hands(scored)
    loop, theirs = joined(hands)
    looks = 0

    def finish() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            theirs.set_user_attr("end", scored(5).as_attribute())
            loop.study.tell(theirs, 5.0)

    hands.meanwhile = finish
    loop.resume()
    loop.visit([{"a": a} for a in (4, 5, 6)], lambda progress: None)

    assert hands.examined == [4, 6] and sorted(trial.params["a"] for trial, _ in loop.history) == [
        4,
        5,
        6,
    ]


def test_leaving_closes_what_is_open_for_others_not_to_wait() -> None:
    hands = Hands(scored)
    loop, _ = joined(hands)
    hands.meanwhile = lambda: (_ for _ in ()).throw(KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        loop.sample(3, lambda progress: None)
    assert loop.study.trials[1].state == TrialState.RUNNING
    loop.leave()

    assert loop.study.trials[1].state == TrialState.FAIL and not loop.history.within
    assert loop.study.trials[0].state == TrialState.RUNNING  # not ours
