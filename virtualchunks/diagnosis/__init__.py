"""Before the run: what an archive is like, and whether it combines."""

from virtualchunks.diagnosis.report import Diagnosis as Diagnosis
from virtualchunks.diagnosis.run import diagnose as diagnose
from virtualchunks.diagnosis.trial import Verdict as Verdict

__all__ = ["Diagnosis", "Verdict", "diagnose"]
