"""Counting the forward passes of all processes that a run starts, from outside of probeline."""

from __future__ import annotations

import os
from pathlib import Path

# Python imports it by itself at its start, where it is found.
_CODE = '''
import os
import sys
from importlib.machinery import PathFinder


class Finder:
    """Has torch call `count` after each module, once transformers knows what a model is."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "transformers.modeling_utils":
            return None
        sys.meta_path.remove(Finder)
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            from torch.nn.modules.module import register_module_forward_pre_hook

            def count(part, _):
                if isinstance(part, module.PreTrainedModel):
                    with open(os.environ["FORWARD_PASSES"], "a") as handle:
                        handle.write(type(part).__name__ + "\\n")

            execute(module)
            register_module_forward_pre_hook(count)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
'''


def counted(folder: Path) -> dict[str, str]:
    """Return the environment of a run whose forward passes are counted."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CODE, encoding="utf-8")
    found = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(found), "FORWARD_PASSES": str(folder / "passes")}


def passes(folder: Path) -> int:
    """Return how many forward passes there were since `counted` made the environment."""
    path = folder / "passes"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
