"""Where a value goes in the source of the script: through which statements, under which names, into what."""

import ast
from types import FrameType, ModuleType

import torch

from . import users
from .names import ARITHMETIC
from .scope import Scope
from .source import KEEPING, are_named_apart, counts, value_of

_UNFIT = (ast.Lambda, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_NUMBERS = {"numpy", "tolist", "item"}
"""Methods of a tensor that give Python's or numpy's numbers."""
_READ = {"numpy", "tolist"}
"""Those that give as many as there are rows."""


class Flow(Scope):
    """Follows what is asked in *frame* through the statements of its function, and of those that called it."""

    def __init__(self, frame: FrameType) -> None:
        super().__init__(frame)
        self._found: dict[tuple[str, ast.AST | None], bool] = {}
        """Of names, and what binds them, whether their uses lead to nothing but logs."""
        self._of_rows: dict[str, bool] = {}
        self._for_log: dict[ast.For, bool] = {}
        """Of loops within a batch, whether they do nothing but log."""
        self._guessed: set[str] = set()
        """Names without a value as yet, of which what they will be given was looked at."""

    def is_kept(self, place: int | None = None) -> bool:
        """Whether what is asked now leads to nothing but logs; *place*: of several things, that one alone."""
        named = self.source.parents.get(self.node) if place is not None and self.node is not None else None
        if isinstance(named, ast.Assign) and all(map(are_named_apart, named.targets)):
            return all(self._is_named_for_log(each.elts[place]) for each in named.targets)  # type: ignore[attr-defined]
        if isinstance(self.node, ast.AugAssign):  # `names += batch["name"]`, which asks as it adds
            return self._grows(self.node)
        return self.node is not None and self._leads(self.node)

    def is_of_all(self) -> bool:
        """Whether a number of rows is a number here, `t.mul(n)`, or of what Python or numpy makes for a log."""
        if not isinstance(self.node, ast.Call):
            return False
        called = self.node.func
        is_number = isinstance(called, ast.Attribute) and called.attr.removesuffix("_") in ARITHMETIC
        return is_number or (counts(called, self.frame) and self.is_kept())

    def _leads(self, node: ast.AST) -> bool:
        """Whether the value of the expression *node* does so."""
        while (parent := self.source.parents.get(node)) is not None and not isinstance(parent, _UNFIT):
            if isinstance(parent, ast.stmt):
                return self._ends(node, parent)
            if isinstance(parent, ast.Tuple) and (found := self._is_apart_for_log(node, parent)) is not None:
                return found
            is_argument = isinstance(parent, ast.Call) and node is not parent.func
            is_last = isinstance(self.source.parents.get(parent), ast.Expr)
            if is_argument and not is_last and not counts(parent.func, self.frame):  # type: ignore[attr-defined]
                return False
            if not self._is_beside_numbers(node, parent):
                return False
            node = parent
        return False

    def _ends(self, node: ast.AST, statement: ast.stmt) -> bool:
        """Whether *statement*, which begins with the value of *node*, only keeps it, or what it names is only kept."""
        if isinstance(statement, ast.Expr):
            is_kept = isinstance(node, ast.Call) and self._keeps(node.func)
        elif isinstance(statement, (ast.If, ast.While, ast.Assert)):
            is_kept = True  # a choice is made by all rows
        elif isinstance(statement, ast.Return):
            is_kept = self._is_given_back(statement)
        elif isinstance(statement, ast.For):
            is_kept = self._is_for_log(statement)
        else:
            is_kept = self._only_logs(statement)
        return is_kept and self._goes_with_logs(node if hasattr(statement, "body") else statement)

    def _is_for_log(self, loop: ast.For) -> bool:
        """Whether *loop*, over rows or numbers of them, does nothing but log."""
        if loop not in self._for_log:
            self._for_log[loop] = True  # as long as nothing else is found
            self._for_log[loop] = (
                (self._is_numbers(loop.iter) or self._is_of_torch(loop.iter))
                and self._is_named_for_log(loop.target)
                and all(map(self._only_logs, [*loop.body, *loop.orelse]))
            )
        return self._for_log[loop]

    def _is_of_torch(self, iterated: ast.expr) -> bool:
        """Whether all rows that *iterated* has are asked for here, and none were made by the script's functions."""
        calls = (each.func for each in ast.walk(iterated) if isinstance(each, ast.Call))
        return not any(users.is_by_user(value_of(each, self.frame)) for each in calls)

    def _is_given_back(self, statement: ast.stmt, place: int | None = None) -> bool:
        """Whether what *statement* returns, or that at *place* of it, only goes to logs in the function that called."""
        above = self.frame.f_back
        is_own = self.function_of(statement) is self.scope and not self.loops
        return is_own and above is not None and users.is_scripts(above) and Flow(above).is_kept(place)

    def _is_apart_for_log(self, node: ast.AST, several: ast.Tuple) -> bool | None:
        """Whether *node* leads to logs where *several* get a name each, or are returned; None for any other use."""
        statement, place = self.source.parents.get(several), several.elts.index(node)  # type: ignore[arg-type]
        if isinstance(statement, ast.Return):
            return self._is_given_back(statement, place) and self._goes_with_logs(node)
        if (
            isinstance(statement, ast.Assign)
            and statement.value is several
            and all(map(are_named_apart, statement.targets))
        ):
            names = [each.elts[place] for each in statement.targets]  # type: ignore[attr-defined]
            return all(map(self._is_named_for_log, names)) and self._goes_with_logs(node)
        return None

    def _only_logs(self, statement: ast.stmt) -> bool:
        """Whether *statement*, within a loop over numbers of rows perhaps, only keeps, counts or prints."""
        if isinstance(statement, ast.Expr):
            return isinstance(statement.value, ast.Call) and self._keeps(statement.value.func)
        if isinstance(statement, ast.AugAssign):
            return self._grows(statement)
        if isinstance(statement, ast.Assign):
            return self._grows(statement) or all(map(self._is_named_for_log, statement.targets))
        if isinstance(statement, (ast.If, ast.For)):
            return all(map(self._only_logs, [*statement.body, *statement.orelse]))
        return isinstance(statement, (ast.Pass, ast.Continue, ast.Break))

    def _goes_with_logs(self, together: ast.AST) -> bool:
        """Whether all else in *together* that was made of rows leads to logs: it would have other rows than this."""
        names = [each for each in ast.walk(together) if isinstance(each, ast.Name)]
        anew = (each for each in names if self.is_made_anew(each) and self._names_numbers(each))
        return all(self._uses_lead(each) for each in anew if self._is_of_rows(each.id))

    def _is_of_rows(self, name: str) -> bool:
        """Whether *name* stands for numbers that the script has made of rows."""
        if name not in self._of_rows:
            self._of_rows[name] = False
            made = [*self.values_of(name), *self.filled_in(name), *self.filled_with(name)]
            self._of_rows[name] = self._is_made_row_by_row(name) or any(map(self._makes_of_rows, made))
        return self._of_rows[name]

    def _is_made_row_by_row(self, name: str) -> bool:
        """Whether *name* is a list of what the script computes in a loop over rows."""
        return not all(map(self._is_numbers, self.gone_through(name)))

    def _has_rows(self, iterated: ast.expr) -> bool:
        """Whether *iterated* may be rows of the batch, or numbers of them."""
        return not self._is_numbers(iterated) or self._makes_of_rows(iterated)

    def _makes_of_rows(self, value: ast.expr) -> bool:
        for each in ast.walk(value):
            if isinstance(each, ast.Attribute) and each.attr in _READ:
                return True
            if isinstance(each, ast.Call) and users.is_by_user(value_of(each.func, self.frame)):
                return True
            is_plain = isinstance(each, ast.Name) and not isinstance(value_of(each, self.frame), torch.Tensor)
            if is_plain and self._is_of_rows(each.id):  # type: ignore[attr-defined]
                return True
        return False

    def _is_named_for_log(self, target: ast.expr) -> bool:
        """Whether all uses of what *target* names lead to logs."""
        if isinstance(target, (ast.Tuple, ast.List)):
            return all(map(self._is_named_for_log, target.elts))
        if isinstance(target, ast.Subscript):  # `said[k] = ...`
            return self._outlasts(target.value)
        return isinstance(target, ast.Name) and self._uses_lead(target)

    def _uses_lead(self, named: ast.Name) -> bool:
        """Whether all uses of what *named* stands for, where it stands, lead to logs."""
        key = named.id, self.binder_of(named)
        if key not in self._found:
            self._found[key] = True  # as long as nothing else is found
            self._found[key] = self._do_uses_lead(*key)
        return self._found[key]

    def _do_uses_lead(self, name: str, binder: ast.AST | None) -> bool:
        if not all(map(self._leads, filter(self._has_rows, self.gone_through(name)))):
            return False
        if any(isinstance(each, (ast.Global, ast.Nonlocal)) and name in each.names for each in ast.walk(self.scope)):
            return False
        uses = [each for each in ast.walk(self.scope) if isinstance(each, ast.Name) and each.id == name]
        uses = [each for each in uses if isinstance(each.ctx, ast.Load) and not self.is_others(each)]
        return all(map(self._leads, (each for each in uses if self.is_same(each, binder))))

    def _keeps(self, called: ast.expr) -> bool:
        """Whether *called*, whose result the script drops, is called for what it keeps or prints."""
        if not isinstance(called, ast.Attribute):
            return counts(called, self.frame)
        held = value_of(called.value, self.frame)
        if called.attr not in KEEPING or isinstance(held, (torch.Tensor, torch.nn.Module)):
            return False
        return isinstance(held, ModuleType) or self._outlasts(called.value)

    def _grows(self, statement: ast.AugAssign | ast.Assign) -> bool:
        """Whether *statement* adds to something of the script's: `hits += ...`, `said = np.append(said, ...)`."""
        if isinstance(statement, ast.AugAssign):
            held = value_of(statement.target, self.frame)
            return not isinstance(held, torch.Tensor) and self._outlasts(statement.target)
        first, *others = statement.targets
        own = first.id if isinstance(first, ast.Name) and not others else ""
        grows = any(isinstance(each, ast.Name) and each.id == own for each in ast.walk(statement.value))
        return grows and self._outlasts(first)

    def _outlasts(self, held: ast.expr) -> bool:
        """Whether *held*, to which something is added, is there for more than this batch, or only logged after all."""
        while isinstance(held, (ast.Subscript, ast.Attribute)):
            if isinstance(held, ast.Attribute):
                return True
            held = held.value
        if not isinstance(held, ast.Name):
            return True
        value, binder = value_of(held, self.frame), self.binder_of(held)
        is_row = isinstance(binder, ast.For) and not self._is_numbers(binder.iter)
        if is_row or (isinstance(value, torch.Tensor) and hasattr(value, "share")):  # of this batch
            return False
        return not self.is_made_anew(held) or self._uses_lead(held)

    def _is_beside_numbers(self, node: ast.AST, parent: ast.AST) -> bool:
        """Whether *parent* puts the value of *node* together with no tensor."""
        if isinstance(parent, ast.BinOp):
            others = [parent.left, parent.right]
        elif isinstance(parent, ast.Compare):
            others = [parent.left, *parent.comparators]
        elif isinstance(parent, ast.Subscript) and node is not parent.value:
            return isinstance(parent.ctx, ast.Store) or self._is_numbers(parent.value) or self._is_taken(parent)
        elif isinstance(parent, ast.comprehension):
            return node is not parent.iter or self._is_numbers(node) or self._is_of_torch(parent.iter)
        else:
            return True
        return all(other is node or self._is_numbers(other) or self._is_taken(other) for other in others)

    def _is_taken(self, other: ast.AST) -> bool:
        """Whether *other* is one row of a tensor, by a place among all rows: `p[i]`."""
        if not isinstance(other, ast.Subscript) or not isinstance(other.value, ast.Name):
            return False
        place = other.slice.elts[0] if isinstance(other.slice, ast.Tuple) and other.slice.elts else other.slice
        return isinstance(place, ast.Name) and self._names_numbers(place)

    def _is_numbers(self, other: ast.AST) -> bool:
        """Whether *other* is made of Python's or numpy's numbers, as far as its names tell."""
        if isinstance(other, ast.Attribute) and other.attr in _NUMBERS:
            return True
        if isinstance(other, ast.Call) and isinstance(other.func, ast.Attribute) and other.func.attr in _NUMBERS:
            return True
        if isinstance(other, ast.Name):
            return not isinstance(other.ctx, ast.Load) or self._names_numbers(other)
        return all(map(self._is_numbers, ast.iter_child_nodes(other)))

    def _names_numbers(self, name: ast.Name) -> bool:
        binder = self.binder_of(name)
        if (name.id, binder) in self._found:  # which is followed as such
            return True
        if isinstance(binder, ast.For) or self._becomes_numbers(name):
            return not isinstance(binder, ast.For) or self._is_numbers(binder.iter) or self._is_for_log(binder)
        held = value_of(name, self.frame)
        if held is not None:
            return not isinstance(held, (torch.Tensor, torch.nn.Module))
        if name.id in self._guessed:
            return True
        self._guessed.add(name.id)
        if binder is not None:
            return True  # of what is gone through there, which is looked at as well
        given = self.values_of(name.id)
        return bool(given) and all(map(self._is_numbers, given))

    def _becomes_numbers(self, name: ast.Name) -> bool:
        """Whether the statement at work, or those from it to *name*, have made numbers of what *name* stood for."""
        statement = self.statement_of(self.node)
        first = statement.lineno if statement is not None else name.lineno
        made = self.given(name, first)
        is_made = any(self.is_in_block_of(name, each) for each, _ in made)
        return is_made and all(self._is_numbers(value) for _, value in made)
