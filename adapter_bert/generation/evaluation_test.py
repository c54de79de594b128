"""What generates with one checkpoint of a run after another."""

import os

from adapter_bert import test_util
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.generation import evaluation
from adapter_bert.generation import generator
from adapter_bert.generation import search
from adapter_bert.models import gpt2
from adapter_bert.training import sequence_specs


def test_one_graph_serves_the_checkpoints_of_a_run():
  golden = test_util.sequence_golden("gpt2", shipped=True)
  config = gpt2.GPT2Config.from_json_file(
      os.path.join(golden.checkpoint, "config.json"))
  base = sequence_weights.open_weights(
      model_dir.open_model_dir(golden.checkpoint), config)
  options = search.Options(max_new_tokens=5)

  def task_of(scale, tune="layer_norm"):
    values = {} if tune == "full" else {
        name: scale * base[name] for name in base if "LayerNorm" in name}
    return generator.Task("", "here", sequence_specs.SequenceSpec(
        config=config, tune=tune), values)

  prompts = [[5, 6, 7], [8]]
  expected = []
  for task in (task_of(1.5), task_of(-0.5)):
    with generator.Generator([task], base, options) as alone:
      expected.append(alone.run(0, prompts))
  assert expected[0] != expected[1]
  with evaluation.Loaded(base, options) as loaded:
    first = loaded.of(task_of(1.5))
    assert first.run(0, prompts) == expected[0]
    assert loaded.of(task_of(-0.5)) is first
    assert first.run(0, prompts) == expected[1]
    # Other variables make another model.
    assert loaded.of(task_of(1, tune="full")) is not first
