"""CVLP as a backbone: its query network, which has LXMERT's architecture."""

from __future__ import annotations

from vlbench.models.layers.crossmodal_backbone import CrossModal


class CVLP(CrossModal):
    """CVLP's query network. Source: Shi et al. 2020 (arXiv 2007.13135)."""

    title = "CVLP"
