"""Compares what the libraries compute with directories that this project wrote.

    python testdata/foreign/check_exported.py CASE=DIR CASE=DIR=hot,cold,mild ...

DIR is what adapter_bert.serving.exchange wrote from the import of the directory
here that is called CASE, with --adapter_name=a; the labels of the head's rows, for PEFT, which stores none, are
in the order of the task. make.py says what is needed.
"""

import json
import os
import sys

import make
import torch


def logits(directory, rows):
  if os.path.exists(os.path.join(directory, "adapter_model.safetensors")):
    import peft
    import transformers
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        make.BERT, attn_implementation="eager", num_labels=3,
        ignore_mismatched_sizes=True)
    model = peft.PeftModel.from_pretrained(base, directory)
    return make.logits(model, rows, segments=False)
  import adapters
  model = adapters.AutoAdapterModel.from_pretrained(
      make.BERT, attn_implementation="eager")
  model.load_adapter(directory, use_safetensors=True, set_active=True)
  return make.logits(model, rows)


def main():
  with open(os.path.join(make.HERE, "golden.json"), encoding="utf-8") as reader:
    golden = json.load(reader)
  for word in sys.argv[1:]:
    case, directory, labels = (word.split("=") + [""])[:3]
    found = torch.tensor(logits(directory, golden))
    expected = torch.tensor(golden["logits"][case])
    # The rows may be in another order, which AdapterHub's file says.
    label2id = {label: row for row, label in enumerate(labels.split(","))}
    head = os.path.join(directory, "head_config.json")
    if os.path.exists(head):
      with open(head, encoding="utf-8") as reader:
        label2id = json.load(reader)["config"]["label2id"]
    if expected.shape[1] == 3:
      found = found[:, [label2id[make.LABELS[row]] for row in range(3)]]
    print("%s: largest difference %.1e, of logits up to %.1f" % (
        case, (found - expected).abs().max(), expected.abs().max()))


if __name__ == "__main__":
  main()
