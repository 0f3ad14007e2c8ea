"""The region extractor that region models were published with: Faster R-CNN on ResNet-101, in plain torch."""
