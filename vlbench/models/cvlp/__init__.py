"""CVLP: Contrastive Visual-Linguistic Pretraining (arXiv 2007.13135)."""
