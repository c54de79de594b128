"""Makes the directories here: what AdapterHub's and PEFT's libraries save.

    pip install torch transformers==4.57.6 adapters==1.3.0 peft==0.21.2
    python testdata/foreign/make.py

Each directory is one task on the tiny BERT in testdata/hf_bert, with random
weights, large enough that each of them moves the outputs; golden.json has the
logits that the library itself computes (float32, eager attention).
"""

import json
import os
import shutil

import safetensors.torch
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
BERT = os.path.join(os.path.dirname(HERE), "hf_bert")
LABELS = {0: "cold", 1: "mild", 2: "hot"}


def batch():
  """Rows of tokens of hf_bert's golden.json, padded on the right."""
  with open(os.path.join(BERT, "golden.json"), encoding="utf-8") as reader:
    cases = json.load(reader)["cases"]
  width = max(len(case["input_ids"]) for case in cases)
  padded = lambda row: row + [0] * (width - len(row))
  return {"input_ids": [padded(case["input_ids"]) for case in cases],
          "input_mask": [padded([1 for _ in case["input_ids"]])
                         for case in cases],
          "segment_ids": [padded(case["segment_ids"]) for case in cases]}


def randomize(parameters, scale):
  for parameter in parameters:
    with torch.no_grad():
      parameter.copy_(torch.randn(parameter.shape) * scale)


def logits(model, rows, segments=True):
  model.eval()
  names = ["input_ids", "attention_mask"] + ["token_type_ids"] * segments
  values = [torch.tensor(rows[name]) for name in
            ["input_ids", "input_mask"] + ["segment_ids"] * segments]
  with torch.no_grad():
    return model(**dict(zip(names, values))).logits.tolist()


def adapterhub(name, config, num_labels, rows, **head):
  import adapters
  model = adapters.AutoAdapterModel.from_pretrained(
      BERT, attn_implementation="eager")
  model.add_adapter("a", config=config)
  if num_labels:
    model.add_classification_head(
        "a", num_labels=num_labels,
        id2label=LABELS if num_labels == 3 else None, **head)
  model.set_active_adapters("a")
  randomize([p for n, p in model.named_parameters()
             if ".a." in n and "prefix" not in n], 0.3)
  randomize([p for n, p in model.named_parameters() if "prefix" in n], 1.0)
  directory = os.path.join(HERE, name)
  shutil.rmtree(directory, ignore_errors=True)
  # Prefixes it cannot save as safetensors: each layer has the same tensors.
  is_prefix = isinstance(config, adapters.PrefixTuningConfig)
  model.save_adapter(directory, "a", use_safetensors=not is_prefix)
  if is_prefix:
    save_again(directory, "pytorch_adapter.bin", "adapter.safetensors")
    save_again(directory, "pytorch_model_head.bin", "model_head.safetensors")
  rename(directory, "adapter_config.json", "model_name")
  rename(directory, "head_config.json", "model_name")
  return logits(model, rows)


def save_again(directory, pickle, name):
  """As the line says that the import gives for a pickle."""
  path = os.path.join(directory, pickle)
  tensors = torch.load(path, map_location="cpu", weights_only=True)
  safetensors.torch.save_file(
      {n: t.clone().contiguous() for n, t in tensors.items()},
      os.path.join(directory, name))
  os.remove(path)


def rename(directory, name, key):
  """Leaves no path of this machine in a JSON file."""
  path = os.path.join(directory, name)
  with open(path, encoding="utf-8") as reader:
    values = json.load(reader)
  values[key] = "testdata/hf_bert"
  with open(path, "w", encoding="utf-8") as writer:
    json.dump(values, writer, indent=2, sort_keys=True)
    writer.write("\n")


def peft(name, rows, **config):
  import peft as library
  base = transformers.AutoModelForSequenceClassification.from_pretrained(
      BERT, attn_implementation="eager", num_labels=3, id2label=LABELS,
      label2id={v: k for k, v in LABELS.items()}, ignore_mismatched_sizes=True)
  model = library.get_peft_model(base, library.PrefixTuningConfig(
      task_type="SEQ_CLS", num_virtual_tokens=3, **config))
  randomize([p for p in model.parameters() if p.requires_grad], 0.7)
  directory = os.path.join(HERE, name)
  shutil.rmtree(directory, ignore_errors=True)
  model.save_pretrained(directory)
  os.remove(os.path.join(directory, "README.md"))
  rename(directory, "adapter_config.json", "base_model_name_or_path")
  return logits(model, rows, segments=False)


def main():
  import adapters
  torch.manual_seed(1)
  rows = batch()
  found = {
      "adapterhub_houlsby": adapterhub(
          "adapterhub_houlsby",
          adapters.DoubleSeqBnConfig(non_linearity="gelu", reduction_factor=4),
          3, rows),
      "adapterhub_pfeiffer": adapterhub(
          "adapterhub_pfeiffer", adapters.SeqBnConfig(reduction_factor=8), 3,
          rows),
      "adapterhub_pfeiffer_pooler": adapterhub(
          "adapterhub_pfeiffer_pooler",
          adapters.SeqBnConfig(non_linearity="swish", reduction_factor=6,
                               leave_out=[0]),
          1, rows, layers=1, use_pooler=True),
      "adapterhub_prefix": adapterhub(
          "adapterhub_prefix",
          adapters.PrefixTuningConfig(flat=True, prefix_length=3), 3, rows),
      "adapterhub_prefix_mlp": adapterhub(
          "adapterhub_prefix_mlp",
          adapters.PrefixTuningConfig(flat=False, prefix_length=4,
                                      bottleneck_size=7), 3, rows),
      "peft_prefix": peft("peft_prefix", rows),
      "peft_prefix_mlp": peft("peft_prefix_mlp", rows, prefix_projection=True,
                              encoder_hidden_size=7),
  }
  with open(os.path.join(HERE, "golden.json"), "w", encoding="utf-8") as writer:
    json.dump(dict(rows, logits=found), writer)
    writer.write("\n")


if __name__ == "__main__":
  main()
