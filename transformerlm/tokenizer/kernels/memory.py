"""What numpy indexing cannot say: words at any byte, sixteen-fold minima, 64 bytes classified at once.

Every function here takes an array and a byte offset, never an address, and reads or writes a fixed number of bytes
from there. None checks anything by itself. Safety rests on two rules, and TRANSFORMERLM_CHECKED=1 turns both into
assertions that the tests run under:

    reading     a text buffer is PADDING bytes longer than its text (see ../blocks.py), so that a read that begins
                inside the text ends inside the buffer
    writing     whoever fills an array has sized it for the worst case beforehand; each caller says how
"""

from collections.abc import Sequence

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from transformerlm.utils.jit import IS_CHECKED, inlined

CACHE_LINE_BYTES = 64

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_BYTES64 = ir.VectorType(_I8, 64)
_WORDS16 = ir.VectorType(_I32, 16)


def _pointer(context, builder, signature, arguments, pointee):
    """Return a pointer to `pointee` at a byte offset of an array: (array, offset, ...)."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    start = builder.bitcast(data, _I8.as_pointer())
    return builder.bitcast(builder.gep(start, [arguments[1]]), pointee.as_pointer())


def _require_array(array) -> None:
    if not isinstance(array, types.Array):
        raise TypingError(f"expected an array, not {array}")


def _make_load(pointee: ir.IntType):
    @intrinsic
    def load(typingctx, array, offset):
        _require_array(array)

        def codegen(context, builder, signature, arguments):
            value = builder.load(_pointer(context, builder, signature, arguments, pointee))
            value.align = 1
            return value if pointee.width == 64 else builder.zext(value, _I64)

        return types.uint64(array, types.int64), codegen

    return load


def _make_store(pointee: ir.IntType):
    @intrinsic
    def store(typingctx, array, offset, value):
        _require_array(array)

        def codegen(context, builder, signature, arguments):
            number = arguments[2] if pointee.width == 64 else builder.trunc(arguments[2], pointee)
            builder.store(number, _pointer(context, builder, signature, arguments, pointee)).align = 1
            return context.get_dummy_value()

        return types.void(array, types.int64, types.uint64), codegen

    return store


_load8, _load32, _load64 = (_make_load(pointee) for pointee in (_I8, _I32, _I64))
_store32, _store64 = (_make_store(pointee) for pointee in (_I32, _I64))


@intrinsic
def _prefetch(typingctx, array, offset):
    _require_array(array)

    def codegen(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments, _I8)
        function_type = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [_I8.as_pointer()], function_type)
        for_reading, keep_in_all_caches, data = (ir.Constant(_I32, number) for number in (0, 3, 1))
        builder.call(function, [pointer, for_reading, keep_in_all_caches, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


def _make_bit_count(name: str, has_flag: bool):
    @intrinsic
    def count(typingctx, word):
        def codegen(context, builder, signature, arguments):
            parameters = [_I64, _I1] if has_flag else [_I64]
            function = builder.module.declare_intrinsic(name, [_I64], ir.FunctionType(_I64, parameters))
            # The flag says that the answer for 0 is not needed, which saves an instruction.
            return builder.call(function, [arguments[0], ir.Constant(_I1, 1)] if has_flag else [arguments[0]])

        return types.int64(types.uint64), codegen

    return count


trailing_zeros = _make_bit_count("llvm.cttz", has_flag=True)
leading_zeros = _make_bit_count("llvm.ctlz", has_flag=True)
count_ones = _make_bit_count("llvm.ctpop", has_flag=False)


def _splat(byte: int) -> ir.Constant:
    return ir.Constant(_BYTES64, [ir.Constant(_I8, byte)] * 64)


@intrinsic
def _classify_ascii(typingctx, array, offset):
    _require_array(array)

    def codegen(context, builder, signature, arguments):
        block = builder.load(_pointer(context, builder, signature, arguments, _BYTES64))
        block.align = 1

        def is_in(values, first, count):
            return builder.icmp_unsigned("<", builder.sub(values, _splat(first)), _splat(count))

        letters = is_in(builder.or_(block, _splat(0x20)), ord("a"), 26)  # setting bit 0x20 makes letters small
        numbers = is_in(block, ord("0"), 10)
        blanks = builder.icmp_unsigned("==", block, _splat(ord(" ")))
        spaces = builder.or_(blanks, is_in(block, ord("\t"), 5))  # \t \n \v \f \r follow each other
        apostrophes = builder.icmp_unsigned("==", block, _splat(ord("'")))
        non_ascii = builder.icmp_signed("<", block, _splat(0))
        classes = (letters, numbers, spaces, blanks, apostrophes, non_ascii)
        masks = [builder.bitcast(each, _I64) for each in classes]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 6)(array, types.int64), codegen


@intrinsic
def _find_byte(typingctx, array, offset, byte):
    _require_array(array)

    def codegen(context, builder, signature, arguments):
        block = builder.load(_pointer(context, builder, signature, arguments, _BYTES64))
        block.align = 1
        wanted = builder.insert_element(ir.Constant(_BYTES64, ir.Undefined), arguments[2], ir.Constant(_I32, 0))
        everywhere = builder.shuffle_vector(wanted, wanted, ir.Constant(ir.VectorType(_I32, 64), [0] * 64))
        return builder.bitcast(builder.icmp_unsigned("==", block, everywhere), _I64)

    return types.uint64(array, types.int64, types.uint8), codegen


@intrinsic
def _minimum16(typingctx, array, offset):
    _require_array(array)

    def codegen(context, builder, signature, arguments):
        values = builder.load(_pointer(context, builder, signature, arguments, _WORDS16))
        values.align = 4
        reduce_type = ir.FunctionType(_I32, [_WORDS16])
        reduce = builder.module.declare_intrinsic("llvm.vector.reduce.umin.v16i32", (), reduce_type)
        minimum = builder.call(reduce, [values])
        undefined = ir.Constant(_WORDS16, ir.Undefined)
        first_lane = builder.insert_element(undefined, minimum, ir.Constant(_I32, 0))
        everywhere = builder.shuffle_vector(first_lane, undefined, ir.Constant(_WORDS16, [ir.Constant(_I32, 0)] * 16))
        is_minimum = builder.bitcast(builder.icmp_unsigned("==", values, everywhere), _I16)
        count_zeros = builder.module.declare_intrinsic("llvm.cttz", [_I64], ir.FunctionType(_I64, [_I64, _I1]))
        index = builder.call(count_zeros, [builder.zext(is_minimum, _I64), ir.Constant(_I1, 1)])
        return context.make_tuple(builder, signature.return_type, [builder.zext(minimum, _I64), index])

    return types.UniTuple(types.int64, 2)(array, types.int64), codegen


@intrinsic
def _pointer_to(typingctx, dtype, address):
    element = dtype.instance_type if isinstance(dtype, types.NumberClass) else dtype.dtype

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return types.CPointer(element)(dtype, types.int64), codegen


def make_bundle(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the addresses and lengths of one-dimensional arrays: int64 [arrays, 2], for `view`.

    Handing a kernel one array instead of a dozen saves a microsecond, which is as much as encoding a short prompt
    takes. The caller keeps the arrays alive as long as the bundle.
    """
    return np.array([(array.ctypes.data, array.size) for array in arrays], np.int64)


def aligned_zeros(size: int, dtype: type) -> np.ndarray:
    """Return zeros that begin with a cache line, [size]: entries of 32 bytes then never straddle two."""
    item_bytes = np.dtype(dtype).itemsize
    raw = np.zeros(size * item_bytes + CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE_BYTES
    return raw[start : start + size * item_bytes].view(dtype)


@inlined
def view(bundle, row, dtype):
    """Return one array of a bundle, whose elements are known to be of a dtype."""
    return carray(_pointer_to(dtype, bundle[row, 0]), (bundle[row, 1],))


@inlined
def check_range(array, offset, width):
    """Assert, in checked mode, that `width` bytes from a byte offset lie inside an array."""
    if IS_CHECKED and (offset < 0 or offset + width > array.size * array.itemsize):
        raise IndexError("a kernel leaves its buffer")


@inlined
def load8(array, offset):
    """Return the byte at a byte offset, as uint64."""
    check_range(array, offset, 1)
    return _load8(array, offset)


@inlined
def load32(array, offset):
    """Return the 4 bytes at a byte offset, as uint64."""
    check_range(array, offset, 4)
    return _load32(array, offset)


@inlined
def load64(array, offset):
    """Return the 8 bytes at a byte offset, the first one lowest, as uint64."""
    check_range(array, offset, 8)
    return _load64(array, offset)


@inlined
def store32(array, offset, value):
    """Write the low 4 bytes of a uint64 at a byte offset."""
    check_range(array, offset, 4)
    _store32(array, offset, value)


@inlined
def store64(array, offset, value):
    """Write a uint64 at a byte offset, its lowest byte first."""
    check_range(array, offset, 8)
    _store64(array, offset, value)


@inlined
def prefetch(array, offset):
    """Ask for the cache line at a byte offset; a hint, harmless wherever it points."""
    _prefetch(array, offset)


@inlined
def classify_ascii(text, offset):
    """Classify 64 bytes: uint64 masks (letters, numbers, spaces, blanks, apostrophes, non-ASCII), bit i for byte i."""
    check_range(text, offset, 64)
    return _classify_ascii(text, offset)


@inlined
def find_byte(text, offset, byte):
    """Return which of 64 bytes equal one (uint8): a uint64 mask, bit i for byte i."""
    check_range(text, offset, 64)
    return _find_byte(text, offset, byte)


@inlined
def minimum16(ranks, offset):
    """Return the smallest of 16 uint32 at a byte offset, and where it first stands."""
    check_range(ranks, offset, 64)
    return _minimum16(ranks, offset)
