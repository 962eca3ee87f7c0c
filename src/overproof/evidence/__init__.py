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
from overproof.evidence.standing import OneOff, PromptSearch, Span, Standing, StandingReport, Trial

__all__ = ["Calibration", "CalibrationGap", "Calibrator", "CalibratorMethod", "CandidateKind", "CandidateReport", "Certificate", "Comparison", "Confidence", "CurvePoint", "Disagreement", "EvalReport", "Figure", "Finding", "LookCounts", "MethodLoss", "MoneySaved", "MoreRows", "Moved", "NextUse", "OneOff", "Outcome", "Outlook", "Plan", "PromptSearch", "Refusal", "Release", "Reliability", "ScopeFigure", "ScopeReport", "ScopeRule", "Scores", "SliceCalibrator", "SliceCertificate", "SlicePlan", "SliceReport", "Span", "Standing", "StandingReport", "Trained", "Trial", "TwoByTwo", "Verdict"]
