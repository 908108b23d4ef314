"""What a history can break."""

from __future__ import annotations

from enum import Enum

import msgspec


class Rule(Enum):
    """A rule that must hold, with the guarantee it is part of."""

    TORN_BATCH = "G1", "a batch is stored whole, contiguous and in order, or not at all"
    TORN_READ = "G1", "no snapshot shows part of a batch"
    GAP = "G2", "sequences are 1…N"
    UNKNOWN_EVENT = "G2", "only what was appended is in the log"
    LATE_EVENT = "G3", "nothing appears below a sequence that was seen"
    CHANGED_EVENT = "G3", "what was seen, or acknowledged, is what the log holds"
    OUT_OF_ORDER = "G4", "an append that began after another returned stands above it"
    STALE_READ = "G4", "a read sees every append that returned before it began"
    HEAD_WENT_BACK = "G4", "a read sees all that a read which ended before it began saw"
    TIME_WENT_BACK = "G4", "recorded_at never goes back along the log"
    WRONG_VERSION = "G5", "an entity's versions are 1…n in sequence order"
    TWO_WINNERS = "G5", "of appends that expect the same version one wins"
    EXPECTATION_IGNORED = "G5", "an accepted expected_version was true at the append's place"
    UNJUSTIFIED_CONFLICT = "G5", "a reported actual_version was true during the call"
    CONDITION_IGNORED = "G6", "an accepted condition held at the append's place"
    UNJUSTIFIED_CONDITION = "G6", "a condition that fails names an event that matches"
    DUPLICATE_ID = "G7", "an event id is stored once"
    WRONG_REPEAT = "G7", "a repeat returns the recorded events"
    REPEAT_REFUSED = "G7", "a repeat is never refused"
    UNJUSTIFIED_DUPLICATE = "G7", "an id reported as a duplicate is recorded"
    REFUSED_BUT_STORED = "G7", "what was refused is not in the log"
    LOST_EVENT = "G8", "what was acknowledged, or seen, is in the log"
    BAD_INPUT_STORED = "G11", "an invalid event is refused"
    UNREADABLE = "G2", "the whole log can be read"
    POSITION_PASSED = "G12", "a position that the log does not hold is refused"
    POSITION_REFUSED = "G12", "a position that the log holds is taken"
    HUNG = "G12", "a call ends in time"
    NO_RECOVERY = "G12", "once a fault is over, appends are acknowledged again"
    UNEXPECTED_ERROR = "G12", "a call returns or raises as documented"

    @property
    def guarantee(self) -> str:
        """Which guarantee of the contract it is part of."""
        return self.value[0]


class Violation(msgspec.Struct, frozen=True):
    """A rule that a history breaks, and where."""

    rule: Rule
    detail: str

    def __str__(self) -> str:
        return f"{self.rule.guarantee} {self.rule.name.lower()}: {self.detail}"
