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
)

__all__ = ["ALL", "BY_STUDENT", "FEEDBACK", "GOLD_SOURCES", "REASONS", "STAGES", "Answered", "Answers", "Asking", "BatchResult", "BatchState", "CalibrationSet", "CanaryRound", "Clearance", "Committee", "Completeness", "Completion", "Dropped", "Example", "Folder", "Gap", "Judgement", "Labelled", "Member", "MixDistance", "Outcome", "PlannedStage", "Prediction", "PromptRow", "PromptSet", "RateLimits", "Reason", "Repeat", "Request", "RolloutState", "Route", "Served", "Skipped", "SliceMatch", "SliceShare", "Stage", "StageCounts", "TeacherPin", "TestSet", "ToolCall", "Traffic", "TrafficRecord", "TrainSet", "Turn", "digest_of", "planned_stages", "seconds_of", "stage_problems"]
