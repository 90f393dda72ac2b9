# %% [markdown] One model, any mechanism: the same vision transformer with each mechanism of the
# core, on scikit-learn's digits. `python examples/swap_attention.py star moh` trains those alone.

# %%
import sys
import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from headwise.models.attention import ATTENTION
from headwise.models.layers.vit import VisionTransformer

images, labels = load_digits(return_X_y=True)
x = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 8 - 1
y = torch.from_numpy(labels)


# %% Patches of 2 x 2 pixels: 16 tokens on a 4 x 4 grid, so that mechanisms for grids work, too.
def trained(name: str | tuple[str, ...], steps: int = 100) -> tuple[float, float]:
    """Accuracy on the last 397 digits, and seconds of training."""
    torch.manual_seed(0)
    model = VisionTransformer(
        image=(8, 8),
        patch=2,
        channels=1,
        classes=10,
        width=32,
        depth=2,
        heads=4,
        attention=name,
        hidden=64,
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    begun = time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(0, 1400, (32,))
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    spent = time.perf_counter() - begun
    model.eval()
    with torch.no_grad():
        return float((model(x[1400:]).argmax(1) == y[1400:]).float().mean()), spent


for name in sys.argv[1:] or ATTENTION:
    right, spent = trained(name)
    print(f"{name:<20}accuracy {right:.3f}  {spent:.1f} s")

# %% A plan: every second layer has another mechanism.
print("star, softmax       accuracy {:.3f}  {:.1f} s".format(*trained(("star", "softmax"))))
