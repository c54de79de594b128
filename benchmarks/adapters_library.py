"""What is measured of the libraries on PyTorch: `adapters`, and PEFT.

The same model, adapters and step: random weights, the bottleneck adapters of
Houlsby et al. of size 64 in every layer (`adapters`, AdapterHub), or prefixes of
20 (PEFT), dropout, AdamW over what is trained, gradients clipped to norm 1. As
their GLUE scripts do, but for the data.
"""

import adapters
import peft
import torch
import transformers

ADAPTER_SIZE = 64
PREFIX_LENGTH = 20
PREFIX_HIDDEN_SIZE = 512


class Subject(object):
  """A model of random weights, and its training step.

  Args:
    config: dict, as a bert_config.json, or a config.json with a model_type.
    adapters_: str, "all", "prefix", "prefix-mlp", or "none" to train the whole
      model.
    precision: str, "float32", or "bfloat16" for autocast.
    batch_size: int; not needed.
    pad_to: int, every batch is padded to; None: to its longest example.
  """

  def __init__(self, config, adapters_, precision, batch_size, pad_to=None):
    del batch_size
    torch.manual_seed(0)
    self._pad_to = pad_to
    self._autocast = precision == "bfloat16"
    self._has_encoder = config.get("model_type") in ("bart", "t5")
    self._model = _tuned(_model(config, adapters_, self._has_encoder),
                         adapters_)
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
        loss = self._model(**self._inputs(batch)).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
      self._optimizer.step()
      self._optimizer.zero_grad()

  def _inputs(self, batch):
    """A batch in their names."""
    if "input_ids" in batch:
      return dict(input_ids=batch["input_ids"], labels=batch["label_ids"],
                  attention_mask=batch["input_mask"],
                  token_type_ids=batch["segment_ids"])
    # A label of -100 is not asked for.
    labels = batch["target_ids"].masked_fill(batch["target_mask"] == 0, -100)
    if self._has_encoder:
      return dict(input_ids=batch["source_ids"], labels=labels,
                  attention_mask=batch["source_mask"])
    # One behind the other; the padding of sources stays in between.
    join = lambda *parts: torch.cat(parts, 1)
    return dict(
        input_ids=join(batch["source_ids"], batch["target_ids"]),
        attention_mask=join(batch["source_mask"], batch["target_mask"]),
        labels=join(torch.full_like(batch["source_ids"], -100), labels))


def _model(config, adapters_, has_encoder):
  """A model with its head."""
  if "model_type" in config:
    kind = (transformers.AutoModelForSeq2SeqLM if has_encoder else
            transformers.AutoModelForCausalLM)
    model = kind.from_config(transformers.AutoConfig.for_model(**config))
    adapters.init(model)
    return model
  config = transformers.BertConfig(**config)
  if adapters_.startswith("prefix"):
    return transformers.BertForSequenceClassification(config)
  model = adapters.BertAdapterModel(config)
  model.add_classification_head("task", num_labels=2)
  return model


def _tuned(model, adapters_):
  """The model, of which is to be trained what that method trains."""
  if adapters_ == "all":
    model.add_adapter("task", config=adapters.DoubleSeqBnConfig(
        reduction_factor=model.config.hidden_size / ADAPTER_SIZE))
    model.train_adapter("task")
  elif adapters_.startswith("prefix"):
    is_classifier = hasattr(model, "classifier")
    model = peft.get_peft_model(model, peft.PrefixTuningConfig(
        task_type="SEQ_CLS" if is_classifier else
        "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        num_virtual_tokens=PREFIX_LENGTH,
        prefix_projection=adapters_ == "prefix-mlp",
        encoder_hidden_size=PREFIX_HIDDEN_SIZE))
  if hasattr(model, "heads"):
    model.active_head = "task"
  return model
