"""What is measured of transformers' generation, on PyTorch.

Its defaults on a CPU, which were the fastest there: scaled_dot_product_attention
and a cache that grows; the weights are stored in the type that is computed in.
"""

import torch
import transformers


class Subject(object):
  """A model of random weights that generates.

  Args:
    config: dict, a config.json with a model_type.
    precision: str, "float32" or "bfloat16".
    options: dict, arguments of generate(). No end is chosen.
    is_compiled: bool; a cache of fixed size, and torch.compile.
  """

  def __init__(self, config, precision, options, is_compiled=False):
    torch.manual_seed(0)
    has_encoder = config["model_type"] in ("bart", "t5")
    kind = (transformers.AutoModelForSeq2SeqLM if has_encoder else
            transformers.AutoModelForCausalLM)
    made = transformers.AutoConfig.for_model(**config)
    self._model = kind.from_config(made, torch_dtype=getattr(torch, precision))
    self._model.eval()
    self._options = dict(options, do_sample=False,
                         min_new_tokens=options["max_new_tokens"])
    if has_encoder:
      # Else BART's first token is forced, and its last.
      self._model.generation_config.forced_eos_token_id = None
    if is_compiled:
      self._options["cache_implementation"] = "static"

  def steps(self, prompts):
    """Generates; prompts is a list of int32 [b, length]."""
    with torch.inference_mode():
      for some in prompts:
        ids = torch.from_numpy(some).long()
        found = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), pad_token_id=0,
            **self._options)
        new = found.shape[1] - (0 if self._model.config.is_encoder_decoder else
                                ids.shape[1])
        if new < self._options["max_new_tokens"]:
          raise ValueError("%d new tokens in place of %d" % (
              new, self._options["max_new_tokens"]))
