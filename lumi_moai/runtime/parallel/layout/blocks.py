"""The blocks of a model, found by structure: the layers that repeat, whatever their class is called."""

from collections.abc import Iterator

from torch import nn

_LEAST = 2
"""So many children of one class make a list of blocks."""


def find(root: nn.Module) -> list[list[nn.Module]]:
    """The lists of blocks in *root*, outermost first, in the order of the model; `[]` when nothing repeats.

    A block is a child, with parameters and parts of its own, of a ModuleList or Sequential in which most children with
    parameters share its class. Blocks do not nest, none stands twice, and none shares a parameter with the rest of the
    model: what is tied must stay in one piece.
    """
    found = [_alike(holder) for holder in _outermost(root)]
    return [kept for blocks in found if (kept := _untied(root, blocks))]


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if _alike(module):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _alike(holder: nn.Module) -> list[nn.Module]:
    """The children of *holder* that repeat; none when it is no list, or its children are single operations."""
    if not isinstance(holder, (nn.ModuleList, nn.Sequential)):
        return []
    children = [child for child in holder.children() if any(True for _ in child.parameters())]
    classes = [type(child) for child in children if any(True for _ in child.children())]
    if not classes:
        return []
    commonest = max(classes, key=classes.count)
    alike = [child for child in children if type(child) is commonest]
    return alike if len(alike) >= _LEAST and 2 * len(alike) > len(children) else []


def _untied(root: nn.Module, blocks: list[nn.Module]) -> list[nn.Module]:
    holders: dict[int, int] = {}
    for module in root.modules():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    places = [id(module) for module in _with_repeats(root)]
    return [block for block in blocks if places.count(id(block)) == 1 and _owns_all(block, holders)]


def _owns_all(block: nn.Module, holders: dict[int, int]) -> bool:
    mine: dict[int, int] = {}
    for module in block.modules():
        for parameter in module.parameters(recurse=False):
            mine[id(parameter)] = mine.get(id(parameter), 0) + 1
    return all(holders[key] == count for key, count in mine.items())


def _with_repeats(root: nn.Module) -> Iterator[nn.Module]:
    """Every module as often as it stands in *root*; `modules()` names each once."""
    for _, module in root.named_modules(remove_duplicate=False):
        yield module
