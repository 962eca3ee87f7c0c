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
from overproof.evidence.confidence import (
    Calibration,
    CalibrationGap,
    Calibrator,
    CalibratorMethod,
    Confidence,
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

__all__ = ["Calibration", "CalibrationGap", "Calibrator", "CalibratorMethod", "CandidateKind", "CandidateReport", "Certificate", "Comparison", "Confidence", "CurvePoint", "Disagreement", "Estimate", "EvalReport", "FieldScore", "Figure", "Finding", "JudgedShare", "LookCounts", "MethodLoss", "MoneySaved", "MoreRows", "Moved", "NextUse", "Outcome", "Outlook", "Plan", "RecordScores", "Refusal", "Release", "Reliability", "ScopeFigure", "ScopeReport", "ScopeRule", "Scores", "SliceCalibrator", "SliceCertificate", "SlicePlan", "SliceReport", "TextScores", "Trained", "TwoByTwo", "Verdict", "WrittenBar", "WrittenReport", "WrittenScores"]
