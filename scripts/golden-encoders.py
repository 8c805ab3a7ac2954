"""Writes test/golden/encoders.json: what small encoders make of a text, as Hugging Face transformers computes it.

    pip install torch transformers
    python scripts/golden-encoders.py

Weights follow from a formula (test/runtime/encoder.test.ts has it too), so the file holds configs and the last hidden states of a few tokens.
"""
import json
import pathlib

import torch
import transformers

LENGTH = 37
SHOWN = [0, 1, 19, 36]
BASE = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, vocab_size=40, max_position_embeddings=64,
    type_vocab_size=2, layer_norm_eps=1e-5,
)
CASES = {
    'bert': ('Bert', 'Model', {}),
    'bert, gelu_new': ('Bert', 'Model', dict(hidden_act='gelu_new')),
    'bert with a head, relu': ('Bert', 'ForMaskedLM', dict(hidden_act='relu')),
    'roberta': ('Roberta', 'Model', dict(type_vocab_size=1, pad_token_id=1)),
}


def generator():
    state = 1
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state / 2**32 - 0.5


def fill(model):
    numbers = generator()
    tensors = {name: p for name, p in model.named_parameters() if 'embeddings' in name or 'encoder.' in name}
    for name in sorted(tensors):
        p = tensors[name]
        values = torch.tensor([next(numbers) for _ in range(p.numel())], dtype=torch.float64).reshape(p.shape)
        if name.endswith('LayerNorm.weight'):
            values = 1 + values
        elif p.dim() == 2:
            values = values * 4 / p.shape[1] ** 0.5
        p.data = values.float()
    return {name: list(p.shape) for name, p in tensors.items()}


def main():
    cases = []
    for name, (family, kind, extra) in CASES.items():
        config = getattr(transformers, f'{family}Config')(**{**BASE, **extra}, attn_implementation='eager')
        model = getattr(transformers, f'{family}{kind}')(config).eval()
        shapes = fill(model)
        encoder = model if kind == 'Model' else getattr(model, family.lower())
        ids = [2 + (i * i * 7 + i * 3) % 38 for i in range(LENGTH)]
        with torch.no_grad():
            hidden = encoder.double()(torch.tensor([ids])).last_hidden_state[0]
        keys = [*BASE, 'model_type', 'hidden_act', 'pad_token_id', 'position_embedding_type']
        written = {key: value for key, value in json.loads(config.to_json_string()).items() if key in keys}
        rows = [[round(v, 6) for v in hidden[row].tolist()] for row in SHOWN]
        cases.append(dict(name=name, config=written, shapes=shapes, hidden=rows))
    path = pathlib.Path(__file__).parent.parent / 'test' / 'golden' / 'encoders.json'
    head = dict(transformers=transformers.__version__, length=LENGTH, shown=SHOWN)
    lines = ',\n'.join(json.dumps(case) for case in cases)
    path.write_text(json.dumps(head)[:-1] + ', "cases": [\n' + lines + '\n]}\n')


main()
