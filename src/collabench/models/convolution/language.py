"""A few words of LLVM's language, in which the loops of portable arithmetic are written.

A lane of a register is an output, never a part of a sum. A sum runs in the order in which its loops are written, one
explicit fused multiply-add a term. So every number has the same bits whatever a register holds and however outputs
are tiled, and the compiler has no choice, since no operation is marked as one that may be reordered or contracted.

Distances between numbers are counted in numbers of 4 bytes. Sizes are known when the loops are written, but for the
number of images, so that a number's place is mostly a part of the instruction that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I64, I32, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
Size = Any
"""An int that is known now, or a value of LLVM's that will be."""


def writes(pointers: int, sizes: int = 0) -> Callable[[Callable[..., None]], Callable[..., ir.Module]]:
    """Make a module of one function out of what writes its body: ``body(code, arguments, *constants)``."""

    def decorate(body: Callable[..., None]) -> Callable[..., ir.Module]:
        def write(width: int, *constants: int) -> ir.Module:
            module = ir.Module(name=body.__name__)
            kind = ir.FunctionType(ir.VoidType(), [I64] * (pointers + sizes))
            function = ir.Function(module, kind, body.__name__)
            code = Code(function, width)
            given = [code.builder.inttoptr(one, ir.PointerType()) for one in function.args[:pointers]]
            body(code, (*given, *function.args[pointers:]), *constants)
            code.builder.ret_void()
            return module

        write.__name__ = write.__qualname__ = body.__name__
        write.__doc__, write.__module__ = body.__doc__, body.__module__
        write.arguments = pointers + sizes  # type: ignore[attr-defined]
        return write

    return decorate


class Code:
    """A function that is being written; ``lanes``: numbers of a register."""

    def __init__(self, function: ir.Function, lanes: int) -> None:
        self.function, self.lanes = function, lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self._entry = function.append_basic_block("entry")
        body = function.append_basic_block("body")
        ir.IRBuilder(self._entry).branch(body)
        self.builder = ir.IRBuilder(body)

    # Numbers of steps and places

    def size(self, value: Size) -> Any:
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def plus(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(b, int) and b == 0:
            return a
        if isinstance(a, int) and a == 0:
            return b
        return self.builder.add(self.size(a), self.size(b))

    def times(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if 1 in (a, b) if isinstance(a, int) or isinstance(b, int) else False:
            return b if isinstance(a, int) else a
        return self.builder.mul(self.size(a), self.size(b))

    def minus(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return self.builder.sub(self.size(a), self.size(b))

    def over(self, a: Size, b: int) -> Size:
        return a // b if isinstance(a, int) else self.builder.udiv(a, self.size(b))

    def least(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        a, b = self.size(a), self.size(b)
        return self.builder.select(self.builder.icmp_unsigned("<", a, b), a, b)

    def at(self, place: Any, *distances: Size) -> Any:
        """The place so many numbers behind another."""
        for distance in sorted(distances, key=lambda one: isinstance(one, int)):
            if not (isinstance(distance, int) and distance == 0):
                place = self.builder.gep(place, [self.size(distance)], source_etype=FLOAT)
        return place

    # Flow

    @contextmanager
    def loop(self, stop: Size, start: Size = 0, step: int = 1) -> Iterator[Any]:
        """For every ``start``, ``start + step`` … below ``stop``."""
        builder, function = self.builder, self.function
        before = builder.block
        head, body, after = (function.append_basic_block(name) for name in ("head", "each", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(self.size(start), before)
        builder.cbranch(builder.icmp_signed("<", index, self.size(stop)), body, after)
        builder.position_at_end(body)
        yield index
        index.add_incoming(builder.add(index, self.size(step)), builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def groups(self, count: Size, sizes: Sequence[int]) -> Iterator[tuple[Any, int]]:
        """Cover ``count`` by groups of the first size, what is left by groups of the second … the last of which is 1:
        the first place of a group and its size. What follows is written once for every size."""
        start: Size = 0
        for size in sizes:
            if isinstance(count, int) and isinstance(start, int):
                stop: Size = start + (count - start) // size * size
                if stop == start:
                    continue
            else:
                stop = self.plus(start, self.times(self.over(self.minus(count, start), size), size))
            with self.loop(stop, start, size) as index:
                yield index, size
            start = stop

    def _alloca(self, kind: Any) -> Any:
        builder = ir.IRBuilder(self._entry)
        builder.position_before(self._entry.terminator)
        return builder.alloca(kind)

    def table(self, values: Sequence[int]) -> Any:
        """Numbers that are known now and read later, by :meth:`entry`."""
        kind = ir.ArrayType(I64, len(values))
        name = f"table{len(self.function.module.globals)}"
        found = ir.GlobalVariable(self.function.module, kind, name)
        found.initializer, found.global_constant, found.linkage = ir.Constant(kind, list(values)), True, "internal"
        return found

    def entry(self, table: Any, index: Size) -> Any:
        place = self.builder.gep(table, [self.size(0), self.size(index)], source_etype=table.value_type)
        return self.builder.load(place, typ=I64)

    # Numbers

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.lanes)

    def mask(self, count: Size) -> Any:
        """Which lanes are below ``count``."""
        kind = ir.VectorType(I64, self.lanes)
        if isinstance(count, int):
            return ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [lane < count for lane in range(self.lanes)])
        each = ir.Constant(kind, list(range(self.lanes)))
        return self.builder.icmp_signed("<", each, self._everywhere(count, kind))

    def _everywhere(self, value: Any, kind: Any) -> Any:
        single = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)

    def load(self, place: Any, mask: Any = None) -> Any:
        """A register from numbers in memory; lanes outside the mask are 0."""
        if mask is None:
            return self.builder.load(place, align=4, typ=self.vector)
        kind = ir.FunctionType(self.vector, [ir.PointerType(), I32, mask.type, self.vector])
        function = self._declared(f"llvm.masked.load.v{self.lanes}f32.p0", kind)
        return self.builder.call(function, [place, ir.Constant(I32, 4), mask, self.constant(0.0)])

    def store(self, value: Any, place: Any, mask: Any = None) -> None:
        if mask is None:
            self.builder.store(value, place, align=4)
            return
        kind = ir.FunctionType(ir.VoidType(), [self.vector, ir.PointerType(), I32, mask.type])
        function = self._declared(f"llvm.masked.store.v{self.lanes}f32.p0", kind)
        self.builder.call(function, [value, place, ir.Constant(I32, 4), mask])

    def number(self, place: Any) -> Any:
        return self.builder.load(place, align=4, typ=FLOAT)

    def put(self, number: Any, place: Any) -> None:
        self.builder.store(number, place, align=4)

    def spread(self, place: Any) -> Any:
        """A register that holds one number of memory in every lane."""
        return self._everywhere(self.number(place), self.vector)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a · b + c, rounded once."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(self._declared(f"llvm.fma.v{self.lanes}f32", kind), [a, b, c])

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def _declared(self, name: str, kind: Any) -> Any:
        module = self.function.module
        return module.globals.get(name) or ir.Function(module, kind, name)

    # Blocks of memory

    def copy(self, target: Any, source: Any, count: int) -> None:
        """``count`` numbers, known now, from one place to another."""
        whole = count - count % self.lanes
        if whole // self.lanes <= 8:
            for start in range(0, whole, self.lanes):
                self.store(self.load(self.at(source, start)), self.at(target, start))
        else:
            with self.loop(whole, step=self.lanes) as j:
                self.store(self.load(self.at(source, j)), self.at(target, j))
        for j in range(whole, count):
            self.put(self.number(self.at(source, j)), self.at(target, j))

    def clear(self, target: Any, count: Size) -> None:
        """Zeros for ``count`` numbers."""
        whole = self.times(self.over(count, self.lanes), self.lanes)
        with self.loop(whole, step=self.lanes) as j:
            self.store(self.constant(0.0), self.at(target, j))
        with self.loop(count, whole) as j:
            self.put(ir.Constant(FLOAT, 0.0), self.at(target, j))

    def tile(
        self, c: Any, rows: Sequence[int], vectors: int, a: Any, a_rows: Sequence[int], b: Any,
        loops: Sequence[tuple[Size, Size, Size]], add: bool = False, mask: Any = None, b_mask: Any = None,
    ) -> None:  # fmt: skip
        """``c[i, :] (+)= sum over the loops of a[i] * b[:]`` for ``vectors`` registers of neighbouring numbers.

        rows, a_rows: how far c[i] and a[i] lie behind the first, known now.
        loops: for each how many steps it has, and how far a and b move at a step; the sum runs in the order of the
        innermost.
        add: the sum of this call is added to c at last, so that rounding grows with the terms of a call and with the
        number of
            calls, not with their product. How terms are shared out to calls then belongs to the result.
        mask: of the last register of c; b_mask: of that of b.
        """
        builder, lanes = self.builder, self.lanes
        cells = [(row, v) for row in range(len(rows)) for v in range(vectors)]
        masks = [None] * (vectors - 1) + [mask]
        sums = {cell: self._alloca(self.vector) for cell in cells}
        for row, v in cells:
            builder.store(self.constant(0.0), sums[row, v])

        def nested(a: Any, b: Any, rest: Sequence[tuple[Size, Size, Size]]) -> None:
            if rest:
                count, a_step, b_step = rest[0]
                if isinstance(count, int) and count == 1:
                    nested(a, b, rest[1:])
                    return
                with self.loop(count) as j:
                    nested(self.at(a, self.times(j, a_step)), self.at(b, self.times(j, b_step)), rest[1:])
                return
            factors = [self.load(self.at(b, v * lanes), b_mask if v == vectors - 1 else None) for v in range(vectors)]
            for row, distance in enumerate(a_rows):
                number = self.spread(self.at(a, distance))
                for v in range(vectors):
                    total = self.fma(number, factors[v], builder.load(sums[row, v], typ=self.vector))
                    builder.store(total, sums[row, v])

        nested(a, b, loops)
        for row, v in cells:
            total, place = builder.load(sums[row, v], typ=self.vector), self.at(c, rows[row] + v * lanes)
            if add:
                total = self.add(self.load(place, masks[v]), total)
            self.store(total, place, masks[v])
