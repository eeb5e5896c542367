"""The public functions."""

from .attention_weights import AttentionWeights as AttentionWeights
from .attention_weights import attention_weights as attention_weights
from .balance import balanced_order as balanced_order
from .dtensor import dtensor_dilated_attention as dtensor_dilated_attention
from .explaining import explain as explain
from .group import measured_links as measured_links
from .group import release_buffers as release_buffers
from .merging import merge_partials as merge_partials
from .ring import ring_dilated_attention as ring_dilated_attention
from .sharding import positions as positions
from .sharding import shard as shard
from .sharding import unshard as unshard
from .single import dilated_attention as dilated_attention
