"""Moving rows between the ranks of a ring."""

from .base import Communicator as Communicator
from .base import RankTask as RankTask
from .base import SentMessage as SentMessage
from .base import Work as Work
from .base import record_messages as record_messages
from .loopback import LoopbackWorld as LoopbackWorld
from .loopback import run_ranks as run_ranks
from .times import Timing as Timing
from .times import record_times as record_times
from .workspace import Workspace as Workspace
