"""CVLP as a backbone: the paper's query network, which is LXMERT's."""

from __future__ import annotations

from vlbench.models.layers.crossmodal_backbone import CrossModal


class CVLP(CrossModal):
    """The query network; what makes CVLP of it is its pretraining. Source: Shi et al. 2020 (arXiv 2007.13135)."""

    title = "CVLP"
