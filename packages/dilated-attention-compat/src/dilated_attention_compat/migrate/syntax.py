"""What a piece of syntax spells out."""

from __future__ import annotations

import libcst as cst


def dotted(node: cst.CSTNode | None) -> str:
    """Return `a.b.c` for a chain of names, and an empty string for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        prefix = dotted(node.value)
        return f"{prefix}.{node.attr.value}" if prefix else ""
    return ""


def mentioned(node: cst.CSTNode) -> list[str]:
    """Return the dotted paths that an import, or a chain of attributes, spells out."""
    if isinstance(node, cst.Import):
        return [dotted(alias.name) for alias in node.names]
    if isinstance(node, cst.ImportFrom):
        module = "." if node.relative else dotted(node.module)
        if isinstance(node.names, cst.ImportStar):
            return [module]
        return [f"{module}.{dotted(alias.name)}" for alias in node.names]
    return [dotted(node)]
