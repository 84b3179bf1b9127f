"""A small builder of LLVM's intermediate representation (IR), with which the loops of portable arithmetic are written.

Each lane of a vector register holds one output; no sum is divided among lanes. A sum adds its terms in the order of
its loops, with one explicit fused multiply-add per term. Every output therefore has the same bits for any number of
lanes and any tiling. The compiler cannot change them, because no operation is marked as one that may be reordered or
contracted.

Distances between values in memory are counted in float32 values of 4 bytes. All sizes but the number of images are
known when the code is written, so that most addresses are constant offsets in the instructions that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I64, I32, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
Size = Any
"""A number: an int if it is known when the code is written, or an LLVM value that is computed when the code runs."""


def writes(pointers: int, sizes: int = 0) -> Callable[[Callable[..., None]], Callable[..., ir.Module]]:
    """Return a decorator that turns ``body(code, arguments, *constants)``, which writes the body of a function, into a
    function that returns an LLVM module with this function.

    pointers, sizes: number of the function's arguments that are addresses, and of those that are 64-bit integers.
    """

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
    """The code of a function that is being written. lanes: number of float32 lanes of a vector register."""

    def __init__(self, function: ir.Function, lanes: int) -> None:
        self.function, self.lanes = function, lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self._entry = function.append_basic_block("entry")
        body = function.append_basic_block("body")
        ir.IRBuilder(self._entry).branch(body)
        self.builder = ir.IRBuilder(body)

    # Integer arithmetic and addresses. Operations on two known ints are done at once and write no code.

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
        """Return the address that lies the sum of ``distances`` (in float32 values) behind ``place``."""
        for distance in sorted(distances, key=lambda one: isinstance(one, int)):
            if not (isinstance(distance, int) and distance == 0):
                place = self.builder.gep(place, [self.size(distance)], source_etype=FLOAT)
        return place

    # Control flow

    @contextmanager
    def loop(self, stop: Size, start: Size = 0, step: int = 1) -> Iterator[Any]:
        """Write a loop over ``start``, ``start + step`` … below ``stop``; the block of ``with`` writes its body."""
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
        """Write loops that divide ``count`` items into groups of ``sizes[0]``, the rest into groups of ``sizes[1]`` …

        The last size must be 1 or leave no rest. Yields the index of a group's first item, and the group's size. The
        body of the Python loop is therefore written once for every size.
        """
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
        """Return a constant table of ints, which the code reads with :meth:`entry`."""
        kind = ir.ArrayType(I64, len(values))
        name = f"table{len(self.function.module.globals)}"
        found = ir.GlobalVariable(self.function.module, kind, name)
        found.initializer, found.global_constant, found.linkage = ir.Constant(kind, list(values)), True, "internal"
        return found

    def entry(self, table: Any, index: Size) -> Any:
        place = self.builder.gep(table, [self.size(0), self.size(index)], source_etype=table.value_type)
        return self.builder.load(place, typ=I64)

    # float32 values

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.lanes)

    def mask(self, count: Size) -> Any:
        """Return the mask of the first ``count`` lanes."""
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
        """Load a vector register from memory. Lanes outside the mask are not read and are 0."""
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
        """Broadcast one value in memory to all lanes of a register."""
        return self._everywhere(self.number(place), self.vector)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return the fused multiply-add a · b + c, which is rounded once."""
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
        """Copy ``count`` values; ``count`` is known when the code is written."""
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
        """Set ``count`` values to zero."""
        whole = self.times(self.over(count, self.lanes), self.lanes)
        with self.loop(whole, step=self.lanes) as j:
            self.store(self.constant(0.0), self.at(target, j))
        with self.loop(count, whole) as j:
            self.put(ir.Constant(FLOAT, 0.0), self.at(target, j))

    def tile(
        self, c: Any, rows: Sequence[int], vectors: int, a: Any, a_rows: Sequence[int], b: Any,
        loops: Sequence[tuple[Size, Size, Size]], add: bool = False, mask: Any = None, b_mask: Any = None,
    ) -> None:  # fmt: skip
        """Write a micro-kernel: ``c[i, :] (+)= sum over the loops of a[i] * b[:]``, with ``vectors`` registers per row.

        rows, a_rows: distances of c[i] and a[i] from c[0] and a[0].
        loops: from the outermost to the innermost (number of steps, distance that a moves per step, distance that b
            moves per step). Terms are added in the order of these loops.
        add: the finished sum is added to c. The rounding error then grows with the number of terms of a call and with
            the number of calls, not with their product. How terms are divided among calls changes the bits of c.
        mask, b_mask: masks of the last register of a row of c, and of b.
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
