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
from overproof.evidence.runtimes import Exported, ExportReport, RuntimeTried

__all__ = ["Calibration", "CalibrationGap", "Calibrator", "CalibratorMethod", "CandidateKind", "CandidateReport", "Certificate", "Comparison", "Confidence", "CurvePoint", "Disagreement", "Estimate", "EvalReport", "ExportReport", "Exported", "FieldScore", "Figure", "Finding", "JudgedShare", "LookCounts", "MethodLoss", "MoneySaved", "MoreRows", "Moved", "NextUse", "Outcome", "Outlook", "Plan", "RecordScores", "Refusal", "Release", "Reliability", "RuntimeTried", "ScopeFigure", "ScopeReport", "ScopeRule", "Scores", "SliceCalibrator", "SliceCertificate", "SlicePlan", "SliceReport", "TextScores", "Trained", "TwoByTwo", "Verdict", "WrittenBar", "WrittenReport", "WrittenScores"]
