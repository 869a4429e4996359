"""Where chat templates run: jinja2's sandbox, with a bound on what a template may build.

jinja2's own sandbox keeps a template from reaching Python, and bounds nothing but `range`: `"x" * 10 ** 12` asks for a
terabyte. Here everything that makes text or lists longer is counted, and what multiplies is counted before it is done.
Time is bounded by whoever renders: loops are Python, and can be interrupted.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

BUILT_MAX = 8 * 1024 * 1024  # characters and list items that one rendering may build in all
NUMBER_MAX = 100_000  # as a width, a count, an indentation
EXPONENT_MAX = 256
# Filters and methods of text that take such a number.
SIZED = frozenset(
    ("batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "wordwrap", "zfill")
)
_WIDTHS = re.compile(r"\d{6,}")  # in a format: a width that NUMBER_MAX forbids


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of one model's template, with the names that `transformers` adds to jinja2's own."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
        )
        self._built = threading.local()
        self.code_generator_class = _CountedCode
        self.filters = {name: self._counted(name, filter_) for name, filter_ in self.filters.items()}
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace

    def begin(self) -> None:
        """Counts from 0 again, for a rendering in this thread."""
        self._built.length = 0

    def add_filter(self, name: str, filter_: Callable[..., Any]) -> None:
        """Makes a function a filter, counted as the others are."""
        self.filters[name] = self._counted(name, filter_)

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins what a template, a macro or a block has written."""
        parts = []
        for piece in pieces:
            self._count(len(piece))
            parts.append(piece)
        return "".join(parts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes `left operator right`, unless too much would be built."""
        if operator == "*":
            self._count(max(_length(left) * _times(right), _length(right) * _times(left)))
        elif operator == "+":
            self._count(_length(left) + _length(right))
        elif operator == "**" and _is_number(right) and abs(right) > EXPONENT_MAX:
            raise SecurityError(f"an exponent of {right}; at most {EXPONENT_MAX} is allowed")
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        result = super().call_binop(context, operator, left, right)
        if operator == "%":
            self._count(_length(result))
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls what a template calls, unless too much would be built."""
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps `str.format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | list | tuple):
            __self._check_call(method.__name__, owner, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        __self._count(_length(result))
        return result

    def _counted(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        # jinja2 hands the environment or the context to some filters first.
        skipped = 1 if getattr(filter_, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(filter_)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._check_call(name, args[skipped], args[skipped + 1 :], kwargs)
            result = filter_(*args, **kwargs)
            self._count(_length(result))
            return result

        return counted

    def _check_call(self, name: str, value: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """Checks a method of `value`, or a filter on it, before it runs."""
        arguments = [*args, *kwargs.values()]
        if name in SIZED:
            for argument in arguments:
                size = argument if _is_number(argument) else 100 * _length(argument)
                if size > NUMBER_MAX:
                    raise SecurityError(f"{name} with {size:g}; at most {NUMBER_MAX} is allowed there")
        elif name in ("format", "format_map") and isinstance(value, str):
            _check_format(value)
        elif name == "join":
            self._count_join(value, arguments)
        elif name == "replace" and isinstance(value, str) and len(arguments) >= 2:
            old, new = str(arguments[0]), str(arguments[1])
            self._count(value.count(old) * len(new))

    def _count_join(self, value: Any, arguments: list[Any]) -> None:
        """Counts `",".join(list)` and `list | join(",")`."""
        if isinstance(value, str):
            separator, items = value, arguments[0] if arguments else ()
        else:
            separator, items = str(arguments[0]) if arguments else "", value
        if isinstance(items, list | tuple):
            self._count(sum(len(separator) + _length(item) for item in items))

    def _count(self, length: int) -> None:
        built = getattr(self._built, "length", 0) + length
        if built > BUILT_MAX:
            raise SecurityError(f"it builds {built} characters and items; at most {BUILT_MAX} are allowed")
        self._built.length = built


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}`, by which training finds an assistant's words; it writes its body.

    As in `transformers` the body is a call block: names that are set inside are not seen outside.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 types it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Parses from the tag to its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Callable[[], str]) -> str:
        return caller()


class _CountedCode(CodeGenerator):
    """Compiles `a ~ b` to a join that is counted."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        """Writes Python for the concatenation."""
        self.write("environment.concat(map(str, (")
        for arg in node.nodes:
            self.visit(arg, frame)
            self.write(", ")
        self.write(")))")


class _Dict:
    """The `dict` that templates may call, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """See `dict.fromkeys`."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *values = args
        attributes = dict(*values, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace keeps no name with an underscore first: {name!r}")


def _check_format(text: str) -> None:
    if (found := _WIDTHS.search(text)) is not None:
        raise SecurityError(f"a width of {found[0]} in a format; at most {NUMBER_MAX} is allowed")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _times(value: Any) -> int:
    """Returns how often `value *` repeats what it is multiplied with."""
    return max(0, value) if isinstance(value, int) else 0


def _length(value: Any) -> int:
    """Returns the length of what grows when it is added to or multiplied; 0 for everything else."""
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0
