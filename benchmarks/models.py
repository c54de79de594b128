"""The shapes of the models that are measured, as in their config.json."""

BERT_BASE = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512, "type_vocab_size": 2,
    "initializer_range": 0.02,
}

GPT2_SMALL = {
    "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024,
    "n_embd": 768, "n_layer": 12, "n_head": 12,
    "activation_function": "gelu_new", "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    "resid_pdrop": 0.1,
}

BART_BASE = {
    "model_type": "bart", "vocab_size": 50265, "max_position_embeddings": 1024,
    "d_model": 768, "encoder_layers": 6, "encoder_attention_heads": 12,
    "encoder_ffn_dim": 3072, "decoder_layers": 6,
    "decoder_attention_heads": 12, "decoder_ffn_dim": 3072,
    "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.1,
    "activation_dropout": 0.1,
}

T5_SMALL = {
    "model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64,
    "d_ff": 2048, "num_layers": 6, "num_heads": 8, "dropout_rate": 0.1,
    "feed_forward_proj": "relu", "pad_token_id": 0,
    "decoder_start_token_id": 0,
}

# The tiny BART that pronounces words.
G2P = {
    "model_type": "bart", "vocab_size": 63, "max_position_embeddings": 64,
    "d_model": 128, "encoder_layers": 1, "encoder_attention_heads": 1,
    "encoder_ffn_dim": 1024, "decoder_layers": 1, "decoder_attention_heads": 1,
    "decoder_ffn_dim": 1024, "activation_function": "gelu", "dropout": 0.1,
    "attention_dropout": 0.0, "activation_dropout": 0.0, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}

MODELS = {"bert-base": BERT_BASE, "gpt2": GPT2_SMALL, "bart-base": BART_BASE,
          "t5-small": T5_SMALL, "g2p": G2P}
