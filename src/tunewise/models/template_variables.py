"""Which variables a chat template reads: what it does not read has no effect."""

from __future__ import annotations

from functools import lru_cache

from jinja2 import Environment, TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser


class _Generation(Extension):
    """The tag that marks the assistant's words in templates of transformers."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(64)
def variables_of(template: str) -> frozenset[str]:
    """The variables that a template reads; none where it cannot be read as one."""
    environment = Environment(extensions=[_Generation, "jinja2.ext.loopcontrols"])
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(template)))
    except TemplateError:
        return frozenset()
