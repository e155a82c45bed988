"""An append-only audit trail in one SQLite file, in which edits are found at a level that it names."""

from fairlayer._keywords import explain_public
from fairlayer.trail.amending import ChainRow, JointTrail
from fairlayer.trail.batches import decisions_of
from fairlayer.trail.checkpoint import Checkpoint, read_checkpoint
from fairlayer.trail.erasing import Erasure
from fairlayer.trail.errors import RetentionError, TrailClockError, TrailError, TrailKeyError
from fairlayer.trail.joint import JointVerification, copy_chains, joint_checkpoint, verify_chains
from fairlayer.trail.keys import read_key
from fairlayer.trail.period import CellCount, PeriodReport, report
from fairlayer.trail.proofs import Proof, ProvenRow, check_proof, prove
from fairlayer.trail.pruning import Pruning
from fairlayer.trail.reading import Row, rows_between
from fairlayer.trail.records import Access, Configuration, Decision, Override, Record
from fairlayer.trail.signatures import Ed25519Signer, Ed25519Verifier
from fairlayer.trail.slots import SlotTrail
from fairlayer.trail.trail import AuditTrail
from fairlayer.trail.verification import Finding, Level, Verification
from fairlayer.trail.verifying import verify

__all__ = [
    "Access",
    "AuditTrail",
    "CellCount",
    "ChainRow",
    "Checkpoint",
    "Configuration",
    "Decision",
    "Ed25519Signer",
    "Ed25519Verifier",
    "Erasure",
    "Finding",
    "JointTrail",
    "JointVerification",
    "Level",
    "Override",
    "PeriodReport",
    "Proof",
    "ProvenRow",
    "Pruning",
    "Record",
    "RetentionError",
    "Row",
    "SlotTrail",
    "TrailClockError",
    "TrailError",
    "TrailKeyError",
    "Verification",
    "check_proof",
    "copy_chains",
    "decisions_of",
    "joint_checkpoint",
    "prove",
    "read_checkpoint",
    "read_key",
    "report",
    "rows_between",
    "verify",
    "verify_chains",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
