from dilated_attention_pytorch import RingDilatedAttentionV2 ; import torch
def f( seg ,dil ):
	a=RingDilatedAttentionV2( segment_lengths=seg , dilation_rates=dil , ring_size = 2 ) ; return a
class C :
	attn = ( RingDilatedAttentionV2 )( segment_lengths=[ 16 ] ,dilation_rates=[ 1 ] , )
	g = lambda self, s: RingDilatedAttentionV2(segment_lengths=s, dilation_rates=[1]*len(s))
if ( r := RingDilatedAttentionV2(segment_lengths=[8], dilation_rates=[1]) ): print( r ) # why not
