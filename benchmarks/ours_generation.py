"""What is measured of this project's generation: generate.py's Generator."""

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.generation import generator
from adapter_bert.generation import search
from adapter_bert.models import families
from adapter_bert.training import graphs
from adapter_bert.training import sequence_specs
from benchmarks import ours


class Subject(object):
  """A model of random weights that generates.

  Args:
    config: dict, a config.json with a model_type.
    precision: str, see specs.PRECISIONS.
    options: dict, of search.Options. No end is chosen.
  """

  def __init__(self, config, precision, options):
    graphs.enable_graph_mode()
    tf.logging.set_verbosity(tf.logging.ERROR)
    spec = sequence_specs.SequenceSpec(
        families.config_from_dict(config, "benchmark"), precision=precision)
    self._generator = generator.Generator(
        [generator.Task("", "", spec, {})], _random_weights(spec),
        search.Options(**options))

  def steps(self, prompts):
    """Generates; prompts is a list of int32 [b, length]."""
    for some in prompts:
      self._generator.run(0, some.tolist())

  def profile(self, prompts):
    """{type of op: (seconds, number of them)} of one generation."""
    # pylint: disable=protected-access
    model, metadata = self._generator, tf.RunMetadata()
    model._session.run(
        model._found[0], {model._ids: prompts, model._mask: np.ones_like(prompts),
                          model._seeds: np.zeros([len(prompts), 2])},
        tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), metadata)
    return ours.time_by_type(metadata)


def _random_weights(spec):
  """A dict of variable name -> float32 array."""
  rng = np.random.RandomState(0)
  with tf.Graph().as_default():
    ids = tf.zeros([1, 2], tf.int32)
    model = spec.model(False, {"input_ids": ids, "input_mask": ids,
                               "decoder_input_ids": ids})
    model.logits()
    return {v.op.name: 0.02 * rng.standard_normal(
        v.shape.as_list()).astype(np.float32) for v in tf.global_variables()}
