import os, sys
import dilated_attention_pytorch

SEGMENTS = [int(s) for s in os.environ.get("SEGMENTS", "16,32").split(",")]
attention = dilated_attention_pytorch.RingDilatedAttentionV2(segment_lengths=SEGMENTS, dilation_rates=[1] * len(SEGMENTS))
sys.stdout.write(f"{attention}\n")
