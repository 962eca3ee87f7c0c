"""What a verdict stands on: fitted candidates, figures with intervals, certificates, findings, release or refusal."""

from overproof.evidence.certificates import (
    Certificate,
    Comparison,
    LookCounts,
    MoneySaved,
    MoreRows,
    Moved,
    NextUse,
    Outlook,
    Plan,
    SliceCertificate,
    SlicePlan,
)
from overproof.evidence.challenge import Challenge, Duel
from overproof.evidence.compression import Case, Compression, Kept, Rung
from overproof.evidence.confidence import (
    Calibration,
    CalibrationGap,
    Calibrator,
    CalibratorMethod,
    Confidence,
    FieldCalibrator,
    MethodLoss,
    Reliability,
    ScopeFigure,
    ScopeReport,
    ScopeRule,
    SliceCalibrator,
)
from overproof.evidence.figures import CandidateKind, CurvePoint, Figure, Outcome, Scores, Trained, Verdict
from overproof.evidence.judged import JudgedShare
from overproof.evidence.records import (
    Estimate,
    FieldConfidence,
    FieldScore,
    RecordScores,
    TextScores,
    WrittenBar,
    WrittenReport,
    WrittenScores,
)
from overproof.evidence.reports import (
    CandidateReport,
    Disagreement,
    EvalReport,
    Finding,
    Refusal,
    Release,
    SliceReport,
    TwoByTwo,
)
from overproof.evidence.runtimes import Exported, ExportReport, RuntimeTried
from overproof.evidence.sizing import (
    Believed,
    Budget,
    Curve,
    Expected,
    Gain,
    LimitKind,
    Pair,
    Seeds,
    Size,
    Sizes,
    SizeVerdict,
    Sizing,
)
from overproof.evidence.standing import OneOff, PromptSearch, Span, Standing, StandingReport, Trial

__all__ = ["Believed", "Budget", "Calibration", "CalibrationGap", "Calibrator", "CalibratorMethod", "CandidateKind", "CandidateReport", "Case", "Certificate", "Challenge", "Comparison", "Compression", "Confidence", "Curve", "CurvePoint", "Disagreement", "Duel", "Estimate", "EvalReport", "Expected", "ExportReport", "Exported", "FieldCalibrator", "FieldConfidence", "FieldScore", "Figure", "Finding", "Gain", "JudgedShare", "Kept", "LimitKind", "LookCounts", "MethodLoss", "MoneySaved", "MoreRows", "Moved", "NextUse", "OneOff", "Outcome", "Outlook", "Pair", "Plan", "PromptSearch", "RecordScores", "Refusal", "Release", "Reliability", "Rung", "RuntimeTried", "ScopeFigure", "ScopeReport", "ScopeRule", "Scores", "Seeds", "Size", "SizeVerdict", "Sizes", "Sizing", "SliceCalibrator", "SliceCertificate", "SlicePlan", "SliceReport", "Span", "Standing", "StandingReport", "TextScores", "Trained", "Trial", "TwoByTwo", "Verdict", "WrittenBar", "WrittenReport", "WrittenScores"]
