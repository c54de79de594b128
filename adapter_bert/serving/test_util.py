"""Task checkpoints of random numbers, made in a moment: no run is needed."""

import os

import numpy as np

from adapter_bert import names
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.serving import stacks
from adapter_bert.training import specs

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + "the a cat dog ran sat . ,".split()


def write_base(directory, config):
  """Writes a BERT of random numbers, with vocab.txt; returns its prefix."""
  os.makedirs(directory, exist_ok=True)
  model = specs.ClassifierSpec(config, 2, tune="head")
  prefix = os.path.join(directory, "bert_model.ckpt")
  weights_lib.write(prefix, {
      name: random_value(name, variable.shape, 0)
      for name, variable in stacks.variables_of(model).items()
      if not names.is_head(name)})
  with open(os.path.join(directory, "vocab.txt"), "w", encoding="utf-8") as out:
    out.write("\n".join(WORDS) + "\n")
  return prefix


def write_task(directory, config, base, task_name, seed, **fields):
  """Writes a task checkpoint over a base.

  Args:
    directory: str. config: modeling.BertConfig. base: str, its prefix.
    task_name: str, of GLUE. seed: int.
    **fields: of specs.ClassifierSpec, such as tune.

  Returns: the directory.
  """
  task = tasks.get_task(task_name)
  model = specs.ClassifierSpec(config, task.num_labels, task.is_regression,
                               **fields)
  os.makedirs(directory, exist_ok=True)
  variables = stacks.variables_of(model)
  weights_lib.write(os.path.join(directory, weights_lib.CHECKPOINT_NAME), {
      name: random_value(name, variables[name].shape, seed)
      for name in stacks.trained_of(model, variables)})
  run_record.write(directory, dict(
      specs.describe_model(model), task=task_specs.task_to_dict(task),
      init_shared_from=None, do_lower_case=True,
      schedule={"precision": "float32"},
      base=run_record.describe_base(weights_lib.Weights([base]), base)))
  return directory


def random_value(name, shape, seed):
  """float32 array; of any two names or seeds another."""
  rng = np.random.RandomState((sum(map(ord, name)) * 31 + seed) % 2**31)
  value = rng.normal(size=shape).astype(np.float32)
  if names.is_layer_norm(name):
    return 0.1 * value + (1.0 if name.endswith("gamma") else 0.0)
  return (0.3 if names.is_adapter(name) or names.is_head(name) else 0.1) * value
