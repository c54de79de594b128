"""The exported search, run by TensorFlow alone, gives the golden answers."""

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.serving import export_generator
from adapter_bert.serving import export_test
from adapter_bert.training import graphs

graphs.enable_graph_mode()


@pytest.mark.parametrize("family,beams", [
    ("gpt2", 1), pytest.param("bart", 3, marks=pytest.mark.slow),
    pytest.param("t5", 1, marks=pytest.mark.slow)])
def test_plain_tensorflow_generates(tmp_path, family, beams):
  golden = test_util.sequence_golden(family)
  end = golden.facts["generate"]["eos_token_id"]
  has_encoder = family != "gpt2"
  key = "generate/greedy" if beams == 1 else "generate/beam%d_penalty1" % beams
  prompts = golden.arrays["generate/input_ids"]
  expected = golden.arrays[key][:, 1 if has_encoder else prompts.shape[1]:]
  directory = export_generator.run(export_generator.Options(
      model_dir=golden.checkpoint, output_dir=str(tmp_path / "served"),
      max_new_tokens=expected.shape[1], num_beams=beams,
      forced_eos_token_id=-1))  # BART's config has one, the golden data not.
  found = export_test.ask(tmp_path, directory, {
      "generate/input_ids": prompts.astype(np.int32),
      "generate/input_mask": golden.arrays["generate/attention_mask"].astype(
          np.int32)})
  for row, wanted in enumerate(expected.tolist()):
    length = found["generate/lengths"][row, 0]
    wanted = wanted[:wanted.index(end) + 1] if end in wanted else wanted
    assert found["generate/output_ids"][row, 0, :length].tolist() == wanted
