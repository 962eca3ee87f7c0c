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

__all__ = ["Believed", "Budget", "Calibration", "CalibrationGap", "Calibrator", "CalibratorMethod", "CandidateKind", "CandidateReport", "Certificate", "Comparison", "Confidence", "Curve", "CurvePoint", "Disagreement", "EvalReport", "Expected", "Figure", "Finding", "Gain", "LimitKind", "LookCounts", "MethodLoss", "MoneySaved", "MoreRows", "Moved", "NextUse", "Outcome", "Outlook", "Pair", "Plan", "Refusal", "Release", "Reliability", "ScopeFigure", "ScopeReport", "ScopeRule", "Scores", "Seeds", "Size", "SizeVerdict", "Sizes", "Sizing", "SliceCalibrator", "SliceCertificate", "SlicePlan", "SliceReport", "Trained", "TwoByTwo", "Verdict"]
