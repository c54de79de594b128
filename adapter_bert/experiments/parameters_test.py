"""Counts by hand, and what training really trains."""

import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.experiments import parameters
from adapter_bert.tuning import Tuning
import modeling

TINY = dict(vocab_size=50, hidden_size=8, num_hidden_layers=3,
            num_attention_heads=2, intermediate_size=12,
            max_position_embeddings=16, type_vocab_size=2)
# D = 8, I = 12: four square projections, the feed-forward half, two LayerNorms.
TINY_LAYER = 4 * (8 * 8 + 8) + (8 * 12 + 12) + (12 * 8 + 8) + 2 * 16


def adapters_by_hand(layers, d, m):
  return layers * 2 * (2 * m * d + d + m)


def layer_by_hand(d, intermediate):
  return (4 * (d * d + d) + (d * intermediate + intermediate) +
          (intermediate * d + d) + 2 * 2 * d)


def counts_of(name, sizes=parameters.FIGURE_SIZES, **changes):
  return parameters.count(
      parameters.load_config(name, changes=changes), sizes)


def tiny_config(**changes):
  return modeling.BertConfig.from_dict(dict(TINY, **changes))


@pytest.mark.parametrize(
    "name, d, layers, intermediate, embeddings, encoder, pooler, whole, norms",
    [("bert-base", 768, 12, 3072,
      23837184, 85054464, 590592, 109482240, 38400),
     pytest.param("bert-large", 1024, 24, 4096, 31782912, 302309376, 1049600,
                  335141888, 100352, marks=pytest.mark.slow)])
def test_bert_by_hand(name, d, layers, intermediate, embeddings, encoder,
                      pooler, whole, norms):
  counts = counts_of(name)
  # Words, positions, token types, LayerNorm.
  assert (30522 + 512 + 2 + 2) * d == embeddings == counts.embeddings
  assert layers * layer_by_hand(d, intermediate) == encoder == counts.encoder
  assert d * d + d == pooler == counts.pooler
  assert embeddings + encoder + pooler == whole == counts.whole
  assert (2 * layers + 1) * 2 * d == norms == counts.layer_norm
  assert counts.head == 2 * d + 2
  for size in parameters.FIGURE_SIZES:
    assert counts.adapters(size) == adapters_by_hand(layers, d, size)
  assert counts.layers == {"layer_%d" % i: [i] for i in range(layers)}
  for scope in counts.layers:
    assert counts.scope(scope) == layer_by_hand(d, intermediate)
    assert counts.scope(scope, "layer_norm") == 4 * d
    assert counts.adapters(64, scope) == adapters_by_hand(1, d, 64)


def test_adapters_of_size_64():
  assert counts_of("bert-base").adapters(64) == 2379264
  assert counts_of("bert-large").adapters(64) == 6343680


@pytest.mark.parametrize("name, d, layers, intermediate", [
    ("albert-base", 768, 12, 3072), ("albert-large", 1024, 24, 4096)])
def test_albert_by_hand(name, d, layers, intermediate):
  counts = counts_of(name, (64,))
  # Words at 128, their projection without a bias, then as in BERT.
  assert counts.embeddings == 30000 * 128 + 128 * d + (512 + 2 + 2) * d
  assert counts.encoder == layer_by_hand(d, intermediate)
  assert counts.layers == {"layer_shared": list(range(layers))}
  assert counts.adapters(64) == adapters_by_hand(1, d, 64)
  assert counts.layer_norm == 3 * 2 * d


@pytest.mark.parametrize("share, group, layers", [
    (False, None, {"layer_0": [0], "layer_1": [1], "layer_2": [2]}),
    (True, None, {"layer_shared": [0, 1, 2]}),
    (True, 1, {"layer_0": [0], "layer_1": [1], "layer_2": [2]}),
    (True, 2, {"layer_0": [0, 1], "layer_1": [2]}),
    (True, 5, {"layer_0": [0, 1, 2]}),
])
@pytest.mark.parametrize("share_adapters", [True, False])
def test_sharing(share, group, layers, share_adapters):
  counts = parameters.count(
      tiny_config(share_parameter_across_layers=share, layers_per_group=group,
                  share_adapters=share_adapters), [4])
  assert counts.layers == layers
  assert counts.encoder == len(layers) * TINY_LAYER
  assert counts.layer_norm == (2 * len(layers) + 1) * 16
  assert counts.adapters(4) == adapters_by_hand(
      len(layers) if share_adapters else 3, 8, 4)
  for scope, runs in layers.items():
    assert counts.adapters(4, scope) == adapters_by_hand(
        1 if share_adapters else len(runs), 8, 4)


NOT_SHARED = {}
SHARED_BY_ALL = {"share_parameter_across_layers": True}
OWN_ADAPTERS = {"share_parameter_across_layers": True, "layers_per_group": 2,
                "share_adapters": False}


@pytest.mark.parametrize("order", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("sharing, tune, top_n, adapter_layers", [
    (sharing, tune, None, None)
    for sharing in (NOT_SHARED, SHARED_BY_ALL, OWN_ADAPTERS)
    for tune in ("adapters", "full", "layer_norm", "head", "adapters+head")
] + [(NOT_SHARED, "top_n", 1, None), (NOT_SHARED, "top_n", 3, None)] + [
    (sharing, "adapters", None, layers)
    for sharing in (NOT_SHARED, SHARED_BY_ALL, OWN_ADAPTERS)
    for layers in ([1], [0, 2])])
def test_trained_are_the_variables_that_the_optimizer_gets(
    sharing, tune, top_n, adapter_layers, order):
  """The graph of all sizes at once counts as the graph of one size does."""
  config = tiny_config(embedding_size=4, **sharing)
  tuning = Tuning(tune, top_n, 3)
  size = 5 if tuning.uses_adapters else None
  with tf.Graph().as_default():
    model = modeling.BertModel(
        config, True, tf.placeholder(tf.int32, [None, 6]),
        adapter_layers=adapter_layers, adapter_order=order, adapter_fn=size and (
            lambda x: modeling.feedforward_adapter(x, hidden_size=size)))
    modeling.classifier_head(model.get_pooled_output(), 3, True)
    expected = sum(v.shape.num_elements() for v in tuning.variables())
  counts = parameters.count(config, [2, 5], 3, adapter_layers, order)
  trained = counts.trained(tuning, size)
  assert trained.parameters + trained.head == expected
  assert trained.head == 3 * 8 + 3


def test_no_weight_is_allocated():
  """Four terabytes of embeddings, on paper."""
  counts = parameters.count(
      tiny_config(vocab_size=1000000000, hidden_size=1024,
                  num_hidden_layers=1))
  assert counts.embeddings == (1000000000 + 16 + 2 + 2) * 1024


def test_a_model_is_built_once(monkeypatch):
  config = tiny_config(vocab_size=51)
  first = parameters.count(config, [4, 2])
  monkeypatch.setattr(modeling, "BertModel", None)
  assert parameters.count(config, [2, 4, 4]) is first


def test_fractions_by_both_conventions():
  trained = counts_of("bert-large").trained(Tuning("adapters"), 64)
  assert trained.parameters == 6444032
  assert trained.head == 2050
  assert trained.of_encoder == pytest.approx(6444032 / 302309376)
  assert trained.of_whole == pytest.approx(6444032 / 335141888)


def test_full_fine_tuning_is_all_of_it():
  trained = counts_of("bert-base").trained(Tuning("full"))
  assert trained == (109482240, 1538, 1.0, 1.0)


def test_top_n_counts_layers_over_layers():
  trained = counts_of("bert-base").trained(Tuning("top_n", 3, 12))
  assert trained.parameters == 3 * 7087872 + 590592
  assert trained.of_encoder == pytest.approx(3 / 12)
  assert trained.of_whole == pytest.approx((3 * 7087872 + 590592) / 109482240)


def test_layer_norm_and_head_only():
  counts = counts_of("bert-base")
  trained = counts.trained(Tuning("layer_norm"))
  assert trained == (38400, 1538, 38400 / 85054464, 38400 / 109482240)
  assert counts.trained(Tuning("head")) == (0, 1538, 0, 0)


def test_a_mix_is_the_mean_weighted_by_tasks():
  counts = counts_of("bert-base")
  by_size = {m: counts.trained(Tuning("adapters"), m)
             for m in (8, 64)}
  mixed = counts.trained_by(parameters.Method(
      "mix", "adapters", [(8, 3), (64, 1)]))
  for i in (0, 2, 3):
    assert mixed[i] == pytest.approx((3 * by_size[8][i] + by_size[64][i]) / 4)
  assert mixed.head == 1538


@pytest.mark.parametrize("name, length, hidden_size, trained, stored", [
    # 20 positions, 12 layers, a key and a value of 768 each.
    ("bert-base", 20, None, 368640, 368640),
    # [20, 768], then 768 -> 512 and 512 -> 12 * 2 * 768, with biases.
    ("bert-base", 20, 512, 15360 + 769 * 512 + 513 * 18432, 368640),
    ("bert-large", 5, None, 245760, 245760),
    ("bert-large", 5, 512, 5120 + 1025 * 512 + 513 * 49152, 245760),
    # Layers that share their weights have prefixes of their own.
    ("albert-base", 20, None, 368640, 368640),
])
def test_prefixes_by_hand(name, length, hidden_size, trained, stored):
  config = parameters.load_config(name)
  assert parameters.prefix_trained(config, length, hidden_size) == trained
  assert parameters.prefix_stored(config, length) == stored


@pytest.mark.parametrize("hidden_size", [None, 6])
def test_prefixes_are_counted_as_they_are_built(hidden_size):
  config = tiny_config()
  with tf.Graph().as_default() as graph:
    modeling.prefix_encoder(config.num_hidden_layers,
                            config.num_attention_heads,
                            config.hidden_size // config.num_attention_heads,
                            prefix_length=5, hidden_size=hidden_size)
    built = sum(v.shape.num_elements()
                for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES))
  assert parameters.prefix_trained(config, 5, hidden_size) == built
