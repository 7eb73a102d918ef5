"""What can go wrong, as one tree.

::

    BlockflowError
    ├── PlanError (ValueError)          the description of the work cannot be right
    │   ├── GeometryError               a ROI, shape or voxel size that does not fit its neighbours
    │   └── TaskGraphError              duplicate ids, cycles, unknown upstream tasks
    ├── ArrayError
    │   ├── OutOfBoundsError (IndexError)   a ROI reaches outside an array
    │   ├── MetadataError (ValueError)      a store says nothing usable about itself
    │   ├── ArrayNotFoundError (FileNotFoundError)  there is no array at this path
    │   └── ValueLossError (ValueError)     values that the array's dtype cannot hold
    ├── ProtocolError
    │   ├── LocalProtocolError          this side broke the rules of the wire: a bug in blockflow
    │   └── RemoteProtocolError         the other side did: its connection is closed
    ├── RunError (RuntimeError)
    │   ├── BlockError                  blocks failed in worker processes, and their own exception could not be sent
    │   ├── NotShippableError (TypeError)   a function that cannot be sent to a worker process
    │   ├── UntrustedFileError (PermissionError)    another user could have made or changed a file of the run
    │   ├── ConnectionFileError         no usable connection file: absent, readable by others, damaged
    │   ├── UnreachableError (ConnectionError)  nobody answers at the address, or not with this run's key
    │   └── LedgerError                 what happened to the blocks cannot be read or recorded
    │       ├── RunDirectoryError       a directory that cannot be used: foreign, not private, not writable
    │       ├── LedgerVersionError      written by a blockflow whose format this one does not read
    │       ├── DamagedLedgerError      bytes that were written are not there any more
    │       ├── LedgerFullError (OSError)   no space left; nothing is lost, and recording can be tried again
    │       ├── DriverAliveError        another driver is at work in this run directory
    │       ├── OwnershipLostError      another driver has taken over this run directory
    │       └── PlanChangedError (ValueError)   the run directory belongs to a run with another plan
    └── SchedulerError (RuntimeError)
        └── InvalidTransition           an event that is impossible in this state: a bug in blockflow

Every exception also *is* the builtin that fits, so ``except ValueError`` works. Failures of the user's own
code are never wrapped: in this process they keep their type, from a worker they arrive as text. Where there is a
private place for it (:func:`blockflow.ops.map_blocks`), the exception itself comes with the text as its cause.
"""

from blockflow.escaping import escape


class BlockflowError(Exception):
    """Base of everything that blockflow raises on purpose.

    Its text may name files, and quote others: nothing in it controls a terminal.
    """

    def __str__(self) -> str:
        return escape(super().__str__())


class PlanError(BlockflowError, ValueError):
    """The description of the work cannot be right; nothing has run."""


class GeometryError(PlanError):
    """A ROI, shape, context or voxel size does not fit the others."""


class TaskGraphError(PlanError):
    """Tasks refer to one another in a way that cannot be scheduled."""


class ArrayError(BlockflowError):
    """Reading, writing or opening an array failed."""


class OutOfBoundsError(ArrayError, IndexError):
    """A ROI reaches outside the array and no fill value was given."""


class MetadataError(ArrayError, ValueError):
    """What a store says about offset, voxel size or axes cannot be used."""


class ArrayNotFoundError(ArrayError, FileNotFoundError):
    """There is no array at this path; the message lists what is there."""


class ValueLossError(ArrayError, ValueError):
    """Values would change when stored in an array of this dtype; nothing was written."""


class ProtocolError(BlockflowError):
    """The rules of the wire were broken."""


class LocalProtocolError(ProtocolError):
    """This side tried to send something that is not allowed now: a bug in blockflow."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that is not allowed; it loses its connection."""


class RunError(BlockflowError, RuntimeError):
    """A run could not be started or carried on."""


class BlockError(RunError):
    """Blocks failed in worker processes; the text tells what the first of them raised there, with its traceback."""


class NotShippableError(RunError, TypeError):
    """A function cannot be sent to a worker process."""


class UntrustedFileError(RunError, PermissionError):
    """Another user could have made or changed a file or folder of a run; nothing of it was read or changed."""


class ConnectionFileError(RunError):
    """The file that tells a worker how to reach its run cannot be used."""


class UnreachableError(RunError, ConnectionError):
    """No driver answers at the given address, or not with this run's key."""


class LedgerError(RunError):
    """What happened to the blocks of a run cannot be read or recorded."""


class RunDirectoryError(LedgerError):
    """The run directory cannot be used: it is not ours, not private, or cannot be written; nothing was changed."""


class LedgerVersionError(LedgerError):
    """Another version of blockflow wrote this run directory, in a format that this one does not read."""


class DamagedLedgerError(LedgerError):
    """Bytes of the ledger that were once written are not there any more; nothing was changed."""


class LedgerFullError(LedgerError, OSError):
    """No space is left for the ledger. Nothing is lost, and the same can be tried again when there is."""


class DriverAliveError(LedgerError):
    """Another driver is at work in this run directory."""


class OwnershipLostError(LedgerError):
    """Another driver has taken over this run directory; this one must not grant or acknowledge anything more."""


class PlanChangedError(LedgerError, ValueError):
    """The run directory belongs to a run with another plan; the message says what differs."""


class SchedulerError(BlockflowError, RuntimeError):
    """The scheduler was used in a way that its rules do not allow."""


class InvalidTransition(SchedulerError):
    """An event that is impossible in the present state; the message tells the story of the block."""
