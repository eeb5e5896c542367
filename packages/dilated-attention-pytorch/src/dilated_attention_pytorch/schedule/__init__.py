"""Which rows travel when, and who computes what: pure numbers, no torch."""

from .aligned import AlignedTile as AlignedTile
from .aligned import aligned_tiles as aligned_tiles
from .aligned import unfinished as unfinished
from .gathering import Gathered as Gathered
from .groups import Groups as Groups
from .heads import HeadSet as HeadSet
from .heads import KeyClass as KeyClass
from .heads import key_classes as key_classes
from .messages import Message as Message
from .messages import message as message
from .messages import pieces as pieces
from .own import own_problem as own_problem
from .own import own_problems as own_problems
from .plan import RankPlan as RankPlan
from .plan import Round as Round
from .plan import plan_rank as plan_rank
from .problem import Problem as Problem
from .rows import Rows as Rows
from .runs import Run as Run
from .runs import RunList as RunList
from .runs import runs as runs
