"""We need the old numbers a little longer."""
from dilated_attention_compat import RingDilatedAttention, RingAttentionDeprecationWarning
import warnings

warnings.simplefilter("ignore", RingAttentionDeprecationWarning)
attention = RingDilatedAttention([16], [1], 0.0, True)
