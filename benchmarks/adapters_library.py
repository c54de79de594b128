"""What is measured of the `adapters` library, on PyTorch.

The same model, adapters and step: BERT of random weights, the bottleneck
adapters of Houlsby et al. of size 64 in every layer, dropout, AdamW over what
is trained, gradients clipped to norm 1. As its GLUE script does, but for the
data.
"""

import adapters
import torch
import transformers

ADAPTER_SIZE = 64


class Subject(object):
  """A model of random weights, and its training step.

  Args:
    config: dict, as a bert_config.json.
    adapters_: str, "all", or "none" to train the whole model.
    precision: str, "float32", or "bfloat16" for autocast.
    batch_size: int; not needed.
    pad_to: int, every batch is padded to; None: to its longest example.
  """

  def __init__(self, config, adapters_, precision, batch_size, pad_to=None):
    del batch_size
    torch.manual_seed(0)
    self._pad_to = pad_to
    self._autocast = precision == "bfloat16"
    self._model = adapters.BertAdapterModel(transformers.BertConfig(**config))
    self._model.add_classification_head("task", num_labels=2)
    if adapters_ == "all":
      self._model.add_adapter("task", config=adapters.DoubleSeqBnConfig(
          reduction_factor=config["hidden_size"] / ADAPTER_SIZE))
      self._model.train_adapter("task")
    self._model.active_head = "task"
    self._model.train()
    self._trained = [p for p in self._model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.AdamW(self._trained, lr=1e-4)

  def padded_length(self, longest):
    return max(longest, self._pad_to or 0)

  def steps(self, batches):
    """Trains on these batches."""
    for batch in batches:
      batch = {name: torch.from_numpy(value).long()
               for name, value in batch.items()}
      with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
        loss = self._model(
            input_ids=batch["input_ids"], attention_mask=batch["input_mask"],
            token_type_ids=batch["segment_ids"],
            labels=batch["label_ids"]).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
      self._optimizer.step()
      self._optimizer.zero_grad()
