"""Conditions on a table's rows, as `quality == 'good' and snr > 2`; no other code is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from streams.errors import SessionError
from streams.sessions.session import Interval, Session

COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
ALLOWED = "columns, numbers, 'texts', True and False, ==, !=, <, <=, >, >=, in, and, or, not"


def rows_where(
    condition: str, columns: Mapping[str, np.ndarray], n_rows: int, whose: str = ""
) -> np.ndarray:
    """Find the table rows that meet a condition.

    Args:
        condition: for example `quality in ['good', 'mua'] and not noisy`; "" for all rows.
        columns: each (n_rows,).
        n_rows: rows in the table.
        whose: what messages begin with: the file and its table.

    Returns:
        (n_rows,) bool.

    Raises:
        SessionError: it is no such condition, or names a column that is not there.
    """
    if not condition.strip():
        return np.ones(n_rows, np.bool_)
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SessionError(
            f"{whose}cannot read the condition {condition!r}: write {ALLOWED}"
        ) from error
    return _Condition(condition, columns, n_rows, whose).rows(tree)


class _Condition:
    """One condition over one table."""

    def __init__(
        self, text: str, columns: Mapping[str, np.ndarray], n_rows: int, whose: str
    ) -> None:
        self._columns, self._n_rows = columns, n_rows
        self._name = f"{whose}the condition {text!r}"

    def rows(self, node: ast.expr) -> np.ndarray:
        """(n_rows,) bool."""
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return np.asarray(join.reduce([self.rows(part) for part in node.values]))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.rows(node.operand)
        if isinstance(node, ast.Compare):
            return self._compared(node)
        if isinstance(node, ast.Name):
            return self._flag(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return np.full(self._n_rows, node.value)
        raise self._refusal()

    def _compared(self, node: ast.Compare) -> np.ndarray:
        sides = pairwise([node.left, *node.comparators])
        kept = [self._one(sign, *two) for sign, two in zip(node.ops, sides, strict=True)]
        return np.asarray(np.logical_and.reduce(kept))

    def _one(self, sign: ast.cmpop, left: ast.expr, right: ast.expr) -> np.ndarray:
        if isinstance(sign, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._refusal()
            held = [self._with(operator.eq, self._value(left), self._value(e)) for e in right.elts]
            inside = np.logical_or.reduce(held) if held else np.zeros(self._n_rows, np.bool_)
            return np.asarray(inside if isinstance(sign, ast.In) else ~inside)
        if type(sign) not in COMPARISONS:
            raise self._refusal()
        return self._with(COMPARISONS[type(sign)], self._value(left), self._value(right))

    def _with(self, compare: Callable[[Any, Any], Any], left: Any, right: Any) -> np.ndarray:
        texts = {np.asarray(side).dtype.kind == "U" for side in (left, right)}
        if len(texts) > 1:
            raise SessionError(
                f"{self._name} compares a text with a number: put texts, and only "
                f"texts, in quotes; columns: {self._told()}"
            )
        return np.broadcast_to(np.asarray(compare(left, right), np.bool_), self._n_rows).copy()

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._value(node.operand)
            if isinstance(value, int | float):
                return -value
        raise self._refusal()

    def _flag(self, name: str) -> np.ndarray:
        column = self._column(name)
        if column.dtype.kind == "U":
            folded = np.char.lower(np.char.strip(column))
            if set(np.unique(folded).tolist()) <= {"true", "false"}:
                return np.asarray(folded == "true")
        is_flag = column.dtype.kind == "b" or set(np.unique(column).tolist()) <= {0, 1}
        if column.dtype.kind == "U" or not is_flag:
            raise SessionError(
                f"{self._name} takes column {name!r} as true or false, "
                f"but it holds {self._told(name)}: compare it, for example {name} == ..."
            )
        return column.astype(np.bool_)

    def _column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise SessionError(
                f"{self._name} names {name!r}, which is no column of the table; "
                f"columns: {self._told()}"
            )
        return self._columns[name]

    def _told(self, *names: str) -> str:
        return told_columns({name: self._columns[name] for name in names or self._columns})

    def _refusal(self) -> SessionError:
        return SessionError(f"{self._name} may hold only {ALLOWED}")


def told_columns(columns: Mapping[str, np.ndarray]) -> str:
    """Show columns with some values, for messages."""
    told = []
    for name, column in sorted(columns.items()):
        values = list(dict.fromkeys(column.tolist()))
        more = ", ..." if len(values) > 4 else ""
        told.append(f"{name} ({', '.join(map(repr, values[:4]))}{more})")
    return "; ".join(told) or "none"


def trials_where(session: Session, condition: str) -> list[Interval]:
    """Find the trials that meet a condition; those without start or stop are left out.

    Raises:
        SessionError: the session has no trials, or the condition cannot be applied to them.
    """
    trials = session.trials
    if trials is None:
        raise SessionError(
            f"session {session.id} has no trials to choose by {condition!r}: name their table, "
            '[sessions] trials = "intervals/NAME", or split otherwise'
        )
    columns = flat_columns(session)
    chosen = rows_where(condition, columns, len(trials), f"session {session.id}, trials: ")
    chosen &= np.isfinite(trials.start_s) & np.isfinite(trials.stop_s)
    return list(zip(trials.start_s[chosen].tolist(), trials.stop_s[chosen].tolist(), strict=True))


def flat_columns(session: Session) -> dict[str, np.ndarray]:
    """Return the trial columns with one value each."""
    columns = {} if session.trials is None else session.trials.columns
    return {name: column for name, column in columns.items() if column.ndim == 1}
