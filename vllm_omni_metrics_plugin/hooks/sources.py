"""Where hook plugins come from: entry points of installed packages, and files by their path."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from vllm_omni_metrics_plugin.hooks.marks import Process
from vllm_omni_metrics_plugin.hooks.specs import PROJECT

#: Hook plugins of the server.
SERVER_GROUP = f"{PROJECT}.hooks"
#: Those of the stages' processes, which import nothing else: a group of its own can be read without
#: importing what is in it.
STAGE_GROUP = f"{PROJECT}.stage_hooks"

_SUFFIX = ".py"


@dataclass(frozen=True)
class Source:
    """One hook plugin that can be loaded."""

    name: str
    #: ``module:object`` of an entry point, the path of a file.
    value: str
    #: Imports it and returns the plugin; raises whatever its module raises.
    load: Callable[[], object]
    #: Of the package that installed it; None of a file.
    distribution: str | None = None
    version: str | None = None


def installed(process: Process = "server") -> list[Source]:
    """The installed hook plugins for such a process; nothing is imported."""
    group = SERVER_GROUP if process == "server" else STAGE_GROUP
    return [_of_entry_point(entry) for entry in entry_points(group=group)]


def in_file(path: str) -> list[Source]:
    """The hook plugin in this file, or those in this folder's; never raises.

    ``~`` stands for the home folder, and ``file.py:name`` for an object in the file. In a folder,
    each ``*.py`` is a plugin but those that begin with ``_`` or ``.``. What is not there is a
    source whose ``load`` raises.
    """
    before, colon, attribute = path.rpartition(f"{_SUFFIX}:")
    where = os.path.expanduser(before + _SUFFIX if colon else path)
    name = os.path.basename(where.rstrip(os.sep)).removesuffix(_SUFFIX)
    try:
        where = os.path.abspath(where)
        if not os.path.isdir(where):
            return [Source(name, where, partial(_load, name, where, attribute if colon else ""))]
        files = [
            file
            for file in sorted(os.listdir(where))
            if file.endswith(_SUFFIX) and not file.startswith(("_", "."))
        ]
        if not files:
            raise FileNotFoundError(f"no *{_SUFFIX} is in this folder")
    except OSError as error:
        return [Source(name, where, partial(_fail, error))]
    return [source for file in files for source in in_file(os.path.join(where, file))]


def _of_entry_point(entry: EntryPoint) -> Source:
    of = entry.dist
    if of is None:
        return Source(entry.name, entry.value, entry.load)
    return Source(entry.name, entry.value, entry.load, of.name, of.version)


def _load(name: str, path: str, attribute: str) -> object:
    if not os.path.isfile(path):
        raise FileNotFoundError("there is no such file")
    if not path.endswith(_SUFFIX):
        raise ValueError(f"it is no file of Python, *{_SUFFIX}")
    module = _execute(name, path)
    if not attribute:
        return module
    if not hasattr(module, attribute):
        raise AttributeError(f"there is no {attribute} in it")
    plugin: object = getattr(module, attribute)
    return plugin


def _execute(name: str, path: str) -> ModuleType:
    # Under a name that no import can mean, or a file would stand in for an installed module.
    spec = spec_from_file_location(f"{PROJECT}:{name}", path)
    assert isinstance(spec, ModuleSpec)
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickles look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _fail(error: Exception) -> object:
    raise error
