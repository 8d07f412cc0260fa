"""hvx: visual explanations from the Hadamard product of visual question answering networks.

Implements *Visual Explanations from Hadamard Product in Multimodal Deep Networks* (Kim & Zhang,
2017) over whole splits. The folders are the stations of the road, in order: ``data``, ``models``,
``explain``, ``store``, ``run``, ``view``, ``measure``, ``train``; ``cli`` is a thin skin over them.
"""

__version__ = "0.1.0"
