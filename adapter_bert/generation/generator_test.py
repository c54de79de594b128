"""How the models of a search hold their weights."""

import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.generation import generator
from adapter_bert.generation import search
from adapter_bert.models import families
from adapter_bert.ops import fused
from adapter_bert.training import graphs
from adapter_bert.training import sequence_specs

graphs.enable_graph_mode()

PROMPTS = [[5, 6, 7], [8]]


def scores_of(family, is_tuned, prompts):
  """(The scores of the beams of each prompt, the shapes of wide kernels)."""
  golden = test_util.sequence_golden(family, shipped=True)
  with open(os.path.join(golden.checkpoint, "config.json"),
            encoding="utf-8") as reader:
    config = families.config_from_dict(json.load(reader), "here")
  base = sequence_weights.open_weights(
      model_dir.open_model_dir(golden.checkpoint), config)
  spec = sequence_specs.SequenceSpec(
      config=config, tune="full", precision="bfloat16")
  task = generator.Task("", "here", spec, dict(base) if is_tuned else {})
  # All beams of a row: a token that rounding puts in another's place moves the
  # scores little.
  with generator.Generator([task], base, search.Options(
      max_new_tokens=2, min_new_tokens=2, num_beams=3,
      num_return_sequences=3)) as loaded:
    with loaded.session.graph.as_default():
      shapes = set(tuple(v.shape.as_list()) for v in tf.global_variables()
                   if v.op.name.endswith("layer_0/intermediate/dense/kernel"))
    return np.array([[result.score for result in row]
                     for row in loaded.run(0, prompts)]), shapes


@pytest.mark.parametrize("family,is_tuned,copies", [
    ("gpt2", True, 1), pytest.param("bart", False, 1, marks=pytest.mark.slow),
    pytest.param("bart", False, 40, marks=pytest.mark.slow),
    pytest.param("t5_v1_1", False, 1, marks=pytest.mark.slow)])
def test_kernels_that_are_stored_as_transposes(monkeypatch, family, is_tuned,
                                               copies):
  """Products of few rows and of many: 40 copies have 240 rows at each step."""
  expected, shapes = scores_of(family, is_tuned, PROMPTS)
  monkeypatch.setattr(fused, "LARGE_KERNEL", 1)
  found, transposed = scores_of(family, is_tuned, PROMPTS * copies)
  assert transposed == {shape[::-1] for shape in shapes} != shapes
  for some in np.split(found, copies):
    np.testing.assert_allclose(some, expected, atol=0.03)
  assert np.ptp(expected) > 0.1
