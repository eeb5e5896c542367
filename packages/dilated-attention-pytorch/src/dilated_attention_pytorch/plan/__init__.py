"""What a call will hold, move and take before it is made; needs no GPU."""

from .hardware import GPU as GPU
from .hardware import GPUS as GPUS
from .hardware import NVLINK as NVLINK
from .hardware import Link as Link
from .hardware import Links as Links
from .planning import Call as Call
from .planning import Plan as Plan
from .planning import Ring as Ring
from .planning import Source as Source
from .planning import plan_call as plan_call
from .report import as_json as as_json
from .report import as_text as as_text
from .step import Step as Step
