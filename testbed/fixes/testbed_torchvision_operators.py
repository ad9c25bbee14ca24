"""Lets torchvision's CUDA build be imported beside a CPU build of torch.

Its compiled operators cannot load there, and its Python code then registers metadata for operators
that nobody declared. Declaring them first is enough: nothing here calls them. A ``.pth`` file
installs this in every process of the environment, before torchvision can be imported.
"""

import importlib.abc
import sys

_declared = []


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare()


def _declare():
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)  # a library's operators live as long as it does


sys.meta_path.insert(0, _BeforeTorchvision())
