"""The layers every classification head is made of."""

from __future__ import annotations

from torch import nn

from vlbench.core.cards import HeadLayout


def classifier(inputs: int, hidden: int, outputs: int, layout: HeadLayout) -> nn.Sequential:
    """Linear, what the layout's order says, then Linear: [B, inputs] -> [B, outputs].

    Where nothing is hidden, the last Linear alone. Weights start at N(0, 0.02), biases at 0, as in BERT. Source: Tan
    and Bansal 2019 (activation-norm), Kim et al. 2021 (norm-activation), Huang et al. 2021, official code
    (relu-dropout).
    """
    layers = nn.Sequential(*_layers(inputs, hidden, outputs, layout))
    # As vlbench.models.layers.bert.initialize does, which a head cannot import: models and heads do not see each other.
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return layers


def _layers(inputs: int, hidden: int, outputs: int, layout: HeadLayout) -> list[nn.Module]:
    if not hidden:
        return [nn.Linear(inputs, outputs)]
    between: list[nn.Module]
    if layout.order == "relu-dropout":
        between = [nn.ReLU(), nn.Dropout(layout.dropout)]
    else:
        between = [nn.GELU(), nn.LayerNorm(hidden, eps=layout.epsilon)]
    if layout.order == "norm-activation":
        between.reverse()
    return [nn.Linear(inputs, hidden), *between, nn.Linear(hidden, outputs)]
