"""The closed lists of words in which the verdict speaks."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The four answers to "is it worth fine-tuning?"."""

    FINE_TUNE = "FINE_TUNE"
    DO_NOT_FINE_TUNE = "DO_NOT_FINE_TUNE"
    UNDECIDED = "UNDECIDED"
    INVALID = "INVALID"


class Because(StrEnum):
    """Why, as codes; a verdict may have several."""

    GAIN = "gain"
    NO_GAIN = "no_gain"
    WORSE = "worse"
    COST = "cost"
    TARGET_MET = "target_met"
    UNDERPOWERED = "underpowered"
    LEAK = "leak"
    BROKEN = "broken"
    NO_BASELINE = "no_baseline"
    NOT_TESTED = "not_tested"
    FORGETTING = "forgetting"
    CONSTANT = "constant"
    LOOKS = "looks"


class CostClass(StrEnum):
    """What the interval of the monthly saving says."""

    SAVES = "saves"
    DEARER = "dearer"
    UNCLEAR = "unclear"
    UNKNOWN = "unknown"


class GainClass(StrEnum):
    """Where the interval [L, U] of the gain lies; M is the minimal gain worth having."""

    BETTER = "better"  # L > M
    EQUIVALENT = "equivalent"  # -M < L <= M, U <= M
    NOT_WORSE = "not_worse"  # -M < L <= M, U > M
    NOT_BETTER = "not_better"  # L <= -M, 0 <= U <= M
    WORSE = "worse"  # L <= -M, U < 0
    UNRESOLVED = "unresolved"  # L <= -M, U > M; or fewer than six clusters


class ForgettingStatus(StrEnum):
    """Whether the tuned model can still do what the base could."""

    PASSED = "passed"
    FAILED = "failed"
    UNPROVEN = "unproven"
    UNMEASURED = "unmeasured"


class Method(StrEnum):
    """How the interval of a paired difference was made."""

    NEWCOMBE_TANGO = "newcombe_tango"
    RARE_EVENTS = "rare_events"
    PAIRED_T = "paired_t"
    BCA = "bca_bootstrap"
    ZERO_VARIANCE = "zero_variance"
    CLUSTER_T = "cluster_t"
    TWO_LEVEL_T = "two_level_t"
    SIMULTANEOUS = "simultaneous"
    WHOLE_RANGE = "whole_range"


class SignificanceTest(StrEnum):
    """How the (descriptive) p-value of "no difference" was made."""

    MCNEMAR_MIDP = "mcnemar_midp"
    MCNEMAR_EXACT = "mcnemar_exact"
    SIGN_FLIP = "sign_flip"
    CLUSTER_SIGN_FLIP = "cluster_sign_flip"
    SWAP = "swap"
    CLUSTER_SWAP = "cluster_swap"
    T = "t"
    NONE = "none"


class BreakEvenKind(StrEnum):
    """At which volumes the fine-tuned candidate is the cheaper one."""

    ALWAYS = "always"
    NEVER = "never"
    ABOVE = "above"
    BELOW = "below"


class About(StrEnum):
    """What the comparison speaks about: one set of weights, or the way they were made."""

    CHECKPOINT = "this checkpoint"
    RECIPE = "the recipe"
