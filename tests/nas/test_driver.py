"""The loop by itself: its crew says how candidates end, and in which order."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from diswot.executors.pool import Answer, Outcome
from diswot.nas import driver as module
from diswot.nas import peers
from diswot.nas.aging_evolution import AgingEvolutionSampler, key
from diswot.nas.driver import Loop, Progress
from diswot.nas.evaluator import Asked
from diswot.nas.peers import Others
from diswot.nas.samplers import Listed

End = dict[str, Any]

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class Hands:
    """A crew of so many, which examines an architecture of one choice, `a`.

    Each time it is waited for it asks about all tasks that it has not asked about, and then ends
    one; the last first, if so told.

    Attributes:
        ends: How an architecture ends; None is a death of its worker.
        size: Of the crew.
        backwards: Whether the last task that was put is the first to be asked about and to end.
        meanwhile: Called each time it is waited for.
        examined: The architectures.
    """

    ends: Callable[[int], End | None]
    size: int = 1
    backwards: bool = False
    meanwhile: Callable[[], None] = lambda: None
    examined: list[int] = field(default_factory=list)
    _put: list[int] = field(default_factory=list)
    _ended: dict[int, Outcome] = field(default_factory=dict)

    @property
    def room(self) -> int:
        return self.size - len(self._put) - len(self._ended)

    def put(self, key: Hashable, content: Any, *, patience: int = 1) -> None:
        assert isinstance(key, int) and content == ("examine", key)
        self._put.append(key)

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        self.meanwhile()
        order = reversed if self.backwards else iter
        for number in order(self._put):  # type: ignore[operator]
            self._ended[number] = self._examine(number, partial(answer, number))
        self._put.clear()
        if not self._ended:
            return []
        return [self._ended.pop((max if self.backwards else min)(self._ended))]

    def _examine(self, number: int, ask: Callable[[Any], Any]) -> Outcome:
        chosen = Asked(ask, number).suggest_int("a", 0, 99)
        if (before := ask(("judge", {"a": chosen}))) is not None:
            return Outcome(number, before)
        self.examined.append(chosen)
        end = self.ends(chosen)
        dead = {"kind": "killed", "reason": "of a signal"}
        return Outcome(number, **dead) if end is None else Outcome(number, end)


@dataclass
class Wide:
    """A crew that scores an architecture of so many choices at once."""

    places: int
    room: int = 1
    _number: int = -1

    def put(self, key: Hashable, content: Any, *, patience: int = 1) -> None:
        self._number, self.room = content[1], 0

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        number, self.room = self._number, 1
        trial = Asked(partial(answer, number), number)
        for place in range(self.places):
            trial.suggest_int(f"place{place}", 0, 9)
        return [Outcome(number, answer(number, ("judge", trial.params)) or scored(number))]


def scored(a: int) -> End:
    score, costs = float(a), {"macs": 10.0 * a}
    return {"score": score, "scores": {"toy": [score]}, "costs": costs, "model_params": a}


def rejected(a: int) -> End:
    return {"rejected": {"of": "params", "value": a, "limit": 0}}


def broken(a: int) -> End:
    return {"failed": f"ValueError: {a}", "kind": "error"}


def begun(
    proposals: Iterable[int], hands: Hands, objectives: Sequence[str] = ("score",)
) -> tuple[Loop, list[Progress]]:
    """A loop whose sampler proposes these, in memory, and the list that takes its progress."""
    sampler = Listed(deque({"a": a} for a in proposals))
    directions = ["maximize", *["minimize"] * (len(objectives) - 1)]
    study = optuna.create_study(sampler=sampler, directions=directions)
    return Loop(study, hands, tuple(objectives)), []


def ends(loop: Loop) -> list[End]:
    """How the trials ended, in their order, without costs and sizes."""
    kept = [dict(trial.user_attrs.get("end", {})) for trial in loop.study.trials]
    left = ("costs", "model_params")
    return [{name: value for name, value in end.items() if name not in left} for end in kept]


# How many


def test_rejected_ones_do_not_count() -> None:
    """Even ones are outside the budget; of three trials within it 5 is the best."""
    hands = Hands(lambda a: scored(a) if a % 2 else rejected(a))
    loop, told = begun(range(10), hands)

    loop.sample(3, told.append)

    assert hands.examined == [0, 1, 2, 3, 4, 5]
    assert loop.trials() == 3 and loop.best == 5 and loop.ends == {"scores": 3, "rejected": 3}
    assert [p.done for p in told] == [0, 0, 1, 1, 2, 2, 3] and {p.total for p in told} == {3}
    assert [p.best for p in told] == [None, None, 1, 1, 3, 3, 5]
    states = [trial.state for trial in loop.study.trials]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE] * 3
    assert len(loop.seconds) == 3


CREWS = pytest.mark.parametrize(
    ("size", "backwards"), [(1, False), (2, False), (3, True), (5, False), (5, True)]
)


@CREWS
@pytest.mark.parametrize(("within", "looked"), [((), 3), ((1,), 5), ((2, 5), 9), ((2, 5, 6, 7), 8)])
def test_so_many_rejected_in_a_row_end_it(
    within: tuple[int, ...],
    looked: int,
    size: int,
    backwards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three in a row, or four that are not, in whatever order a crew ends them."""
    monkeypatch.setattr(module, "MAX_REJECTED", 3)
    hands = Hands(lambda a: scored(a) if a in within else rejected(a), size, backwards)
    loop, told = begun(range(20), hands)

    loop.sample(4, told.append)

    assert sorted(hands.examined) == list(range(looked)) and loop.trials() == len(within)
    assert len(loop.study.trials) == looked


@CREWS
@pytest.mark.parametrize(("within", "looked"), [((), 3), ((2,), 6), ((4,), 3)])
def test_nothing_but_failures_end_it(
    within: tuple[int, ...],
    looked: int,
    size: int,
    backwards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where one was scored, failures are trials like others."""
    monkeypatch.setattr(module, "MAX_FAILED", 3)
    hands = Hands(lambda a: scored(a) if a in within else broken(a), size, backwards)
    loop, told = begun(range(20), hands)

    loop.sample(6, told.append)

    assert sorted(hands.examined) == list(range(looked))
    assert loop.ends["failed"] == looked - (2 in within)
    assert {trial.state for trial in loop.study.trials if trial.number not in within} == {
        TrialState.FAIL
    }


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_more_are_asked_for_than_one_alone_would(size: int) -> None:
    hands = Hands(scored, size)
    loop, told = begun(range(9), hands)

    loop.sample(5, told.append)

    assert len(loop.study.trials) == 5 and sorted(hands.examined) == list(range(5))


# What is known


def test_equal_architectures_are_examined_once() -> None:
    hands = Hands(lambda a: scored(a) if a else broken(a))
    loop, told = begun([3, 0, 3, 0, 4], hands)

    loop.sample(5, told.append)

    assert hands.examined == [3, 0, 4]
    assert ends(loop)[2:4] == [{"reused": 0, "score": 3.0}, broken(0)]
    assert loop.ends == {"scores": 2, "failed": 2, "reused": 1}
    assert loop.reasons == {"ValueError: 0": 2} and loop.kinds == {"error": 2}
    assert loop.known[key({"a": 3})]["trial"] == 0 and len(loop.seconds) == 2
    assert loop.study.trials[2].value == 3


def kept(places: int) -> float:
    """Bytes that our own lines allocated and keep, of each of 300 trials of so many choices."""
    ours = [tracemalloc.Filter(True, str(Path(module.__file__).parent / "*"))]
    loop = Loop(optuna.create_study(sampler=AgingEvolutionSampler()), Wide(places))
    sizes = []
    tracemalloc.start()
    for trials in (200, 500):
        loop.sample(trials, lambda progress: None)
        traces = tracemalloc.take_snapshot().filter_traces(ours).traces
        sizes.append(sum(trace.size for trace in traces))
    tracemalloc.stop()
    return (sizes[1] - sizes[0]) / 300


def test_of_a_trial_is_kept_who_it_was_and_its_number() -> None:
    """Twice in some 200 bytes, however many choices it has; the rest is in the study."""
    few, many = kept(8), kept(32)

    assert 100 < few < 500 and many == pytest.approx(few, rel=0.2)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_first_of_equal_open_trials_is_the_scored_one(backwards: bool) -> None:
    """Whichever the crew takes up first: so it does not depend on the number of workers."""
    hands = Hands(scored, 3, backwards)
    loop, told = begun([5, 5, 6, 5], hands)

    loop.sample(4, told.append)

    assert Counter(hands.examined) == {5: 1, 6: 1}
    assert ends(loop)[0]["scores"] == {"toy": [5.0]}
    assert [ends(loop)[i] for i in (1, 3)] == [{"reused": 0, "score": 5.0}] * 2
    assert told[-1].done == 4 and not loop._alike and not loop._examined


@pytest.mark.parametrize("backwards", [False, True])
def test_open_trials_that_wait_for_a_dead_one_fail_with_it(backwards: bool) -> None:
    hands = Hands(lambda a: None, 2, backwards)
    loop, told = begun([5, 5], hands)

    loop.sample(2, told.append)

    dead = {"failed": "killed: of a signal", "kind": "killed"}
    assert hands.examined == [5] and ends(loop) == [dead, dead]
    assert loop.kinds == {"killed": 2}


@pytest.mark.parametrize("backwards", [False, True])
def test_rejected_ones_that_wait_are_counted_with_the_first(
    backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REJECTED", 4)
    hands = Hands(rejected, 2, backwards)
    loop, told = begun([5, 5, 6, 6, 7, 7], hands)

    loop.sample(1, told.append)

    assert sorted(hands.examined) == [5, 6] and loop.ends == {"rejected": 4}


def test_values_are_told_in_the_order_of_the_objectives() -> None:
    loop, told = begun([3, 3], Hands(scored), ["score", "macs"])

    loop.sample(2, told.append)

    assert [trial.values for trial in loop.study.trials] == [[3.0, 30.0], [3.0, 30.0]]


# A list


@pytest.mark.parametrize("size", [1, 3])
def test_list_is_visited_once_but_for_what_is_known(size: int) -> None:
    hands = Hands(lambda a: broken(a) if a == 2 else scored(a), size)
    loop, told = begun([1, 4], hands)
    loop.sample(2, told.append)

    loop.visit([{"a": a} for a in range(5)], told.append)

    assert sorted(hands.examined[2:]) == [0, 2, 3]
    assert [(p.done, p.total) for p in told[3:]] == [(2, 5), (3, 5), (4, 5), (5, 5)]
    loop.visit([{"a": a} for a in range(5)], told.append)
    assert len(hands.examined) == 5 and told[-1].done == 5


# What a killed process leaves


def test_trials_that_were_left_open_are_closed() -> None:
    """One without an end is given up; of one whose end was written, only Optuna is to be told."""
    loop, told = begun([1, 2, 3, 4], hands := Hands(scored))
    for end in (scored(1), None, rejected(3)):
        trial = loop.study.ask()
        trial.suggest_int("a", 0, 99)
        if end is not None:
            trial.set_user_attr("end", end)

    loop.recall()

    states = [trial.state for trial in loop.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]
    assert loop.study.trials[0].value == 1 and loop.best == 1
    assert loop.ends == {"scores": 1, "rejected": 1} and key({"a": 2}) not in loop.known
    loop.sample(2, told.append)
    assert hands.examined == [4] and [p.done for p in told] == [1, 2]


def test_question_about_a_trial_that_has_ended_is_answered_with_an_error() -> None:
    loop, told = begun([1], Hands(scored))
    loop.sample(1, told.append)

    assert str(loop._answer(0, ("judge", {"a": 1}))) == "this trial has ended"


def test_choice_that_changed_is_an_answer_and_not_raised() -> None:
    loop, _ = begun([], Hands(scored))
    loop.study.sampler = optuna.samplers.RandomSampler(seed=0)
    two, three = (optuna.distributions.CategoricalDistribution(range(n)) for n in (2, 3))
    loop.study.tell(loop.study.ask({"a": two}), 1.0)
    trial = loop.study.ask()
    loop._open[trial.number] = module._Open(trial, 0.0)

    assert loop._answer(trial.number, ("suggest", "a", two)) in (0, 1)
    error = loop._answer(trial.number, ("suggest", "a", three))
    assert isinstance(error, ValueError) and "does not support dynamic value space" in str(error)


def test_latency_is_measured_by_the_driver() -> None:
    loop, _ = begun([1], Hands(scored))
    loop.latency = lambda params: params["a"] / 4
    loop._open[0] = module._Open(loop.study.ask(), 0.0)

    assert loop._answer(0, ("latency", {"a": 3})) == 0.75


# Other processes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


def joined(hands: Hands) -> tuple[Loop, optuna.Trial]:
    """A loop that proposes 5 and then 6, in a study in which another process is at 5."""
    loop, _ = begun([5, 5, 6], hands)
    theirs = loop.study.ask()
    theirs.suggest_int("a", 0, 99)
    theirs.set_user_attr(peers.OWNER, "another")
    loop.others = Others(loop.study)
    return loop, theirs


@pytest.mark.parametrize("end", [scored(5), broken(5)])
def test_trial_waits_for_that_of_another_process(end: End, quick: None) -> None:
    hands = Hands(scored)
    loop, theirs = joined(hands)

    def finish() -> None:
        """Theirs, once ours is waiting for it."""
        if loop._alike and not loop.ends:
            theirs.set_user_attr("end", end)
            state = TrialState.COMPLETE if "score" in end else TrialState.FAIL
            loop.study.tell(theirs, end.get("score"), state)

    hands.meanwhile = finish
    loop.sample(3, lambda progress: None)

    assert hands.examined == [6]
    again = {"reused": 0, "score": 5.0} if "score" in end else broken(5)
    assert ends(loop)[1] == again and loop.trials() == 3


def test_trial_that_waits_for_a_dead_process_is_examined_here(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "GRACE", 0.2)
    hands = Hands(scored)
    loop, theirs = joined(hands)

    loop.sample(2, lambda progress: None)

    assert sorted(hands.examined) == [5, 6] and loop.ends == {"scores": 2}
    assert loop.study.trials[theirs.number].state == TrialState.FAIL
    assert ends(loop)[1]["score"] == 5


def test_trial_that_another_process_gave_up_leaves_its_score_to_the_one_that_waits(
    quick: None,
) -> None:
    """The other process thought that this one was dead, and was wrong."""

    def given_up(a: int) -> End:
        if a == 5:
            first = loop.study.trials[0]._trial_id
            loop.study._storage.set_trial_state_values(first, TrialState.FAIL)
        return scored(a)

    hands = Hands(given_up, 3)
    loop, _ = begun([5, 5, 5, 6], hands)
    loop.others = Others(loop.study)
    loop.sample(3, lambda progress: None)

    assert hands.examined == [5, 6] and loop.ends == {"scores": 2, "reused": 1}
    assert not loop.others.mine  # of those that were looked at nothing is kept
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
            theirs.set_user_attr("end", scored(5))
            loop.study.tell(theirs, 5.0)

    hands.meanwhile = finish
    loop.recall()
    loop.visit([{"a": a} for a in (4, 5, 6)], lambda progress: None)

    assert hands.examined == [4, 6] and set(loop.known) == {key({"a": a}) for a in (4, 5, 6)}


def test_leaving_closes_what_is_open_for_others_not_to_wait() -> None:
    hands = Hands(scored)
    loop, _ = joined(hands)
    hands.meanwhile = lambda: (_ for _ in ()).throw(KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        loop.sample(3, lambda progress: None)
    assert loop.study.trials[1].state == TrialState.RUNNING
    loop.leave()

    assert loop.study.trials[1].state == TrialState.FAIL and not loop.trials()
    assert loop.study.trials[0].state == TrialState.RUNNING  # not ours
