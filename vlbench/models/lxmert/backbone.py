"""LXMERT as a backbone."""

from __future__ import annotations

from vlbench.models.layers.crossmodal_backbone import CrossModal


class LXMERT(CrossModal):
    """LXMERT's network. Source: Tan and Bansal 2019 (arXiv 1908.07490)."""

    title = "LXMERT"
