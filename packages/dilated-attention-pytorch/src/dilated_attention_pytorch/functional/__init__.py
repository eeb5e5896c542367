"""The public functions."""

from .explaining import explain as explain
from .merging import merge_partials as merge_partials
from .ring import ring_dilated_attention as ring_dilated_attention
from .sharding import positions as positions
from .sharding import shard as shard
from .sharding import unshard as unshard
from .single import dilated_attention as dilated_attention
