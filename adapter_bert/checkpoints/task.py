"""Task checkpoints: what a run trained, for whoever has the model already.

With the base that the run started from it makes the whole model. A directory of
its own holds `model.ckpt.*` and the run's `run.json`.
"""

import math
import os

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import prefixes
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib


def write(output_dir, run_dir, facts=None):
  """Writes a run's task checkpoint: what it trained, without Adam's slots.

  Prefixes are stored without the MLP that they were trained with. Its run.json
  says how many parameters, the head's too, were trained and are stored. The
  directory is there whole or not at all.

  Args:
    output_dir: str, the directory to write; a task checkpoint there is
      replaced.
    run_dir: str, a run's output directory with a checkpoint and run.json.
    facts: dict, what run.json is to say beyond that.

  Returns: int, the bytes written.
  """
  weights = weights_lib.Weights([weights_lib.newest_readable(run_dir)])
  record = dict(run_record.read(run_dir), **facts or {})
  # Without a base to go on top of, the frozen variables are needed too.
  kept = [n for n in weights.shapes if not names.is_slot(n) and
          (names.slots_of(n)[0] in weights.shapes or not record["base"])]
  arrays = prefixes.folded({name: weights.value(name) for name in
                            set(kept) | {names.GLOBAL_STEP}})
  return write_arrays(output_dir, arrays,
                      dict(record, parameters=_counts(weights)))


def write_arrays(output_dir, arrays, record):
  """Writes a task checkpoint of variables and what run.json says of them.

  Args:
    output_dir: as for `write`.
    arrays: dict of variable name -> array; the step is among them.
    record: dict.

  Returns: int, the bytes written.
  """
  temporary = files.temporary_name(output_dir)
  files.remove_litter(os.path.dirname(output_dir),
                      only=os.path.basename(output_dir))
  files.recover_directory(output_dir)
  files.make_directory(temporary)
  with errors.reported():
    try:
      weights_lib.write(
          os.path.join(temporary, weights_lib.CHECKPOINT_NAME), arrays)
      run_record.write(temporary, record)
      size = sum(files.size_of(os.path.join(temporary, name))
                 for name in files.names_in(temporary))
      files.replace_directory(temporary, output_dir)
    finally:
      files.remove_directory(temporary)
  return size


def _counts(weights):
  """What run.json says of the trained variables of a training checkpoint."""
  trained = {name: shape for name, shape in weights.shapes.items()
             if not names.is_slot(name) and
             names.slots_of(name)[0] in weights.shapes}
  size = sum(math.prod(shape) for shape in trained.values())
  return {"trained": size, "stored": size - prefixes.not_stored(trained)}
