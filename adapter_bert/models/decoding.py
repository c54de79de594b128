"""What a model hands over to a search: `start(slots)` of GPT-2, BART and T5.

The K hypotheses of a row stand beside each other on the axis of the positions
that look, and their keys in one cache: the K keys of generated token number t
lie behind each other, from slot t * K on. Which of them are a hypothesis's own
past is said by the attention mask `visible`. So a beam search moves rows of this
mask when it goes on with other hypotheses, and no key or value; the prompt (or
the source) is there once for all of them.

Letters in the shapes below:
  B rows of the batch     S length of the prompt   V vocabulary
  K hypotheses of a row
"""

import collections

# ids: int32 [B, S], the prompt, padding on the left (an encoder-decoder's is the
#   decoder's start, [B, 1]).
# mask: int32 [B, S], 1 for its tokens and 0 for padding.
# logits: float32 [B, V], of the token that follows the prompt.
# cache: a nest of tensors, the first axis B, with room for S + slots keys. It
#   holds what steps change and nothing else: the step may use other tensors,
#   such as keys of the source, as they are.
# step: (tokens, time, visible, cache) -> (logits, cache).
#   tokens: int32 [B, K], generated token number `time` of each hypothesis.
#   time: int32 scalar, from 0. The position of a row's token is its number of
#     prompt tokens + time.
#   visible: int32 [B, K, slots], 1 where a hypothesis looks at a slot: slot
#     t * K + j has token number t of what was then hypothesis j. The prompt is
#     not in it. The step writes its K keys from slot time * K on.
#   logits: float32 [B, K, V].
Start = collections.namedtuple("Start", ["ids", "mask", "logits", "cache",
                                         "step"])
