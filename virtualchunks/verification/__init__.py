"""After the run: do references lead to the values that the files hold?"""

from virtualchunks.verification.report import Problem as Problem
from virtualchunks.verification.report import Verification as Verification
from virtualchunks.verification.run import verify as verify

__all__ = ["Problem", "Verification", "verify"]
