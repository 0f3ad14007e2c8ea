"""The synthetic world: scenes of coloured shapes with a true scene graph, rendered to images, described in English and
exported in the official format of each task, so that vlbench runs without any downloaded data.

scenes/: scenes, images, region features, image collections. language/: statements, questions, captions and hypotheses,
each with a solver. exporters/: one module per official format. generate: the entry point, `ensure_world`.
"""
