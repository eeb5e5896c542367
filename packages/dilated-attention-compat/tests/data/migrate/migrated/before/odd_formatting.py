from dilated_attention_pytorch import RingDilatedAttention ; import torch
def f( seg ,dil ):
	a=RingDilatedAttention( seg , dil , ring_size = 2 ,use_tf32 = True ) ; return a
class C :
	attn = ( RingDilatedAttention )( [ 16 ] ,[ 1 ] , )
	g = lambda self, s: RingDilatedAttention(s, [1]*len(s))
if ( r := RingDilatedAttention([8], [1]) ): print( r ) # why not
