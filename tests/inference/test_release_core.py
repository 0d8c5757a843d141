"""Releases as a machine: whatever steps, calls, faults and restarts come, what must hold holds."""

import json
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.release.core import Releases
from inference.release.memory import MemoryInvalidError, remembered, written
from inference.release.rules import PER_WHOLE, Rules, breach, drifted
from inference.release.states import Load, Note, State, Unload, Warm
from inference.release.windows import Compared, Comparison, Sample, stats
from meshkit.contract import Reason, Refusal

NAME = "m"
RULES = Rules(samples_min=5, shadow_samples_min=3, linger_s=5.0, probation_s=60.0, loaded_max=4)
GOOD, BAD = Sample(0.1, 20), Sample(0.1, 0, failed=True)
VERSIONS = st.sampled_from("12345")


def digest(version: str) -> bytes:
    return version.encode().rjust(32, b"d")


def keys():
    made = count()
    return lambda: next(made).to_bytes(16)


class Bench:
    """Does what the core decides, at once and well unless told otherwise; holds what is loaded."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.releases = Releases(rules, keys())
        self.engines: set[str] = set()
        self.calls: dict[int, str] = {}
        self.ids = count()
        self.notes: list[Note] = []
        self.pending: list[object] = []
        self.now_s = 1_000.0

    def take(self, decisions) -> None:
        for decision in decisions:
            if isinstance(decision, Note):
                self.notes.append(decision)
            elif isinstance(decision, Unload):
                assert decision.version in self.engines
                assert decision.version not in self.calls.values(), "unloaded under a call"
                self.engines.discard(decision.version)
            else:
                self.pending.append(decision)

    def work(self, *, well: bool = True) -> None:
        """Do the next piece of loading."""
        decision = self.pending.pop(0)
        version = decision.version
        if not well:
            self.take(self.releases.failed(NAME, version, "broken", self.now_s))
        elif isinstance(decision, Load):
            self.engines.add(version)
            self.take(self.releases.loaded(NAME, version, digest(version)))
        else:
            assert isinstance(decision, Warm)
            self.take(self.releases.warmed(NAME, version, self.now_s))

    def settle(self) -> None:
        while self.pending:
            self.work()

    def up(self, *versions: str) -> None:
        """Register these, the first of them live, the others warm."""
        for version in versions:
            self.take(self.releases.register(NAME, version, digest(version)))
        self.take(self.releases.first(NAME, versions[0]))
        self.settle()
        for version in versions[1:]:
            self.take(self.releases.load(NAME, version))
            self.settle()

    def step(self, name: str, *args, **named) -> None:
        self.take(getattr(self.releases, name)(NAME, *args, **named))
        self.settle()

    def serve(self, version: str, sample: Sample, times: int = 1) -> None:
        for _ in range(times):
            assert self.releases.began(NAME, digest(version), self.now_s) == version
            self.take(self.releases.ended(NAME, version, sample, self.now_s))

    def state(self, version: str) -> State:
        return self.model.versions[version].state

    @property
    def model(self):
        return self.releases.models[NAME]

    @property
    def actions(self) -> list[str]:
        return [note.action for note in self.notes]

    @property
    def traffic(self) -> dict[str, int]:
        return {found.version: share for found, share in self.releases.shares(NAME)}


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.up("1")

    def attempt(self, name: str, *args, **named) -> None:
        before = written(self.bench.releases)
        try:
            self.bench.take(getattr(self.bench.releases, name)(NAME, *args, **named))
        except Refusal:
            assert written(self.bench.releases) == before, "a refused step changed something"

    @rule(version=VERSIONS)
    def register(self, version):
        self.bench.take(self.bench.releases.register(NAME, version, digest(version)))

    @rule(version=VERSIONS)
    def load(self, version):
        self.attempt("load", version)

    @precondition(lambda self: self.bench.pending)
    @rule(well=st.sampled_from([True, True, True, False]))
    def work(self, well):
        self.bench.work(well=well)

    @rule(version=VERSIONS, percent=st.integers(0, 100), replicas=st.integers(0, 1))
    def canary(self, version, percent, replicas):
        self.attempt("canary", version, percent=percent, replicas=replicas, now_s=self.bench.now_s)

    @rule(version=VERSIONS)
    def promote(self, version):
        self.attempt("promote", version, self.bench.now_s)

    @rule()
    def rollback(self):
        model = self.bench.model
        hopeful = {State.WARM, State.REGISTERED, State.LOADED}
        way = any(model.versions[each].state in hopeful for each in model.history)
        try:
            self.bench.take(self.bench.releases.rollback(NAME, self.bench.now_s))
        except Refusal:
            assert not way, "there was a way back"
            assert model.canary is None

    @rule(version=VERSIONS)
    def unload(self, version):
        self.attempt("unload", version, self.bench.now_s)

    @rule(version=VERSIONS, percent=st.integers(0, 101))
    def shadow(self, version, percent):
        self.attempt("shadow", version, percent)

    @rule(which=st.integers(0, 1))
    def begin(self, which):
        parts = self.bench.releases.shares(NAME)
        found, _ = parts[which % len(parts)]
        version = self.bench.releases.began(NAME, found.digest, self.bench.now_s)
        assert version == found.version, "who was sent there is turned away"
        self.bench.calls[next(self.bench.ids)] = version

    @precondition(lambda self: self.bench.calls)
    @rule(sample=st.sampled_from([GOOD, BAD, None]))
    def end(self, sample):
        version = self.bench.calls.pop(min(self.bench.calls))
        self.bench.take(self.bench.releases.ended(NAME, version, sample, self.bench.now_s))

    @rule(version=VERSIONS)
    def down(self, version):
        if version in self.bench.engines:
            self.bench.take(self.bench.releases.down(NAME, version, self.bench.now_s))

    @rule(version=VERSIONS)
    def begin_late(self, version):
        """A call that was sent to a version some time ago: no engine, no call."""
        found = self.bench.releases.began(NAME, digest(version), self.bench.now_s)
        if found is not None:
            assert found == version
            known = self.bench.model.versions[version]
            assert known.state in {State.CANARY, State.LIVE, State.WARM, State.RETIRED}
            self.bench.calls[next(self.bench.ids)] = version

    @rule(agreement=st.sampled_from([0.0, 1.0]), version=VERSIONS)
    def compare(self, agreement, version):
        comparison = Comparison(
            agreement, 1.0, refused_live=False, refused_candidate=False, slower=1.0
        )
        self.bench.releases.compared(NAME, version, comparison, self.bench.now_s)

    @rule(seconds=st.sampled_from([-3_600.0, 0.5, 4.0, 6.0, 100.0, 200_000.0]))
    def tick(self, seconds):
        self.bench.now_s += seconds
        self.bench.take(self.bench.releases.tick(self.bench.now_s))

    @rule(well=st.booleans())
    def restart(self, well):
        bench = self.bench
        kept = written(bench.releases)
        live, history = bench.model.live, list(bench.model.history)
        bench.releases = remembered(kept, RULES, keys())
        assert written(bench.releases) == kept
        bench.engines, bench.calls, bench.pending = set(), {}, []
        bench.take(bench.releases.again())
        if not well and bench.pending and len(bench.model.history):
            bench.work(well=False)
        bench.settle()
        if well:
            assert (bench.model.live, bench.model.history) == (live, history)

    @invariant()
    def one_version_is_live(self):
        lives = [v for v in self.bench.model.versions.values() if v.state is State.LIVE]
        assert [found.version for found in lives] == [self.bench.model.live]

    @invariant()
    def traffic_goes_to_what_is_loaded_and_warm(self):
        parts = self.bench.releases.shares(NAME)
        assert sum(share for _, share in parts) == PER_WHOLE
        for found, share in parts:
            assert share > 0
            assert found.version in self.bench.engines
            assert found.state in {State.CANARY, State.LIVE}
            assert not found.leaving

    @invariant()
    def memory_is_bounded(self):
        assert len(self.bench.engines) <= RULES.loaded_max + RULES.keep
        assert len(self.bench.model.history) < RULES.keep

    @invariant()
    def engines_are_those_that_the_core_believes_in(self):
        held = {v.version for v in self.bench.model.versions.values() if v.held}
        assert self.bench.engines <= held
        assert set(self.bench.calls.values()) <= self.bench.engines


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_whatever_comes_the_promises_hold = Machine.TestCase


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.up("1", "2")
    return made


def refused(bench: Bench, name: str, *args, **named) -> Reason:
    with pytest.raises(Refusal) as caught:
        bench.step(name, *args, **named)
    return caught.value.reason


def test_a_version_goes_all_the_way(bench) -> None:
    assert bench.traffic == {"1": PER_WHOLE}

    bench.step("canary", "2", percent=10, now_s=bench.now_s)
    assert bench.traffic == {"2": 1_000, "1": 9_000}

    bench.step("promote", "2", bench.now_s)
    assert bench.traffic == {"2": PER_WHOLE}
    assert (bench.state("1"), bench.model.history) == (State.WARM, ["1"])
    assert bench.actions == [
        *("model.register", "model.register", "model.load", "model.load"),
        *("model.canary", "model.promote"),
    ]


def test_each_step_is_taken_back_by_one(bench) -> None:
    bench.step("canary", "2", percent=10, now_s=bench.now_s)
    bench.step("rollback", bench.now_s)
    assert (bench.traffic, bench.state("2")) == ({"1": PER_WHOLE}, State.WARM)

    bench.step("promote", "2", bench.now_s)
    bench.step("rollback", bench.now_s)
    assert (bench.traffic, bench.state("2")) == ({"1": PER_WHOLE}, State.WARM)

    bench.step("promote", "2", bench.now_s)
    bench.step("unload", "1", bench.now_s)
    bench.step("load", "1")
    assert bench.state("1") is State.WARM


def test_the_first_promotion_of_another_name_is_taken_back_too(bench) -> None:
    """But not the service's own: whoever calls would be without a model."""
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE
    bench.releases.own = NAME
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE
    bench.releases.own = "another"
    bench.step("promote", "2", bench.now_s)
    bench.step("rollback", bench.now_s)
    assert bench.traffic == {"1": PER_WHOLE}

    bench.step("rollback", bench.now_s)
    assert (bench.traffic, bench.state("1"), bench.model.live) == ({}, State.WARM, "")
    assert bench.notes[-1].action == "model.rollback"
    assert bench.releases.began(NAME, digest("1"), bench.now_s) == "1", "it was on the way"
    bench.take(bench.releases.ended(NAME, "1", GOOD, bench.now_s))
    again = remembered(written(bench.releases), RULES, keys())
    assert written(again) == written(bench.releases)
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE
    assert refused(bench, "canary", "2", percent=5, now_s=bench.now_s) is Reason.WRONG_STATE
    bench.step("promote", "1", bench.now_s)
    assert bench.traffic == {"1": PER_WHOLE}


def test_where_older_ones_were_retired_somebody_always_answers() -> None:
    bench = Bench(Rules(keep=1, keep_loaded=1, linger_s=0.0))
    bench.releases.own = "another"
    bench.up("1", "2")
    bench.step("promote", "2", bench.now_s)
    assert bench.state("1") is State.RETIRED
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE


def loads_again_and_fails(bench) -> None:
    bench.step("unload", "1", bench.now_s)
    bench.take(bench.releases.rollback(NAME, bench.now_s))
    bench.work(well=False)


def is_changed(bench) -> None:
    bench.step("unload", "1", bench.now_s)
    bench.take(bench.releases.register(NAME, "1", digest("other")))


def is_promoted_over(bench) -> None:
    bench.step("promote", "1", bench.now_s)
    bench.step("rollback", bench.now_s)


@pytest.mark.parametrize("forgetting", [loads_again_and_fails, is_changed, is_promoted_over])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_way_back_that_was_lost_does_not_lead_to_nobody(forgetting, restarted) -> None:
    bench = Bench(Rules(linger_s=0.0))
    bench.up("1", "2")
    bench.step("promote", "2", bench.now_s)
    forgetting(bench)
    if restarted:
        bench.releases = remembered(written(bench.releases), RULES, keys())
        bench.take(bench.releases.again())
        bench.settle()

    bench.releases.own = "another"
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE
    assert bench.traffic == {"2": PER_WHOLE}


def test_what_is_still_being_loaded_again_is_not_taken_back() -> None:
    before, bench = Bench(), Bench()
    before.up("1")
    bench.releases = remembered(written(before.releases), RULES, keys())
    bench.releases.own = "another"
    bench.take(bench.releases.again())
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE
    assert refused(bench, "promote", "1", bench.now_s) is Reason.WRONG_STATE
    bench.settle()
    assert bench.traffic == {"1": PER_WHOLE}


@pytest.mark.parametrize("retired", [False, True])
def test_a_memory_of_before_says_by_its_states_whether_older_ones_went(retired) -> None:
    bench = Bench(Rules(keep=1 if retired else 3, keep_loaded=1, linger_s=0.0))
    bench.up("1", "2")
    bench.step("promote", "2", bench.now_s)
    told = json.loads(written(bench.releases))
    assert told["models"][0].pop("older") is retired
    known = remembered(json.dumps(told).encode(), RULES, keys())
    assert known.models[NAME].older is retired


def test_the_last_three_are_kept_and_older_ones_go() -> None:
    bench = Bench()
    bench.up("1")
    for version in "2345":
        bench.step("register", version, digest(version))
        bench.step("load", version)
        bench.step("promote", version, bench.now_s)
        bench.now_s += RULES.linger_s
        bench.take(bench.releases.tick(bench.now_s))

    assert (bench.model.live, bench.model.history) == ("5", ["4", "3"])
    assert [bench.state(version) for version in "12"] == [State.RETIRED] * 2
    assert bench.engines == {"5", "4"}  # the third is loadable, the way back is loaded

    bench.step("rollback", bench.now_s)
    bench.step("rollback", bench.now_s)
    assert bench.model.live == "3"
    assert refused(bench, "rollback", bench.now_s) is Reason.WRONG_STATE


@pytest.mark.parametrize(
    ("candidate", "live", "rule"),
    [
        (BAD, GOOD, "error_rate"),
        (Sample(1.0, 20), GOOD, "p99"),
        (Sample(0.1, 100), GOOD, "drift"),
        (BAD, BAD, None),  # a fault of both is not the candidate's
        (GOOD, BAD, None),
    ],
)
def test_a_candidate_that_goes_wrong_is_taken_back(bench, candidate, live, rule) -> None:
    bench.step("canary", "2", percent=50, now_s=bench.now_s)
    bench.serve("1", live, 5)
    bench.serve("2", candidate, 4)
    bench.take(bench.releases.tick(bench.now_s))
    assert bench.state("2") is State.CANARY  # four are too few to judge by

    bench.serve("2", candidate)
    bench.take(bench.releases.tick(bench.now_s))

    assert bench.state("2") is (State.WARM if rule else State.CANARY)
    if rule:
        assert bench.traffic == {"1": PER_WHOLE}
        assert bench.notes[-1].action == "model.rollback"
        assert (bench.notes[-1].detail["rule"], bench.notes[-1].detail["by"]) == (rule, "rule")


def test_old_faults_are_forgotten(bench) -> None:
    bench.step("canary", "2", percent=50, now_s=bench.now_s)
    bench.serve("2", BAD, 5)
    bench.now_s += RULES.window_s + 1
    bench.take(bench.releases.tick(bench.now_s))

    assert bench.state("2") is State.CANARY


def test_drift_of_the_shadow_ends_the_trial(bench) -> None:
    bench.step("canary", "2", percent=1, now_s=bench.now_s)
    bench.step("shadow", "2", 100)
    other = Comparison(0.1, 1.0, refused_live=False, refused_candidate=False, slower=1.0)
    for _ in range(3):
        bench.take(bench.releases.tick(bench.now_s))
        assert bench.state("2") is State.CANARY
        bench.releases.compared(NAME, "2", other, bench.now_s)
    bench.take(bench.releases.tick(bench.now_s))

    assert bench.state("2") is State.WARM
    assert bench.notes[-1].detail["rule"] == "drift"


def test_a_live_version_is_on_probation(bench) -> None:
    bench.step("promote", "2", bench.now_s)
    bench.serve("2", BAD, 5)
    bench.take(bench.releases.tick(bench.now_s))
    assert bench.model.live == "1"

    bench.step("promote", "2", bench.now_s)
    bench.now_s += RULES.probation_s
    bench.take(bench.releases.tick(bench.now_s))
    bench.serve("2", BAD, 5)
    bench.take(bench.releases.tick(bench.now_s))
    assert bench.model.live == "2"  # by now it is the only truth there is


def test_the_end_of_a_trial_is_told_once_and_it_goes_on(bench) -> None:
    bench.step("canary", "2", percent=10, for_s=60.0, now_s=bench.now_s)
    for _ in range(3):
        bench.now_s += 60.0
        bench.take(bench.releases.tick(bench.now_s))

    assert bench.actions.count("model.canary") == 2
    assert bench.notes[-1].detail["stage"] == "over"
    assert bench.traffic["2"] == 1_000


@pytest.mark.parametrize("replica", range(4))
def test_two_replicas_of_four_take_the_candidate(replica) -> None:
    bench = Bench(Rules(replica=replica, replicas=4))
    bench.up("1", "2")
    bench.step("canary", "2", now_s=bench.now_s)

    assert bench.traffic == ({"2": PER_WHOLE} if replica < 2 else {"1": PER_WHOLE})
    assert bench.model.canary.ends_s == bench.now_s + 48 * 3_600


@pytest.mark.parametrize(
    ("candidate", "why"), [(Sample(9.0, 20), "p99"), (Sample(0.1, 900), "drift"), (GOOD, "")]
)
@pytest.mark.parametrize("promoted", [False, True])
def test_a_replica_that_sends_all_to_the_candidate_knows_what_was_before(
    promoted, candidate, why
) -> None:
    bench = Bench(Rules(replica=0, replicas=4, samples_min=5, linger_s=0.0))
    bench.up("1", "2")
    bench.serve("1", GOOD, 5)
    bench.step("canary", "2", now_s=bench.now_s)
    bench.now_s += 3_600.0
    bench.step("canary", "2", replicas=3, now_s=bench.now_s)  # on more of them: still known
    if promoted:
        bench.step("promote", "2", bench.now_s)
    bench.serve("2", candidate, 5)
    bench.take(bench.releases.tick(bench.now_s))

    assert (bench.traffic == {"1": PER_WHOLE}) is bool(why)
    assert (bench.model.live == "2") is (promoted and not why)
    if why:
        assert bench.notes[-1].detail["rule"] == why


def test_one_replica_alone_is_never_the_canary() -> None:
    bench = Bench()
    bench.up("1", "2")
    bench.step("canary", "2", now_s=bench.now_s)
    assert bench.traffic == {"2": 1_000, "1": 9_000}
    assert refused(bench, "canary", "2", replicas=1, now_s=1.0) is Reason.INVALID_FIELD


def test_what_a_state_does_not_allow_is_refused(bench) -> None:
    wrong, now = Reason.WRONG_STATE, bench.now_s
    assert refused(bench, "promote", "9", now) is Reason.NOT_FOUND
    assert refused(bench, "load", "2") is wrong
    assert refused(bench, "unload", "1", now) is wrong
    assert refused(bench, "promote", "1", now) is wrong
    assert refused(bench, "canary", "1", percent=1, now_s=now) is wrong
    assert refused(bench, "shadow", "1", 10) is wrong
    assert refused(bench, "rollback", now) is wrong
    assert refused(bench, "canary", "2", percent=100, now_s=now) is Reason.INVALID_FIELD
    assert refused(bench, "canary", "2", percent=5, replicas=1, now_s=now) is Reason.INVALID_FIELD
    bench.step("register", "3", digest("3"))
    assert refused(bench, "promote", "3", now) is wrong
    assert refused(bench, "canary", "3", percent=1, now_s=now) is wrong


def test_of_two_loads_at_once_one_is_turned_away(bench) -> None:
    for version in "34":
        bench.step("register", version, digest(version))
    bench.take(bench.releases.load(NAME, "3"))
    with pytest.raises(Refusal) as caught:
        bench.releases.load(NAME, "4")
    bench.settle()

    assert caught.value.reason is Reason.OVERLOADED
    bench.step("load", "4")
    assert bench.state("4") is State.WARM


def test_a_version_whose_manifest_was_changed_is_not_loaded(bench) -> None:
    bench.step("unload", "2", bench.now_s)
    bench.take(bench.releases.register(NAME, "2", b"x" * 32))

    assert (bench.state("2"), bench.actions[-1]) == (State.REFUSED, "model.refuse")
    assert refused(bench, "load", "2") is Reason.WRONG_STATE


def test_a_call_that_was_promised_a_version_gets_it_after_the_switch(bench) -> None:
    bench.step("canary", "2", percent=10, now_s=bench.now_s)
    bench.step("rollback", bench.now_s)
    bench.now_s += RULES.linger_s
    assert bench.releases.began(NAME, digest("2"), bench.now_s) == "2"
    bench.step("unload", "2", bench.now_s)
    assert "2" in bench.engines  # the call is in it

    bench.take(bench.releases.ended(NAME, "2", GOOD, bench.now_s))
    assert "2" not in bench.engines
    assert bench.releases.began(NAME, digest("2"), bench.now_s) is None


def test_a_warm_version_answers_nobody(bench) -> None:
    assert bench.releases.began(NAME, digest("2"), bench.now_s) is None
    bench.step("shadow", "2", 100)
    assert bench.releases.began(NAME, digest("2"), bench.now_s) is None


def test_a_dead_candidate_or_newcomer_makes_way(bench) -> None:
    bench.step("canary", "2", percent=10, now_s=bench.now_s)
    bench.step("down", "2", bench.now_s)
    assert bench.traffic == {"1": PER_WHOLE}

    bench.step("promote", "2", bench.now_s)
    bench.step("down", "2", bench.now_s)
    assert bench.traffic == {"1": PER_WHOLE}
    bench.step("down", "1", bench.now_s)
    assert bench.traffic == {"1": PER_WHOLE}  # whom would it help?


def test_a_live_version_that_cannot_be_loaded_again_gives_way_to_the_one_before(bench) -> None:
    bench.step("promote", "2", bench.now_s)
    later = Bench()
    later.releases = remembered(written(bench.releases), RULES, keys())
    later.take(later.releases.again())
    assert later.pending[0].version == "2"
    later.work(well=False)
    later.settle()

    assert later.traffic == {"1": PER_WHOLE}
    assert later.notes[1].action == "model.rollback"


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_memory_is_refused_whatever_is_damaged(data) -> None:
    bench = Bench()
    bench.up("1", "2", "3")
    bench.step("promote", "2", bench.now_s)
    bench.step("canary", "3", percent=5, now_s=bench.now_s)
    raw = bytearray(written(bench.releases))
    assert written(remembered(bytes(raw), RULES, keys())) == bytes(raw)
    cut = data.draw(st.integers(0, len(raw) - 1))

    with pytest.raises(MemoryInvalidError):
        remembered(bytes(raw[:cut]), RULES, keys())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"live": "2"', b'"live": "1"'),
        (b'"live": "2"', b'"live": "7"'),
        (b'"live": "2"', b'"live": ""'),
        (b'"state": "warm"', b'"state": "live"'),
        (b'"state": "canary"', b'"state": "warm"'),
        (b'"state": "warm"', b'"state": "hot"'),
        (b'"share": 500', b'"share": 10000'),
        (b'"share": 500', b'"share": "500"'),
        (b'"history": [\n    "1"', b'"history": [\n    "2"'),
        (b'"older": false', b'"older": 0'),
        (b"releases/v1", b"releases/v2"),
    ],
)
def test_a_memory_that_contradicts_itself_is_refused(old, new) -> None:
    bench = Bench()
    bench.up("1", "2", "3")
    bench.step("promote", "2", bench.now_s)
    bench.step("canary", "3", percent=5, now_s=bench.now_s)
    raw = written(bench.releases)
    assert old in raw

    with pytest.raises(MemoryInvalidError):
        remembered(raw.replace(old, new), RULES, keys())


@pytest.mark.parametrize(
    ("rules", "candidate_s", "live_s", "why"),
    [
        ({"p99_ms_max": 500.0}, 0.6, 0.4, "p99"),
        ({"p99_ms_max": 500.0}, 0.6, 0.7, ""),  # the live one is no faster
        ({"p99_ms_max": 700.0}, 0.6, 0.4, ""),
        ({"p99_ratio_max": 1.2}, 0.6, 0.4, "p99"),
        ({"p99_ratio_max": 0.0}, 6.0, 0.4, ""),  # off
        ({"p99_ms_max": 500.0}, 0.6, None, "p99"),  # nobody to compare with
        ({}, 6.0, None, ""),
    ],
)
def test_how_slow_is_too_slow(rules, candidate_s, live_s, why) -> None:
    limits = Rules(samples_min=3, **rules)
    live = stats([Sample(live_s, 9)] * 3) if live_s is not None else None

    assert breach(stats([Sample(candidate_s, 9)] * 3), live, limits) == why
    assert breach(stats([Sample(candidate_s, 9)] * 2), live, limits) == ""


def test_the_99th_percentile_is_of_calls_that_ended_well() -> None:
    seen = stats([Sample(n / 100, 10) for n in range(1, 101)] + [BAD] * 100)

    assert (seen.seen, seen.error_rate, seen.p99_s, seen.tokens) == (200, 0.5, 1.0, 10)
    assert stats([]) == stats([BAD])._replace(seen=0, error_rate=0.0)


@pytest.mark.parametrize(("live", "candidate", "drifts"), [(0.0, 0.05, False), (0.0, 0.5, True)])
def test_refusals_that_come_or_go_are_drift(live, candidate, drifts) -> None:
    seen = Compared(20, 1.0, 1.0, live, candidate, 1.0)
    assert drifted(seen, Rules()) is drifts
    assert (
        drifted(seen._replace(refusals_live=candidate, refusals_candidate=live), Rules()) is drifts
    )
    assert not drifted(seen._replace(seen=19), Rules())


def kept_on_disk(bench: Bench) -> Bench:
    """Return another process that remembers what this one wrote."""
    later = Bench()
    later.releases = remembered(written(bench.releases), RULES, keys())
    return later


def unloaded(bench: Bench, version: str) -> None:
    bench.step("unload", version, bench.now_s)
    bench.now_s += RULES.linger_s
    bench.take(bench.releases.tick(bench.now_s))
    assert version not in bench.engines


def test_the_last_of_two_steps_counts_though_the_first_takes_longer() -> None:
    bench = Bench()
    bench.up("1", "2", "3")
    bench.step("promote", "2", bench.now_s)
    unloaded(bench, "1")
    bench.take(bench.releases.rollback(NAME, bench.now_s))  # 1 has to be loaded first
    bench.take(bench.releases.promote(NAME, "3", bench.now_s))
    bench.settle()

    assert (bench.traffic, bench.model.history) == ({"3": PER_WHOLE}, ["2", "1"])


def test_a_rollback_that_takes_its_time_is_told_once(bench) -> None:
    bench.step("promote", "2", bench.now_s)
    unloaded(bench, "1")
    bench.serve("2", BAD, 5)
    for _ in range(3):
        bench.take(bench.releases.tick(bench.now_s))
        bench.take(bench.releases.down(NAME, "2", bench.now_s))
    bench.settle()

    assert bench.traffic == {"1": PER_WHOLE}
    assert bench.actions.count("model.rollback") == 1


def test_an_older_version_that_somebody_loads_stays_loaded() -> None:
    bench = Bench()
    bench.up("1", "2", "3")
    bench.step("promote", "2", bench.now_s)
    bench.step("promote", "3", bench.now_s)
    bench.now_s += RULES.linger_s
    bench.take(bench.releases.tick(bench.now_s))
    assert bench.engines == {"2", "3"}

    bench.step("load", "1")
    bench.now_s += RULES.linger_s
    bench.take(bench.releases.tick(bench.now_s))
    bench.step("canary", "1", percent=1, now_s=bench.now_s)

    assert bench.traffic == {"1": 100, "3": 9_900}


def test_what_ended_the_process_while_it_was_loaded_is_not_loaded_by_itself(bench) -> None:
    bench.step("register", "3", digest("3"))
    bench.take(bench.releases.load(NAME, "3"))
    for _ in range(2):  # its engine is being built, then it is asked
        later = kept_on_disk(bench)
        later.take(later.releases.again())
        later.settle()
        assert later.engines == {"1", "2"}
        assert later.state("3") is State.REGISTERED
        bench.work()


def test_a_clock_that_is_put_back_sends_nobody_to_what_is_being_loaded(bench) -> None:
    bench.step("promote", "2", bench.now_s)
    unloaded(bench, "1")
    bench.take(bench.releases.load(NAME, "1"))
    for _ in range(2):  # being built; being asked for the first time
        assert bench.releases.began(NAME, digest("1"), bench.now_s - 3_600) is None
        bench.work()
    assert bench.state("1") is State.WARM


@pytest.mark.parametrize(("back_s", "goes"), [(1.0, False), (86_400.0, True)])
def test_a_clock_that_is_put_back_keeps_nothing_in_memory(bench, back_s, goes) -> None:
    bench.step("promote", "2", bench.now_s)
    bench.step("unload", "1", bench.now_s)
    bench.now_s -= back_s
    assert (bench.releases.began(NAME, digest("1"), bench.now_s) is None) is goes
    if not goes:
        bench.take(bench.releases.ended(NAME, "1", None, bench.now_s))
    bench.take(bench.releases.tick(bench.now_s))
    assert ("1" not in bench.engines) is goes


def test_a_changed_manifest_is_no_step_further(bench) -> None:
    bench.take(bench.releases.register(NAME, "2", b"x" * 32))
    wrong = Reason.WRONG_STATE
    assert refused(bench, "promote", "2", bench.now_s) is wrong
    assert refused(bench, "canary", "2", percent=1, now_s=bench.now_s) is wrong
    bench.calls[0] = "2"
    bench.model.versions["2"].in_flight = 1
    bench.step("unload", "2", bench.now_s)
    assert refused(bench, "load", "2") is wrong


def test_the_end_of_a_shadow_is_that_of_the_one_that_is_named() -> None:
    bench = Bench()
    bench.up("1", "2", "3")
    bench.step("shadow", "2", 10)
    assert refused(bench, "shadow", "3", 0) is Reason.WRONG_STATE
    bench.step("shadow", "2", 0)

    assert bench.model.shadow is None


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"-1", b"1e300", b"1" + b"0" * 400, b'"9"', b"true", b"null"]
)
def test_the_end_of_a_trial_is_a_time_or_the_memory_is_damaged(bench, value) -> None:
    bench.step("canary", "2", percent=5, now_s=bench.now_s)
    raw = written(bench.releases)
    ends = f'"ends_s": {bench.now_s + RULES.canary_s}'.encode()
    assert ends in raw

    with pytest.raises(MemoryInvalidError):
        remembered(raw.replace(ends, b'"ends_s": ' + value), RULES, keys())


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"\xff", b"null", b"{}", b"9" * 5_000])
def test_what_is_no_memory_at_all_is_refused(raw) -> None:
    with pytest.raises(MemoryInvalidError):
        remembered(raw, RULES, keys())
