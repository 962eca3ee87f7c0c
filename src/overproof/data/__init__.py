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

__all__ = ["BY_STUDENT", "FEEDBACK", "GOLD_SOURCES", "REASONS", "STAGES", "Answered", "Answers", "Asking", "BatchResult", "BatchState", "CalibrationSet", "CanaryRound", "Clearance", "Committee", "Completeness", "Completion", "Dropped", "Example", "Folder", "Gap", "Judgement", "Labelled", "Member", "MixDistance", "Outcome", "Prediction", "PromptRow", "PromptSet", "RateLimits", "Reason", "Repeat", "Request", "Route", "Served", "Skipped", "SliceMatch", "SliceShare", "Stage", "TeacherPin", "TestSet", "ToolCall", "Traffic", "TrafficRecord", "TrainSet", "Turn", "digest_of"]
