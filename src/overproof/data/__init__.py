"""The rows that flow through the house: requests, completions, sets. Frozen, keyword-only, no I/O."""

from overproof.data.answers import (
    Answered,
    Answers,
    Asking,
    BatchResult,
    BatchState,
    CanaryRound,
    Clearance,
    Committee,
    Member,
    Outcome,
    RateLimits,
    Repeat,
    TeacherPin,
)
from overproof.data.labels import (
    CalibrationSet,
    Dropped,
    Example,
    Judgement,
    Labelled,
    Prediction,
    TestSet,
    TrainSet,
)
from overproof.data.prompts import Gap, MixDistance, PromptRow, PromptSet, SliceMatch, SliceShare
from overproof.data.refresh import PICKED, Failed, NextSet, Picked, Why, call_digest
from overproof.data.rollout import (
    ALL,
    PlannedStage,
    RolloutState,
    StageCounts,
    planned_stages,
    seconds_of,
    stage_problems,
)
from overproof.data.served import BY_STUDENT, REASONS, STAGES, Reason, Route, Served, Stage
from overproof.data.traffic import (
    FEEDBACK,
    GOLD_SOURCES,
    MOST_NAMED,
    Completeness,
    Completion,
    Folder,
    Request,
    Skipped,
    ToolCall,
    Traffic,
    TrafficRecord,
    Turn,
    digest_of,
    named,
)
from overproof.data.watch import (
    ACTS,
    OCCASIONS,
    Act,
    Alarm,
    Audit,
    AuditPlan,
    AuditSource,
    AuditState,
    ExampleShown,
    Hold,
    Occasion,
    Reading,
    Signal,
    SliceDraw,
    Trigger,
    WatchReport,
)

__all__ = ["ACTS", "ALL", "BY_STUDENT", "FEEDBACK", "GOLD_SOURCES", "MOST_NAMED", "OCCASIONS", "PICKED", "REASONS", "STAGES", "Act", "Alarm", "Answered", "Answers", "Asking", "Audit", "AuditPlan", "AuditSource", "AuditState", "BatchResult", "BatchState", "CalibrationSet", "CanaryRound", "Clearance", "Committee", "Completeness", "Completion", "Dropped", "Example", "ExampleShown", "Failed", "Folder", "Gap", "Hold", "Judgement", "Labelled", "Member", "MixDistance", "NextSet", "Occasion", "Outcome", "Picked", "PlannedStage", "Prediction", "PromptRow", "PromptSet", "RateLimits", "Reading", "Reason", "Repeat", "Request", "RolloutState", "Route", "Served", "Signal", "Skipped", "SliceDraw", "SliceMatch", "SliceShare", "Stage", "StageCounts", "TeacherPin", "TestSet", "ToolCall", "Traffic", "TrafficRecord", "TrainSet", "Trigger", "Turn", "WatchReport", "Why", "call_digest", "digest_of", "named", "planned_stages", "seconds_of", "stage_problems"]
