# %% [markdown] What a trained model attends to, without the matrix of weights: entropy, mass on a
# region, rollout. Real data that needs no download: the 8 x 8 digits of scikit-learn, one
# token per pixel. `python examples/read_outs.py 20` trains 20 steps, which is too few to see much.

# %%
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from headwise.kernels.attention_stats import attention_stats, rollout_row
from headwise.models.layers.vit import VisionTransformer

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 8 - 1
y = torch.from_numpy(labels)
train, test = torch.arange(1400), torch.arange(1400, len(y))

# %% Train a small vision transformer on single pixels: 64 tokens.
model = VisionTransformer(
    image=(8, 8), patch=1, channels=1, classes=10, width=32, depth=2, heads=4, hidden=64
)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(int(sys.argv[1]) if sys.argv[1:] else 500):
    rows = train[torch.randint(0, len(train), (64,))]
    loss = F.cross_entropy(model(x[rows]), y[rows])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
model.eval()
with torch.no_grad():
    right = (model(x[test]).argmax(1) == y[test]).float().mean()
print(f"accuracy on {len(test)} digits: {right:.3f}")

# %% Queries and keys of each layer, as the mechanism computes them.
projections = []
hooks = [
    layer.mixer.register_forward_pre_hook(
        lambda mixer, inputs: projections.append(mixer.project(inputs[0], inputs[0]))
    )
    for layer in model.encoder.layers
]
with torch.no_grad():
    model(x[test[:16]])
for hook in hooks:
    hook.remove()

# %% One pass per layer gives all read-outs; the share of attention on ink (bright pixels).
ink = x[test[:16]].flatten(1) > 0
for i, (query, key, _) in enumerate(projections):
    stats = attention_stats(query, key, want=("entropy", "key_mass", "column_mass"), keys=ink)
    assert stats.entropy is not None
    assert stats.key_mass is not None
    print(
        f"layer {i}: entropy {stats.entropy.mean():.2f} of at most {torch.tensor(64.0).log():.2f}, "
        f"on ink {stats.key_mass.mean():.2f} (ink is {ink.float().mean():.2f} of the image)"
    )

# %% Rollout: what reaches the centre token through all layers, printed as digits.
row = rollout_row([(query, key) for query, key, _ in projections], start=36)[0].view(8, 8)
for line in (row / row.max() * 9).long().tolist():
    print(" ".join(str(value) for value in line))
