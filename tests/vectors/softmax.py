#!/usr/bin/env python3
"""The operations of docs/spec.md in plain Python, checked against the vectors beside this file.

Written from that page alone. Numbers are Python floats, which are f64, and hold values of their
types exactly. Fused operations and roundings to half types are done in integers.

    python3 tests/vectors/softmax.py            all files
    python3 tests/vectors/softmax.py rows.json  some
"""

import copy
import json
import math
import os
import struct
import sys

INF, NAN = math.inf, math.nan
HERE = os.path.dirname(os.path.abspath(__file__))


# --- Types: how many bits a mantissa has, and the exponent of the least and the largest number.


class Type:
    def __init__(self, name, digits, least, most, code, nan):
        self.name, self.digits, self.least, self.most = name, digits, least, most
        self.size, self.code, self.nan = struct.calcsize(code[-1]), code, nan

    def from_bits(self, word):
        bits = int(word, 16)
        if self.name == "bf16":
            bits <<= 16
        number = struct.unpack(self.code[1], bits.to_bytes(self.size, "little"))[0]
        return number

    def to_bits(self, x):
        if math.isnan(x):
            return self.nan
        bits = int.from_bytes(struct.pack(self.code[1], x), "little")
        if self.name == "bf16":
            bits >>= 16
        return f"{bits:0{len(self.nan)}x}"


F64 = Type("f64", 53, -1074, 1023, ("", "<d"), "7ff8000000000000")
F32 = Type("f32", 24, -149, 127, ("", "<f"), "7fc00000")
F16 = Type("f16", 11, -24, 15, ("", "<e"), "7e00")
BF16 = Type("bf16", 8, -133, 127, ("", "<f"), "7fc0")
TYPES = {t.name: t for t in (F64, F32, F16, BF16)}


def d(word):
    """An f64 by its bits."""
    return F64.from_bits(word)


def s(word):
    """An f32 by its bits."""
    return F32.from_bits(word)


def rounded(n, divisor, of):
    """n / divisor, rounded to a type, for n that is not 0 and a positive divisor."""
    sign, n = (-1, -n) if n < 0 else (1, n)
    e = n.bit_length() - divisor.bit_length()
    # 2^e <= n / divisor < 2^(e + 1)
    if (n < divisor << e) if e >= 0 else (n << -e < divisor):
        e -= 1
    q = max(e - of.digits + 1, of.least)
    if q >= 0:
        divisor <<= q
    else:
        n <<= -q
    m, rest = divmod(n, divisor)
    rest *= 2
    if rest > divisor or (rest == divisor and m & 1):
        m += 1
    if m.bit_length() + q > of.most + 1:
        return sign * INF
    # Exact: m has no more digits than an f64, and is no smaller than its least number.
    return sign * math.ldexp(m, q)


def is_finite(*numbers):
    return all(map(math.isfinite, numbers))


class Arithmetic:
    """The operations of a type, each rounded once.

    Sums, products and quotients are Python's, which are f64's. Those of f32 are rounded to f64 on
    the way, which changes nothing: f64 has more than twice as many digits, and two more.
    """

    def __init__(self, of):
        self.of = of

    def round(self, x):
        """A number of another type."""
        if self.of is F64 or x == 0 or not math.isfinite(x):
            return x
        if self.of is F32:
            try:
                return struct.unpack("<f", struct.pack("<f", x))[0]
            except OverflowError:
                return math.copysign(INF, x)
        n, divisor = x.as_integer_ratio()
        return rounded(n, divisor, self.of)

    def add(self, a, b):
        return self.round(a + b)

    def sub(self, a, b):
        return self.round(a - b)

    def mul(self, a, b):
        return self.round(a * b)

    def div(self, a, b):
        if b == 0:
            return NAN if a == 0 or math.isnan(a) else math.copysign(INF, a) * math.copysign(1, b)
        return self.round(a / b)

    def fma(self, a, b, c):
        if not is_finite(a, b, c):
            return a * b + c
        an, ad = a.as_integer_ratio()
        bn, bd = b.as_integer_ratio()
        cn, cd = c.as_integer_ratio()
        pn, pd = an * bn, ad * bd
        n = pn * (cd // pd) + cn if cd >= pd else pn + cn * (pd // cd)
        if n == 0:
            if pn != 0:
                return 0.0
            product = math.copysign(1, a) * math.copysign(1, b)
            return -0.0 if product < 0 and math.copysign(1, c) < 0 else 0.0
        return rounded(n, max(pd, cd), self.of)


A64, A32 = Arithmetic(F64), Arithmetic(F32)
add, sub, mul, div, fma = A64.add, A64.sub, A64.mul, A64.div, A64.fma
f32 = A32.round


def total(first, *others):
    for x in others:
        first = add(first, x)
    return first


def nearest(x, of):
    """A result as an element: an f64 becomes a half type by way of f32."""
    if of in (F16, BF16):
        x = f32(x)
    return Arithmetic(of).round(x)


def two_sum(a, b, of=A64):
    x = of.add(a, b)
    t = of.sub(x, a)
    return x, of.add(of.sub(a, of.sub(x, t)), of.sub(b, t))


SPLIT = d("41a0000002000000")


def two_product(a, b):
    p = mul(a, b)
    ta, tb = mul(SPLIT, a), mul(SPLIT, b)
    ah, bh = sub(ta, sub(ta, a)), sub(tb, sub(tb, b))
    al, bl = sub(a, ah), sub(b, bh)
    e = add(sub(mul(ah, bh), p), mul(ah, bl))
    return p, add(add(e, mul(al, bh)), mul(al, bl))


def pair_add(a, b):
    x, e = two_sum(a[0], b[0])
    e = add(e, add(a[1], b[1]))
    hi = add(x, e)
    return hi, sub(e, sub(hi, x))


# --- Logarithms.

LN2_HI, LN2_LO = d("3fe62e42fee00000"), d("3dea39ef35793c76")
G = [None] + [
    d(word)
    for word in (
        "3fe5555555555593 3fd999999997fa04 3fd2492494229359 3fcc71c51d8e78af "
        "3fc7466496cb03de 3fc39a09d078c69f 3fc2f112df3e5244"
    ).split()
]


def poly(f, k, c):
    k = float(k)
    h = mul(mul(0.5, f), f)
    q = div(f, add(2.0, f))
    z = mul(q, q)
    w = mul(z, z)
    a = mul(w, add(G[2], mul(w, add(G[4], mul(w, G[6])))))
    b = mul(z, add(G[1], mul(w, add(G[3], mul(w, add(G[5], mul(w, G[7])))))))
    y = add(mul(q, add(h, add(b, a))), add(mul(k, LN2_LO), c))
    return total(y, -h, f, mul(k, LN2_HI))


def upper(x):
    return int(F64.to_bits(x)[:8], 16)


E = [d(w) for w in "3fc555555555553e bf66c16c16bebd93 3f11566aaf25de2c bebbbd41c5d26bf1".split()]
E.append(d("3e66376972bea4d0"))


def exp_f64(x):
    """exp(x) by the steps of FreeBSD's e_exp.c, which only a few operations use."""
    if math.isnan(x):
        return x
    if x > d("40862e42fefa39ef"):
        return INF
    if x < d("c0874910d52d3051"):
        return 0.0
    high = upper(abs(x))
    if high <= 0x3E300000:
        return add(1.0, x)
    half = 0.5 if x > 0 else -0.5
    if high <= 0x3FD62E42:
        k = 0
    elif high < 0x3FF0A2B2:
        k = 1 if x > 0 else -1
    else:
        k = int(add(mul(d("3ff71547652b82fe"), x), half))
    hi, lo = sub(x, mul(float(k), LN2_HI)), mul(float(k), LN2_LO)
    r = sub(hi, lo)
    t = mul(r, r)
    q = E[4]
    for e in E[3::-1]:
        q = add(e, mul(t, q))
    c = sub(r, mul(t, q))
    y = add(1.0, add(sub(div(mul(r, c), sub(2.0, c)), lo), hi))
    n, divisor = y.as_integer_ratio()
    return rounded(n << max(k, 0), divisor << max(-k, 0), F64)


def reduce(x):
    bits = int(F64.to_bits(x), 16)
    high = (bits >> 32) + 0x00095F62
    k = (high >> 20) - 1023
    high = (high & 0x000FFFFF) + 0x3FE6A09E
    return d(f"{high << 32 | bits & 0xFFFFFFFF:016x}"), k


def ln(x):
    if x == 1:
        return 0.0
    small = x < 2.0**-1022
    m, k = reduce(mul(x, 2.0**54) if small else x)
    return poly(sub(m, 1.0), k - 54 if small else k, 0.0)


def ln1p(x):
    if abs(x) < 2.0**-53:
        return x
    if x > 0 and upper(x) < 0x3FDA827A or x < 0 and upper(x) <= 0xBFD2BEC4:
        return poly(x, 0, 0.0)
    u = add(1.0, x)
    m, k = reduce(u)
    c = 0.0
    if k < 54:
        c = div(sub(1.0, sub(u, x)) if k >= 2 else sub(x, sub(u, 1.0)), u)
    return poly(sub(m, 1.0), k, c)


LN_2_FIRST, LN_2_REST = d("3fe62e42fefa3000"), d("3d53de6af278ece6")
LN_TABLE = """
3fefc00000000000  3f8010157588de71  3c146662d417ced0
3fef400000000000  3f98492528c8cabf  bc3d192d0619fa67
3feec00000000000  3fa466aed42de3ea  bc4cdd6f7f4a137e
3fee600000000000  3faaaef2d0fb10fc  3c2a353bb42e0add
3fede00000000000  3fb1973bd1465567  bc47558367a6acf6
3fed800000000000  3fb4d3115d207eac  3c5769f42c7842cc
3fed000000000000  3fb9335e5d594989  bc5478a85704ccb7
3feca00000000000  3fbc885801bc4b23  3c5a38cb559a6706
3fec400000000000  3fbfe89139dbd566  bc5ac9f4215f9393
3febe00000000000  3fc1aa2b7e23f72a  bc4c6ef1d9b2ef7e
3feb800000000000  3fc365fcb0159016  3c57d411a5b944ad
3feb200000000000  3fc527e5e4a1b58d  bc271a9682395bfd
3feac00000000000  3fc6f0128b756abc  bc68de59c21e166c
3fea600000000000  3fc8beafeb38fe8c  3c555aa8b6997a40
3fea200000000000  3fc9f6c407089664  3c435a19605e67ef
3fe9c00000000000  3fcbd087383bd8ad  3c3dd355f6a516d7
3fe9800000000000  3fcd1037f2655e7b  3c660629242471a2
3fe9200000000000  3fcef5ade4dcffe6  bc508ab2ddc708a0
3fe8e00000000000  3fd01eae5626c691  bc418290bd2932e2
3fe8800000000000  3fd1178e8227e47c  bc60e63a5f01c691
3fe8400000000000  3fd1bf99635a6b95  bc612aeb84249223
3fe8000000000000  3fd269621134db92  3c7e0efadd9db02b
3fe7a00000000000  3fd36b6776be1117  bc5324f0e883858e
3fe7600000000000  3fd419b423d5e8c7  3c60dbb243827392
3fe7200000000000  3fd4c9e09e172c3c  bc5123615b147a5d
3fe6e00000000000  3fd57bf753c8d1fb  bc60908d15f88b63
3fe6a00000000000  3fd630030b3aac49  3c6dc18ce51fff99
3fe6600000000000  3fd6e60ee6af1972  3c5657c222d868cd
3fe6200000000000  3fd79e26687cfb3e  bc7c168817443f22
3fe5e00000000000  3fd85855776dcbfb  bc7486666443b153
3fe5a00000000000  3fd914a8635bf68a  bc7ad4bb98c1f2c5
3fe5800000000000  3fd973a3431356ae  bc689d2816cf838f
3fe5400000000000  3fda33440224fa79  bc6ba8062860ae23
3fe5000000000000  3fdaf5295248cdd0  3c79d56c45dd3e86
3fe4c00000000000  3fdbb9611b80e2fb  3c46fd02999b21e1
3fe4a00000000000  3fdc1c60693fa39e  bc7bfc00b8f3feaa
3fe4600000000000  3fdce42f18064743  3c70798270b29f39
3fe4200000000000  3fddae75484c9616  bc70b5837185a661
3fe4000000000000  3fde148a1a2726ce  bc7ac81cc8a4dfb8
3fe3c00000000000  3fdee2a156b413e5  bc174b71fb5e57e3
3fe3a00000000000  3fdf4aa7ee03192d  bc60d487f5aba5e5
3fe3600000000000  3fe00e5ae5b207ab  3c61713a36138e19
3fe3400000000000  3fe04360be7603ad  bc617f9e54e78104
3fe3000000000000  3fe0ae76e2d054fa  3c80d710fcfc4e0d
3fe2e00000000000  3fe0e4898611cce1  3c83300f002e836e
3fe2c00000000000  3fe11af823c75aa8  bc891eee7772c7c2
3fe2800000000000  3fe188ee40f23ca6  3c889df1568ca0b0
3fe2600000000000  3fe1c07849ae6007  3c759bddae1ccce2
3fe2400000000000  3fe1f8635fc61659  bc72164ff40e9817
3fe2000000000000  3fe269621134db92  3c8e0efadd9db02b
3fe1e00000000000  3fe2a2786d0ec107  bc76a0c343be95dc
3fe1c00000000000  3fe2dbf557b0df43  bc7b941ee770436b
3fe1a00000000000  3fe315da4434068b  3c66c3a5f12642c9
3fe1600000000000  3fe38ae2171976e7  3c821512aa596ea3
3fe1400000000000  3fe3c6080c36bfb5  3c71930603d87b6e
3fe1200000000000  3fe4019c2125ca93  3c686cf0f38b461a
3fe1000000000000  3fe43d9ff2f923c5  bc784f481051f71a
3fe0e00000000000  3fe47a1527e8a2d3  3c82541aca7d5844
3fe0c00000000000  3fe4b6fd6f970c1f  3c8c457b531506f6
3fe0a00000000000  3fe4f45a835a4e19  3c7d749362382a77
3fe0800000000000  3fe5322e26867857  3c7988ba4aea614d
3fe0600000000000  3fe5707a26bb8c66  3c880bff3303dd48
3fe0400000000000  3fe5af405c3649e0  bc86714fbcd8135b
3fe0200000000000  3fe5ee82aa241920  3c71c066d235ee63
"""
LN_TABLE = [[d(word) for word in line.split()] for line in LN_TABLE.strip().splitlines()]


def ln_pair(hi, lo):
    bits = int(F64.to_bits(hi), 16)
    k = (bits >> 52) - 1023
    power = 2.0**-k
    c, ln_c, ln_c_lo = LN_TABLE[bits >> 46 & 63]
    m_hi = mul(d(f"{bits & ~0xffff:016x}"), power)
    m_lo = sub(mul(hi, power), m_hi)
    r = sub(mul(m_hi, c), 1.0)
    r, error = two_sum(r, mul(m_lo, c))
    r_lo = add(error, mul(mul(lo, power), c))
    q = mul(r, r)
    term = {n: div(1.0 if n % 2 else -1.0, float(n)) for n in range(3, 10)}
    far = add(add(term[7], mul(term[8], r)), mul(term[9], q))
    inner = add(add(term[5], mul(term[6], r)), mul(q, far))
    tail = mul(mul(q, r), add(add(term[3], mul(term[4], r)), mul(q, inner)))
    k = float(k)
    a, a_lo = two_sum(mul(k, LN_2_FIRST), ln_c)
    b, b_lo = two_sum(a, r)
    top, top_lo = two_sum(b, mul(-0.5, q))
    small = add(add(mul(k, LN_2_REST), ln_c_lo), sub(r_lo, mul(r, r_lo)))
    low = add(total(a_lo, b_lo, top_lo), add(small, tail))
    y = add(top, low)
    return y, add(sub(top, y), low)


# --- Scale and shift.

LOG2_E, LOG2_E_LO = d("3ff71547652b82fe"), d("3c7777d0ffda0d24")
LN_2, LN_2_LO = d("3fe62e42fefa39ef"), d("3c7abc9e3b39803f")


class Scale:
    def __init__(self, hi, lo=0.0):
        self.hi, self.lo = hi, lo
        p, p_lo = two_product(hi, LOG2_E)
        tail = add(p_lo, add(mul(hi, LOG2_E_LO), mul(lo, LOG2_E)))
        l = add(p, tail)
        l_lo = add(sub(p, l), tail)
        self.inv_l = div(1.0, l)
        self.l8, self.l8_lo = mul(8.0, l), mul(8.0, l_lo)
        self.s8 = f32(self.l8)
        self.s8_lo = f32(sub(self.l8, self.s8))

    @staticmethod
    def of_temperature(t):
        t = min(max(t, 2.0**-100), 2.0**100)
        hi = div(1.0, t)
        p, p_lo = two_product(hi, t)
        return Scale(hi, div(sub(sub(1.0, p), p_lo), t))


ONE = Scale(1.0)


class Contract:
    """How rows of an arithmetic type are computed; `short`: probabilities of half types."""

    def __init__(self, arithmetic, min_exp, table, coefficients, short=False):
        self.a, self.min_exp, self.short = arithmetic, min_exp, short
        of = arithmetic.of
        self.table = [of.from_bits(word) for word in table.split()]
        self.p = [of.from_bits(word) for word in coefficients.split()]
        self.is_double = of is F64

    def constants(self, scale):
        return (scale.l8, scale.l8_lo) if self.is_double else (scale.s8, scale.s8_lo)


TABLE32 = "3f8b3a3e 3f97d424 3fa59202 3fb48e45 3fc4e5be 3fd6b7da 3fea26de 3fff5829"
SINGLE = Contract(A32, -126, TABLE32, "3db17218 3b75fdf0 38e35fa6 361d944b")
SHORT = Contract(A32, -126, TABLE32, "3db17cbe 3b75f68b", True)
DOUBLE = Contract(
    A64,
    -1022,
    "3ff14b3ca320f715 3ff2dbef9ff83ca1 3ff490e6cddbb1a4 3ff66d6a7752dfb9 "
    "3ff8750ef46c90ad 3ffaabbb8ce36145 3ffd15b1f9bf2471 3fffb79694e269b6",
    "3fb62e42fefa39ef 3f6ebfbdff82c79a 3f1c6b08d70495db 3ec3b2ab6ef4056b "
    "3e65d87fea1855b8 3e0430e688aa669d 3d9ffc45354569b7",
)
# The exponential of f64, to the precision of f32.
FEW = copy.copy(DOUBLE)
FEW.p, FEW.short = DOUBLE.p[:4], True


def contract_of(of, probs=False):
    if of is F64:
        return DOUBLE
    return SHORT if probs and of in (F16, BF16) else SINGLE


class Shift:
    def __init__(self, scale, row_max, min_exp):
        top = mul(row_max, mul(scale.l8, 0.125))
        if abs(top) < 65536:
            self.subtract, self.m = 0.0, math.floor(top) - 1
        else:
            self.subtract, self.m = row_max, -1
        self.is_huge = abs(top) >= 65536
        self.cut = mul(float(self.m + min_exp), scale.inv_l)


class NoShift:
    def __init__(self, scale, min_exp):
        self.subtract, self.m, self.is_huge = 0.0, 0, False
        self.cut = mul(float(min_exp), scale.inv_l)


def nearest_integer(x, y):
    """x y, exactly, rounded to an integer, ties to even."""
    xn, xd = x.as_integer_ratio()
    yn, yd = y.as_integer_ratio()
    n, rest = divmod(xn * yn, xd * yd)
    rest *= 2
    return n + 1 if rest > xd * yd or (rest == xd * yd and n & 1) else n


def exp(x, contract, scale, shift, x_lo=0.0):
    a = contract.a
    if shift.is_huge:
        x = a.sub(x, a.round(shift.subtract))
    if x < a.round(shift.cut):
        return 0.0
    hi, lo = contract.constants(scale)
    n = nearest_integer(x, hi)
    r = a.fma(x, hi, float(-n))
    if not contract.short:
        r = a.fma(x, lo, r)
    if x_lo != 0 and not shift.is_huge:
        r = a.fma(x_lo, hi, r)
    k, j = divmod(n, 8)
    y = math.ldexp(contract.table[j], k - shift.m)
    q = contract.p[-1]
    for p in contract.p[-2::-1]:
        q = a.fma(q, r, p)
    return a.fma(y, a.mul(q, r), y)


# --- Sums. Those of f32 are pairs here, too, with 0.

BLOCK = 4096


def block_sum(e, contract):
    if contract.is_double:
        lanes = [(0.0, 0.0)] * 8
        for i, x in enumerate(e):
            hi, lo = lanes[i % 8]
            y, error = two_sum(hi, x)
            lanes[i % 8] = (y, add(lo, error))
        a = [pair_add(lanes[i], lanes[i + 4]) for i in range(4)]
        return pair_add(pair_add(a[0], a[2]), pair_add(a[1], a[3]))
    if contract.short:
        parts = [[0.0] * 4 for _ in range(16)]
        for i, x in enumerate(e):
            part = parts[i % 16]
            part[i // 16 % 4] = A32.add(part[i // 16 % 4], x)
        lanes = [A32.add(A32.add(p[0], p[2]), A32.add(p[1], p[3])) for p in parts]
    else:
        lanes = [0.0] * 16
        for i, x in enumerate(e):
            lanes[i % 16] = add(lanes[i % 16], x)
    a = [add(lanes[i], lanes[i + 8]) for i in range(8)]
    b = [add(a[i], a[i + 4]) for i in range(4)]
    return add(add(b[0], b[2]), add(b[1], b[3])), 0.0


def sum_add(a, b, contract):
    return pair_add(a, b) if contract.is_double else (add(a[0], b[0]), 0.0)


def row_sum(e, contract):
    result = None
    for at in range(0, len(e), BLOCK):
        block = block_sum(e[at : at + BLOCK], contract)
        result = block if result is None else sum_add(result, block, contract)
    return result


class Row:
    """A row that has a finite largest element."""

    def __init__(self, x, contract, scale):
        self.contract, self.scale, self.max = contract, scale, max(x)
        self.shift = Shift(scale, self.max, contract.min_exp)
        self.e = [self.exp(x) for x in x]
        self.sum = row_sum(self.e, contract)

    def exp(self, x):
        return exp(x, self.contract, self.scale, self.shift)

    def softmax(self):
        return [quotient(e, self.sum, self.contract) for e in self.e]

    def log(self):
        return Log(self.max, self.exp(self.max), self.shift, self.sum, self.contract, self.scale)


def special(x):
    """What the log-sum-exp of a special row is; None of others."""
    if any(map(math.isnan, x)):
        return NAN
    largest = max(x, default=-INF)
    return None if math.isfinite(largest) else largest


UP, DOWN = 2.0**64, 2.0**-64


def quotient(e, row, contract):
    a = contract.a
    if contract.is_double:
        hi = div(1.0, row[0])
        lo = mul(sub(fma(-hi, row[0], 1.0), mul(hi, row[1])), hi)
    else:
        inverse = div(1.0, row[0])
        hi = f32(inverse)
        if contract.short:
            p = A32.mul(e, hi)
            return 0.0 if p < 2.0**-126 else p
        lo = f32(sub(inverse, hi))
    u = a.mul(e, UP)
    return a.mul(a.fma(u, hi, a.mul(u, lo)), DOWN)


LN_C32, LN_C64, LN_C64_LO = d("3fb58634e98bea07"), d("3fb3e86453b85b1a"), d("bc5effd854eb1784")


class Log:
    """What log-softmax and log-sum-exp of a row are made of."""

    def __init__(self, row_max, e_max, shift, row, contract, scale):
        self.max, self.scale, self.contract = row_max, scale, contract
        self.far = row_max > 2.0**969
        if row[0] <= mul(2.0, e_max):
            self.c = self.of_ratio(e_max, row)
        else:
            self.c = self.of_sum(shift, row)

    def of_ratio(self, e_max, row):
        if not self.contract.is_double:
            return ln1p(div(sub(row[0], e_max), e_max)), 0.0
        others = div(add(sub(row[0], e_max), row[1]), e_max)
        if others < 0.125:
            return ln1p(others), 0.0
        ratio = div(row[0], e_max)
        p, p_lo = two_product(ratio, e_max)
        return ln_pair(ratio, div(add(sub(sub(row[0], p), p_lo), row[1]), e_max))

    def of_sum(self, shift, row):
        m = float(shift.m)
        a, a_lo = two_product(m, LN_2)
        a_lo = add(a_lo, mul(m, LN_2_LO))
        if shift.is_huge:
            g, g_lo = a, a_lo
        else:
            b, b_lo = two_product(self.max, self.scale.hi)
            g, error = two_sum(a, -b)
            g_lo = add(error, sub(a_lo, add(b_lo, mul(self.max, self.scale.lo))))
        if not self.contract.is_double:
            return add(sub(ln(row[0]), LN_C32), add(g, g_lo)), 0.0
        l, l_lo = ln_pair(*row)
        l, error = two_sum(l, -LN_C64)
        l_lo = add(error, sub(l_lo, LN_C64_LO))
        h, h_lo = two_sum(g, l)
        h_lo = add(h_lo, add(g_lo, l_lo))
        hi = add(h, h_lo)
        return hi, add(sub(h, hi), h_lo)

    def log_softmax(self, x):
        if not self.contract.is_double:
            return f32(fma(sub(x, self.max), self.scale.hi, sub(0.0, self.c[0])))
        row_max, scale_hi, scale_lo = self.max, self.scale.hi, self.scale.lo
        if self.far:
            x, row_max = mul(0.5, x), mul(0.5, row_max)
            scale_hi, scale_lo = mul(2.0, scale_hi), mul(2.0, scale_lo)
        e = sub(x, row_max)
        z = fma(e, scale_hi, sub(0.0, self.c[0]))
        if z == -INF:
            return z
        t = sub(e, x)
        e_lo = sub(sub(x, sub(e, t)), add(row_max, t))
        return add(z, fma(e, scale_lo, fma(e_lo, scale_hi, -self.c[1])))

    def logsumexp(self):
        p, p_lo = two_product(self.max, self.scale.hi)
        if abs(p) > d("7a11a0fc668aac70") or abs(self.max) > d("7e2cab7bd666f388"):
            return p
        y, y_lo = two_sum(p, self.c[0])
        return add(y, add(y_lo, add(p_lo, add(self.c[1], mul(self.max, self.scale.lo)))))


def softmax(x, of, scale, masked):
    value = special(x)
    if value is None:
        return Row(x, contract_of(of, True), scale).softmax()
    return [0.0 if value == -INF and masked == "zero" else NAN] * len(x)


def log_softmax(x, of, scale, masked):
    value = special(x)
    if value is None:
        log = Row(x, contract_of(of), scale).log()
        return [log.log_softmax(x) for x in x]
    return [-INF if value == -INF and masked == "zero" else NAN] * len(x)


def logsumexp(x, of, scale):
    value = special(x)
    return Row(x, contract_of(of), scale).log().logsumexp() if value is None else value


# --- Temperatures 0 and infinity; sigmoid.


def limit(x, masked, hot, log):
    nothing = -INF if log else 0.0
    largest = max(x, default=-INF)
    if any(map(math.isnan, x)) or (hot and largest == INF):
        return [NAN] * len(x)
    if largest == -INF:
        return [nothing if masked == "zero" else NAN] * len(x)
    shares = [x > -INF if hot else x == largest for x in x]
    n = float(sum(shares))
    share = sub(0.0, ln(n)) if log else div(1.0, n)
    return [share if sharing else nothing for sharing in shares]


def hardmax_first(x, masked):
    y = limit(x, masked, False, False)
    if any(y) and not math.isnan(y[0]):
        first = x.index(max(x))
        y = [float(i == first) for i in range(len(x))]
    return y


def exp_alone(x, contract, scale):
    return exp(x, contract, scale, NoShift(scale, contract.min_exp))


def sigmoid(x, of, scale):
    if math.isnan(x):
        return NAN
    contract = contract_of(of)
    a, one = contract.a, contract.table[0]
    e = exp_alone(-abs(x), contract, scale)
    return a.div(e if x < 0 else one, a.add(one, e))


EVEN = "3fed9b17572c62d0 3fd0e48119d4916b 3fc11266dbf34be5 3faf801971e97dd4 3f84310200d82215"
ODD = "bfdb64067bb60747 bfc767069e47fe48 bfb8929ded0da171 bf9f4f605567d606 bf586bf5631fd6de"
EVEN, ODD = ([d(word) for word in words.split()] for words in (EVEN, ODD))


def horner(x, coefficients):
    q = coefficients[-1]
    for c in coefficients[-2::-1]:
        q = fma(q, x, c)
    return q


def log_sigmoid(x, of, scale):
    if math.isnan(x):
        return NAN
    if of is F64:
        one, e = DOUBLE.table[0], exp_alone(-abs(x), DOUBLE, scale)
        both = add(mul(2.0, one), e)
        t = div(e, both)
        q = horner(mul(t, t), [div(1.0, float(2 * i + 1)) for i in range(1, 17)])
        cube = mul(mul(2.0, t), mul(t, t))
        rest = fma(-t, sub(e, sub(both, mul(2.0, one))), fma(-t, both, e))
        rest = mul(mul(rest, div(1.0, one)), sub(1.0, t))
        l = add(mul(2.0, t), fma(cube, q, rest))
    else:
        e = exp_alone(-abs(x), FEW, scale)
        square = mul(e, e)
        l = mul(fma(horner(square, ODD), e, horner(square, EVEN)), e)
    low = x if x < 0 else 0.0
    y = fma(low, scale.hi, sub(0.0, l))
    if of is F64 and y != -INF:
        y = add(y, mul(low, scale.lo))
    return y


# --- Shards.


def partial(block, of, scale, row_max=None):
    """A block's partial, with the highest `least` that is allowed."""
    value = special(block)
    if value is not None and (row_max is None or math.isnan(value)):
        return (value, value, 0.0, 0.0)
    contract = contract_of(of)
    top = max(block) + 0.0 if row_max is None else row_max
    shift = Shift(scale, top, contract.min_exp)
    if shift.is_huge and row_max is None:
        return (top, top, 0.0, 0.0)
    hi, lo = block_sum([exp(x, contract, scale, shift) for x in block], contract)
    if of in (F16, BF16):
        lo = block_sum([exp(x, SHORT, scale, shift) for x in block], SHORT)[0]
    cut = contract.a.round(shift.cut)
    least = INF if row_max is not None else min(x for x in block if x >= cut)
    return (top, least, hi, lo)


def merge(partials, of, scale):
    """The row's partial, or its largest element, by which partials are to be asked for again."""
    if any(math.isnan(p[0]) or math.isnan(p[2]) for p in partials):
        return (NAN, NAN, 0.0, 0.0), None
    top = max(p[0] for p in partials)
    if math.isinf(top):
        return (top, top, 0.0, 0.0), None
    contract = contract_of(of)
    own = Shift(scale, top, contract.min_exp)
    cut = contract.a.round(own.cut)
    result = None
    for largest, least, hi, lo in partials:
        if largest == -INF:
            block = (0.0, 0.0)
        elif least == INF and largest == top:
            block = (hi, lo)
        elif own.is_huge:
            return None, top
        elif largest < cut:
            block = (0.0, 0.0)
        else:
            m = Shift(scale, largest, contract.min_exp).m
            if hi == 0 or least < cut or own.m - m > 900:
                return None, top
            block = (math.ldexp(hi, m - own.m), math.ldexp(lo, m - own.m))
        if result is None:
            result = block
        elif contract.is_double:
            result = pair_add(result, block)
        else:
            result = (add(result[0], block[0]), add(result[1], block[1]))
    return (top, INF, *result), None


def softmax_of_shard(x, row, of, scale, masked):
    top, _, hi, lo = row
    if not math.isfinite(top):
        return [0.0 if top == -INF and masked == "zero" else NAN] * len(x)
    contract = contract_of(of, True)
    shift = Shift(scale, top, contract.min_exp)
    total = (lo, 0.0) if contract.short else (hi, lo)
    return [quotient(exp(x, contract, scale, shift), total, contract) for x in x]


# --- Attention.


class CapShift:
    subtract, m, is_huge, cut = 0.0, 0, False, -160.0


class Cap:
    def __init__(self, c, scale):
        self.c = c
        self.g = div(mul(2.0, scale.hi), c)
        p, p_lo = two_product(self.g, c)
        rest = sub(sub(mul(2.0, scale.hi), p), p_lo)
        self.g_lo = div(add(rest, mul(2.0, scale.lo)), c)

    def capped(self, x, unit, is_double):
        one, far_c = DOUBLE.table[0], mul(self.c, unit)
        u = mul(x, self.g)
        v = 80.0 if u > 80 else u
        if math.isnan(v):
            return NAN, NAN
        if not is_double:
            e = exp(v, DOUBLE, ONE, CapShift)
            z = mul(far_c, div(sub(e, one), add(e, one)))
            hi = f32(z)
            return hi, f32(sub(z, hi))
        v_lo = fma(x, self.g_lo, fma(x, self.g, sub(0.0, u))) if u < 80 else 0.0
        e = exp(v, DOUBLE, ONE, CapShift, v_lo)
        y, y_lo = two_sum(e, one)
        two = mul(2.0, one)
        q = div(two, y)
        q_lo = mul(fma(-q, y_lo, fma(-q, y, two)), mul(q, div(1.0, two)))
        t = sub(1.0, q)
        t_lo = sub(sub(sub(1.0, t), q), q_lo)
        z = mul(far_c, t)
        return z, fma(far_c, t_lo, fma(far_c, t, sub(0.0, z)))


def product(a, b, of):
    p = of.mul(a, b[0])
    return p, of.fma(a, b[1], of.fma(a, b[0], of.sub(0.0, p)))


def plus(a, b, of):
    y, error = two_sum(a[0], b[0], of)
    return y, of.add(a[1], of.add(error, b[1]))


def sign(x):
    return x if x == 0 or math.isnan(x) else math.copysign(1.0, x)


class Query:
    """The options of a row: numbers are None where there are none."""

    def __init__(self, case, r):
        batch, heads, queries, keys = case["shape"]
        rows = batch * heads * queries
        query, head, sequence = r % queries, r // queries % heads, r // queries // heads
        position = case.get("offset", keys - queries) + query
        if "offsets" in case:
            offsets = case["offsets"]
            position = offsets[r] if len(offsets) == rows else offsets[sequence] + query
        begin, end = 0, keys
        if "lengths" in case:
            lengths = case["lengths"]
            end = min(end, lengths[r if len(lengths) == rows else sequence])
        ahead = 0 if case.get("causal") else case.get("window_ahead")
        if ahead is not None:
            end = min(end, max(0, position + 1 + ahead))
        if "window" in case:
            begin = max(0, max(0, position + 1) - case["window"])
        columns = case.get("mask_columns", keys)
        end = min(end, columns)
        self.position, self.keys = position, range(keys)
        self.seen = self.in_range = [begin <= key < end for key in range(keys)]
        self.mask, self.cap, self.mask_numbers = None, None, None
        if "mask" in case:
            b, h, q = case["mask_shape"]
            at = (sequence if b > 1 else 0) * h + (head if h > 1 else 0)
            at = (at * q + (query if q > 1 else 0)) * columns
            if "mask_type" in case:
                of = TYPES[case["mask_type"]]
                words = case["mask"].split()[at : at + columns]
                self.mask = [of.from_bits(word) for word in words] + [-INF] * (keys - columns)
                hides = [m == -INF for m in self.mask]
            else:
                hides = [m == 0 for m in case["mask"][at : at + columns]]
                hides += [True] * (keys - columns)
            self.seen = [sees and not hidden for sees, hidden in zip(self.seen, hides)]
            self.mask_numbers = self.mask
            # What is hidden by the mask need not be looked at again.
            if self.mask and all(m == 0 for m, sees in zip(self.mask, self.seen) if sees):
                self.mask = None

        def of_head(name):
            return s(case[name].split()[head]) if name in case else None

        self.mask_slope = of_head("mask_slopes")
        self.slope, self.sink = of_head("slopes"), of_head("sinks")
        names = ("soft_cap", "slopes", "sinks", "mask_slopes")
        self.has_biases = any(name in case for name in names)
        self.is_biased = self.mask is not None or self.has_biases


class Logits:
    """The logits of a biased row: pairs, for the scale `of_row`."""

    def __init__(self, x, query, cap, scale, contract, far):
        self.query, self.cap, self.contract, self.a = query, cap, contract, contract.a
        self.unit, self.far = 2.0**-100 if far else 1.0, far
        self.of_row = Scale.of_temperature(2.0**-100) if far else ONE
        self.factor = scale.hi, scale.lo
        if not contract.is_double:
            hi = f32(scale.hi)
            self.factor = hi, f32(add(sub(scale.hi, hi), scale.lo))
        self.z = [self.logit(x, key) for key, x in enumerate(x)]
        self.sink = None if query.sink is None else self.a.mul(query.sink, self.unit)
        sinks = [] if self.sink is None else [(self.sink, 0.0)]
        value = special([z[0] for z in self.z + sinks])
        self.special = value
        if value is not None:
            return
        self.max = max(z[0] for z in self.z + sinks)
        self.shift = Shift(self.of_row, self.max, contract.min_exp)
        self.e = [self.exp(z) for z in self.z]
        self.sum = row_sum(self.e, contract)
        if sinks:
            last = (self.exp(sinks[0]), 0.0)
            self.sum = last if self.sum is None else sum_add(self.sum, last, contract)
        self.low = 0.0 if self.shift.is_huge else max(
            low for hi, low in self.z + sinks if hi == self.max
        )

    def exp(self, z):
        return exp(z[0], self.contract, self.of_row, self.shift, z[1])

    def logit(self, x, key):
        query, a, unit = self.query, self.a, self.unit
        hidden = (-INF, 0.0)
        if not query.seen[key]:
            return hidden
        if self.cap:
            z = self.cap.capped(x, unit, self.contract.is_double)
        elif self.far and math.isinf(x):
            z = (x, 0.0)
        else:
            z = product(x, [a.mul(f, unit) for f in self.factor], a)
        if query.mask:
            m = query.mask[key]
            slope = 1.0 if query.mask_slope is None else query.mask_slope
            if self.far and math.isinf(m):
                added = (a.mul(m, sign(slope)), 0.0)
            else:
                added = product(m, (a.mul(slope, unit), 0.0), a)
            z = plus(z, added, a)
        if query.slope is not None:
            distance = float(key - query.position)
            b = product(distance, (a.mul(query.slope, unit), 0.0), a)
            if b[0] == -INF:
                return hidden
            z = plus(z, b, a)
        lo = 0.0 if z[0] == -INF or (self.far and z[0] == INF) else z[1]
        y = a.add(z[0], lo)
        return y, a.sub(lo, a.sub(y, z[0]))

    def logsumexp(self):
        e, rest = self.exp((self.max, self.low)), 0.0
        e_max = e
        if self.low != 0:
            e_max, rest = two_sum(e, mul(e, expm1(-mul(self.low, self.of_row.hi))))
        log = Log(self.max, e_max, self.shift, self.sum, self.contract, self.of_row)
        if self.low != 0 and self.sum[0] <= mul(2.0, e_max):
            log.c = (log.c[0], sub(log.c[1], div(rest, e_max)))
        return log.logsumexp()


Q = [d(word) for word in "bfa11111111110f4 3f5a01a019fe5585 bf14ce199eaadbb7".split()]
Q += [d(word) for word in "3ed0cfca86e65239 be8afdb76e09c32d".split()]


def expm1(x):
    if abs(x) < 2.0**-54:
        return x
    h = mul(0.5, x)
    w = mul(x, h)
    y = Q[-1]
    for q in Q[-2::-1]:
        y = add(q, mul(w, y))
    r = add(1.0, mul(w, y))
    t = sub(3.0, mul(r, h))
    e = mul(w, div(sub(r, t), sub(6.0, mul(x, t))))
    return sub(x, sub(mul(x, e), w))


def attention(x, case, to):
    """Probabilities of all rows, one behind the other, and their log-sum-exps."""
    batch, heads, queries, keys = case["shape"]
    x, scale = without_sign(x, case)
    contract, masked = contract_of(to, True), case.get("masked", "nan")
    cap = Cap(d(case["soft_cap"]), scale) if "soft_cap" in case else None
    probs, lse = [], []
    for r in range(batch * heads * queries):
        query, scores = Query(case, r), x[r * keys : (r + 1) * keys]
        if query.is_biased:
            row = Logits(scores, query, cap, scale, contract, False)
            if row.special is not None:
                row = Logits(scores, query, cap, scale, contract, True)
            value = row.special
            if value is None:
                probs += [quotient(e, row.sum, contract) for e in row.e]
                lse.append(row.logsumexp())
        else:
            row = [x if sees else -INF for x, sees in zip(scores, query.seen)]
            value = special(row)
            if value is None:
                row = Row(row, contract, scale)
                probs += row.softmax()
                lse.append(row.log().logsumexp())
        if value is not None:
            probs += [0.0 if value == -INF and masked == "zero" else NAN] * keys
            lse.append(value)
    return probs, lse


# --- Attention by tiles.

LEAST_FACTOR = -125.0


class State:
    """The state of a row of f32."""

    def __init__(self, largest_logit=-INF):
        self.max, self.largest, self.own, self.shift = largest_logit, 0.0, 0.0, 0.0
        self.total, self.block, self.lanes = 0.0, 0, [0.0] * 16

    def seen(self):
        return 0.0 if self.max == -INF else 1.0

    def times(self, n):
        f = 0.0 if n < -900 else 2.0**n
        self.total, self.largest = mul(self.total, f), mul(self.largest, f)
        self.lanes = [mul(lane, f) for lane in self.lanes]

    def raised(self, o):
        lower = sub(o, 4.0)
        if self.max == -INF:
            self.own, self.shift = o, lower
            return 0.0
        self.own = max(self.own, o)
        if sub(o, self.shift) <= 12:
            return 1.0
        n = sub(self.shift, lower)
        self.shift = lower
        self.times(n)
        return 0.0 if n < LEAST_FACTOR else 2.0**n

    def sum(self):
        a = [add(self.lanes[i], self.lanes[i + 8]) for i in range(8)]
        b = [add(a[i], a[i + 4]) for i in range(4)]
        return add(self.total, add(add(b[0], b[2]), add(b[1], b[3])))

    def end_block(self):
        self.total, self.lanes = self.sum(), [0.0] * 16

    def add(self, key, e):
        if key // BLOCK != self.block:
            self.end_block()
            self.block = key // BLOCK
        self.lanes[key % 16] = add(self.lanes[key % 16], e)

    def saw(self, x, e, scale):
        self.max = max(self.max, add(add(mul(x, scale.hi), mul(x, scale.lo)), 0.0))
        self.largest = max(self.largest, e)

    def exp(self, octaves):
        p, rest = octaves
        if add(sub(p, self.own), rest) < LEAST_FACTOR:
            return 0.0
        ratio = div(SINGLE.table[0], DOUBLE.table[0])
        return mul(power_of_two(add(sub(p, self.shift), rest)), ratio)

    def numbers(self):
        return [self.max, self.largest, self.own, self.shift, self.sum()]


class TileShift:
    """The shift of a tile's exponentials."""

    def __init__(self, state, scale):
        self.subtract, self.m, self.is_huge = 0.0, int(state.shift), False
        self.cut = mul(add(state.own, LEAST_FACTOR), scale.inv_l)


def octaves(x, scale):
    l, l_lo = mul(0.125, scale.l8), mul(0.125, scale.l8_lo)
    p = mul(x, l)
    return p, add(fma(x, l, -p), mul(x, l_lo)) if abs(p) < 2.0**40 else 0.0


def below(octaves):
    return sub(float(math.floor(octaves[0])), 1.0)


def logits_of_tile(x, first, query, cap, scale):
    """Pairs of the keys that count, their scale, and whether the row is biased."""
    counts = range(len(x))
    of_query = copy.copy(query)
    of_query.seen = [query.seen[first + i] for i in counts]
    of_query.mask = query.mask_numbers and query.mask_numbers[first : first + len(x)]
    if of_query.mask and all(m == 0 for m, sees in zip(of_query.mask, of_query.seen) if sees):
        of_query.mask = None
    if of_query.mask is None and not query.has_biases:
        z = [(x if sees else -INF, 0.0) for x, sees in zip(x, of_query.seen)]
        return z, scale, False
    of_query.position, of_query.sink = query.position - first, None
    row = Logits(x, of_query, cap, scale, SINGLE, False)
    if row.special is not None:
        row = Logits(x, of_query, cap, scale, SINGLE, True)
    return row.z, row.of_row, True


def weigh(state, x, first, query, cap, scale):
    """The weights of a row of a tile, and its factor. Keys that do not count become None."""
    seen = state.seen()
    if math.isnan(state.max) or state.max == INF:
        return [NAN] * len(x), seen
    counts = [i for i in range(len(x)) if query.in_range[first + i]]
    if not counts:
        return [0.0] * len(x), seen
    z, scale, is_biased = logits_of_tile(x, first, query, cap, scale)
    value = special([z[0] for z in z])
    if value == -INF:
        return [0.0] * len(x), seen
    if value is not None:
        state.__init__(value)
        return [NAN] * len(x), seen
    m = max(z[0] for z in z)
    far = is_biased and scale is not ONE
    shift = Shift(scale, m, -126)
    weights = [0.0] * len(x)
    if far or shift.is_huge or abs(state.own) >= 65536:
        factor = state.raised(below(octaves(m, scale)))
        for i in counts:
            weights[i] = f32(state.exp(octaves(z[i][0], scale))) if z[i][0] > -INF else 0.0
            state.add(first + i, weights[i])
        state.saw(m, max(weights), scale)
        return weights, factor
    factor = state.raised(float(shift.m))
    shift = TileShift(state, scale)
    for i in counts:
        weights[i] = exp(z[i][0], SINGLE, scale, shift, z[i][1])
        state.add(first + i, weights[i])
    e = 0.0
    if is_biased:
        e = max(weights)
    elif add(mul(m, scale.hi), mul(m, scale.lo)) > state.max:
        e = exp(m, SINGLE, scale, shift)
    state.saw(m, e, scale)
    return weights, factor


def merge_states(a, b):
    """The factors of both; `a` becomes the merged state."""

    def as_factor(n):
        return 0.0 if n < LEAST_FACTOR else 2.0**n

    if math.isnan(a.max) or math.isnan(b.max):
        a.__init__(NAN)
        return 1.0, 1.0
    if INF in (a.max, b.max):
        a.__init__(INF)
        return 1.0, 1.0
    if b.max == -INF:
        return a.seen(), 0.0
    b.end_block()
    if a.max == -INF:
        a.__dict__.update(b.__dict__)
        return 0.0, 1.0
    a.end_block()
    shift = max(a.shift, b.shift)
    n_a, n_b = sub(a.shift, shift), sub(b.shift, shift)
    a.times(n_a)
    b.times(n_b)
    a.total, a.shift, a.block = add(a.total, b.total), shift, b.block
    a.max, a.largest, a.own = max(a.max, b.max), max(a.largest, b.largest), max(a.own, b.own)
    return as_factor(n_a), as_factor(n_b)


def finish(state, sink, masked):
    """The reciprocal and the log-sum-exp."""
    sink = -INF if sink is None else sink
    if math.isnan(state.max) or math.isnan(sink):
        return NAN, NAN
    if INF in (state.max, sink):
        return NAN, INF
    state.end_block()
    if sink == -INF and state.max == -INF:
        return (0.0 if masked == "zero" else NAN), -INF
    unit = 1.0
    if sink != -INF:
        old, unit = state.shift, state.seen()
        state.raised(below(octaves(sink, ONE)))
        e = state.exp(octaves(sink, ONE))
        state.saw(sink, e, ONE)
        state.total = add(state.total, e)
        if unit == 1:
            n = sub(old, state.shift)
            unit = 0.0 if n < -900 else 2.0**n
    reciprocal = f32(div(unit, state.total))
    if abs(state.shift) >= 65536:
        return reciprocal, add(state.max, ln(div(state.total, state.largest)))
    shift = TileShift(state, ONE)
    log = Log(state.max, state.largest, shift, (state.total, 0.0), SINGLE, ONE)
    return reciprocal, log.logsumexp()


def merged_outputs(parts, logs, masked):
    """A row's output and log-sum-exp."""
    m = NAN if any(map(math.isnan, logs)) else max(logs, default=-INF)
    n = len(parts[0]) if parts else 0
    if not math.isfinite(m):
        return [0.0 if m == -INF and masked == "zero" else NAN] * n, m
    e = [exp_f64(sub(log, m)) for log in logs]
    of_all = total(0.0, *e)
    w = [div(e, of_all) for e in e]
    output = []
    for i in range(n):
        y = [mul(w, part[i]) for w, part in zip(w, parts) if w > 0]
        output.append(f32(total(0.0, *y)))
    return output, add(m, ln(of_all))


# --- Rows with masks.


def with_mask(x, m, of, scale):
    """A row of log-softmax or log-sum-exp with a mask, the type of its elements, and its scale."""
    if m is None:
        return x, of, scale
    z = []
    for x, m in zip(x, m):
        y = fma(x, scale.hi, m)
        if m != -INF and scale.lo != 0 and math.isfinite(y):
            y = fma(x, scale.lo, y)
        z.append(-INF if m == -INF else y)
    return z, F64, ONE


# --- Weights.


HUGE = 1e300


def exponent(x, w, added, scale):
    """The exponent of a term as a pair, and its factor; None for one that is left out."""
    p = mul(x, scale.hi)
    z = add(p, added)
    if w == 0 or added == -INF or z == -INF:
        return None
    f, k = math.frexp(w)
    f, k = 2.0 * f, k - 1
    if math.isnan(z) or abs(z) > HUGE or abs(p) > HUGE:
        return (z, 0.0), f
    p_lo = add(fma(x, scale.hi, -p), mul(x, scale.lo))
    z, z_lo = two_sum(p, added)
    v, v_lo = two_sum(z, mul(float(k), LN_2_FIRST))
    return two_sum(v, add(v_lo, add(add(z_lo, p_lo), mul(float(k), LN_2_REST)))), f


def weighted_logsumexp(x, w, added, scale):
    terms = [exponent(x, w, a, scale) for x, w, a in zip(x, w, added)]
    terms = [term for term in terms if term is not None]
    if any(math.isnan(v[0]) for v, _ in terms):
        return NAN
    most = max((v for v, _ in terms), default=(-INF, 0.0))
    if abs(most[0]) > HUGE:
        return most[0]
    of_all = (0.0, 0.0)
    for v, f in terms:
        a, a_lo = two_sum(v[0], -most[0])
        if a > -1000:
            a, a_lo = two_sum(a, add(a_lo, sub(v[1], most[1])))
            e = exp_f64(a)
            of_all = pair_add(of_all, (mul(f, add(e, mul(e, a_lo))), 0.0))
    l, l_lo = ln_pair(*of_all)
    y, y_lo = two_sum(most[0], l)
    return add(y, add(y_lo, add(most[1], l_lo)))


def perplexity(x):
    return exp_f64(div(-total(*x), float(len(x)))) if x else NAN


# --- Routers.


def route(x, of, case):
    """The experts of a row, and their weights."""
    contract = contract_of(of)
    a, masked, k = contract.a, case.get("masked", "nan"), case["k"]
    renormalize, factor = case.get("renormalize", False), d(case.get("factor", "3ff0000000000000"))
    is_softmax = case.get("scoring") != "sigmoid"
    if is_softmax:
        scores = softmax(x, a.of, ONE, masked)
    else:
        scores = [sigmoid(x, a.of, ONE) for x in x]
    keys = x
    if "bias" in case:
        keys = [a.add(score, s(bias)) for score, bias in zip(scores, case["bias"].split())]
    elif "groups" in case:
        keys = scores
    if any(map(math.isnan, keys)):
        return list(range(k)), [NAN] * k
    if "groups" in case:
        size = len(x) // case["groups"]
        groups = [sorted(keys[i : i + size], reverse=True) for i in range(0, len(x), size)]
        if case.get("group_score") == "largest" or size == 1:
            of_groups = [group[0] for group in groups]
        else:
            of_groups = [a.add(group[0], group[1]) for group in groups]
        near = top_k(of_groups, case["limit"])
        keys = [key if i // size in near else -INF for i, key in enumerate(keys)]
    experts = top_k(keys, k)
    if is_softmax and renormalize:
        weights = softmax([x[i] for i in experts], a.of, ONE, masked)
    else:
        weights = [scores[i] for i in experts]
    divisor = 1.0
    if renormalize and not is_softmax:
        of_all, rest = 0.0, 0.0
        for weight in weights:
            of_all, error = two_sum(of_all, weight)
            rest = add(rest, error)
        divisor = add(of_all, rest) if of_all != 0 else 1.0
    return experts, [a.round(mul(div(weight, divisor), factor)) for weight in weights]


# --- Gradients.


def finite_part(x):
    return x if math.isfinite(x) else 0.0


def pair_mul(a, b):
    p = mul(a[0], b[0])
    return p, finite_part(add(fma(a[0], b[0], -p), add(mul(a[0], b[1]), mul(a[1], b[0]))))


def pair_div(a, b):
    q = div(a[0], b[0])
    rest = add(fma(-q, b[0], a[0]), sub(a[1], mul(q, b[1])))
    return q, finite_part(div(rest, b[0]))


def softmax_backward(y, u, of, scale):
    contract = contract_of(of)
    products = [mul(y, u) for y, u in zip(y, u)]
    total = row_sum(products, contract)
    if not contract.is_double:
        return [mul(mul(y, scale.hi), sub(u, total[0])) for y, u in zip(y, u)]
    errors = [fma(y, u, sub(0.0, p)) for y, u, p in zip(y, u, products)]
    total = pair_add(total, row_sum(errors, contract))
    result = []
    for y, u in zip(y, u):
        small = y < 2.0**-900
        a = mul(y, 2.0**200) if small else y
        p = mul(a, scale.hi)
        p_lo = fma(a, scale.lo, fma(a, scale.hi, sub(0.0, p)))
        e = sub(sub(u, total[0]), total[1])
        g = fma(p, e, mul(p_lo, e))
        result.append(mul(g, 2.0**-200) if small else g)
    return result


def log_softmax_backward(y, u, of, scale):
    contract = contract_of(of)
    one = contract.table[0]
    total = row_sum(u, contract)
    e = [exp_alone(y, contract, ONE) for y in y]
    if not contract.is_double:
        total = div(total[0], one)
        return [mul(sub(u, mul(e, total)), scale.hi) for e, u in zip(e, u)]
    total = pair_div(pair_mul(total, (scale.hi, scale.lo)), (one, 0.0))
    result = []
    for e, u in zip(e, u):
        p = mul(u, scale.hi)
        p_lo = fma(u, scale.lo, fma(u, scale.hi, sub(0.0, p)))
        e = sub(0.0, e)
        result.append(add(fma(e, total[0], p), fma(e, total[1], p_lo)))
    return result


# --- Cross-entropy.

C_RATIO = d("3ff019f1fbfa9c53")
LEAST = d("fa11a0fc668aac70")


def power_of_two(x):
    n = round(mul(8.0, x))
    r = sub(mul(8.0, x), float(n))
    k, j = divmod(n, 8)
    y = math.ldexp(DOUBLE.table[j], k)
    q = DOUBLE.p[-1]
    for p in DOUBLE.p[-2::-1]:
        q = add(mul(q, r), p)
    return add(y, mul(y, mul(q, r)))


class Pairs:
    """Numbers of losses: in rows of f32 plain f64, with 0 as the second part."""

    def __init__(self, is_double):
        self.is_double = is_double

    def of(self, hi, lo=0.0):
        return (hi, finite_part(lo) if self.is_double else 0.0)

    def add(self, a, b):
        return self.of(*pair_add(a, b)) if self.is_double else (add(a[0], b[0]), 0.0)

    def mul(self, a, b):
        return pair_mul(a, b) if self.is_double else (mul(a[0], b[0]), 0.0)

    def div(self, a, b):
        return pair_div(a, b) if self.is_double else (div(a[0], b[0]), 0.0)

    def minus(self, a):
        return (-a[0], -a[1])


# --- Entropies.


def product_sum(a, b, contract):
    """The sum of a row of products."""
    if not contract.is_double:
        return row_sum([mul(a, b) for a, b in zip(a, b)], contract)
    result = None
    for at in range(0, len(a), BLOCK):
        lanes = [(0.0, 0.0)] * 8
        for i, (x, y) in enumerate(zip(a[at : at + BLOCK], b[at : at + BLOCK])):
            hi, lo = lanes[i % 8]
            p = mul(x, y)
            z, error = two_sum(hi, p)
            lanes[i % 8] = (z, add(add(lo, error), fma(x, y, sub(0.0, p))))
        c = [pair_add(lanes[i], lanes[i + 4]) for i in range(4)]
        block = pair_add(pair_add(c[0], c[2]), pair_add(c[1], c[3]))
        result = block if result is None else pair_add(result, block)
    return result


class Entropy:
    """A row's entropy, for its gradient if `slopes`."""

    def __init__(self, x, of, scale, slopes):
        contract = contract_of(of)
        row, n = Row(x, contract, scale), len(x)
        pairs, shift = Pairs(contract.is_double), row.shift
        self.e, self.scale, total = row.e, scale, pairs.of(*row.sum)
        cut = shift.cut if contract.is_double else f32(shift.cut)
        self.w = [contract.a.sub(x, shift.subtract) if shift.is_huge else x for x in x]
        self.w = [0.0 if w < cut else w for w in self.w]
        self.top = sub(row.max, shift.subtract)
        self.a = pairs.of(scale.hi, scale.lo)
        e_max, c = row.exp(row.max), pairs.of(*row.log().c)

        def value(a):
            return add(a[0], a[1])

        minus_w = pairs.minus(pairs.of(*product_sum(self.e, self.w, contract)))
        below = pairs.add(pairs.mul(pairs.of(self.top), total), minus_w)
        below = pairs.of(0.0) if value(below) < 0 else below
        share = pairs.mul(pairs.div(below, total), self.a)
        rest, error = two_sum(row.sum[0], -e_max)
        rest = add(rest, add(error, row.sum[1]))
        adds = float(min(n, BLOCK) // 16 + 8 + n // BLOCK)
        lost_of_sum = 2.0**-86 if contract.is_double else mul(adds, 2.0**-53)
        may = 2.0**-60 if contract.is_double else 2.0**-30
        lost = mul(rest, may) < mul(lost_of_sum, row.sum[0])
        least = value(share) if slopes else add(value(c), value(share))
        far = mul(least, may) < mul(lost_of_sum, abs(mul(scale.hi, self.top)))
        if n > 1 and (lost or far):
            minus = [sub(0.0, w) for w in self.w]
            ds = [add(self.top, m) for m in minus]
            unit = 2.0 ** (math.frexp(max(scale.hi, 1.0))[1] - 1)
            below = product_sum(self.e, [mul(y, unit) for y in ds], contract)
            if contract.is_double:
                errors = []
                for e, m, y in zip(self.e, minus, ds):
                    t = sub(y, self.top)
                    error = add(sub(self.top, sub(y, t)), sub(m, t))
                    errors.append(mul(e, mul(error, unit)))
                below = pair_add(below, row_sum(errors, contract))
            in_units = pairs.mul(self.a, pairs.of(div(1.0, unit)))
            share = pairs.mul(pairs.div(pairs.of(*below), total), in_units)
            if lost:
                others = [0.0 if x == row.max else e for x, e in zip(x, self.e)]
                others = value(row_sum(others, contract))
                if not contract.is_double or others < mul(0.125, e_max):
                    c = pairs.of(ln1p(div(others, e_max)))
        self.share = value(share)
        self.entropy = add(value(pairs.add(share, c)), 0.0)
        self.factor = value(pairs.div(self.a, total))

    def gradient(self, upstream):
        factor = mul(self.factor, upstream)

        def of(e, w):
            slope = fma(sub(self.top, w), self.scale.hi, sub(0.0, self.share))
            return fma(mul(e, slope), factor, 0.0)

        return [of(e, w) for e, w in zip(self.e, self.w)]


def entropy_of_special(value, masked):
    return 0.0 if value == -INF and masked == "zero" else NAN


# --- The divergence of two rows of logits.

KL_P = [
    d(word)
    for word in (
        "3fe0000000000000 bfc5555555555557 3fa5555555555573 bf81111111110eff "
        "3f56c16c16c14a34 bf2a01a01a052aa9 3efa01a01a195463 bec71de3a2a1c11c "
        "3e927e4fb45a8ffb be5ae6476be38b78 3e21eed3f3051b31 bde6119bee4b6604 "
        "3da940e2e3f29e28 bd6afd77b11f73b8 3d28173eb35537fb bcf44a29c73f27c8"
    ).split()
]


def two_difference(a, b):
    y = sub(a, b)
    u = sub(y, a)
    return y, sub(sub(a, sub(y, u)), add(b, u))


class Divergence:
    """Of two rows, neither of which is special."""

    def __init__(self, x, y, of, scale):
        contract = contract_of(of)
        pairs = Pairs(contract.is_double)
        rows = [Row(row, DOUBLE, scale) for row in (x, y)]
        sums = [row_sum(row.e, contract) for row in rows]
        logs = [Log(r.max, r.exp(r.max), r.shift, s, DOUBLE, scale).c for r, s in zip(rows, sums)]
        self.scale, self.pairs, self.sums = scale, pairs, [pairs.of(*s) for s in sums]
        (self.e, self.f), (log_x, log_y) = (row.e for row in rows), logs
        self.max = two_sum(mul(0.5, rows[0].max), -mul(0.5, rows[1].max))
        c, error = two_sum(log_x[0], -log_y[0])
        self.c = c, add(error, sub(log_x[1], log_y[1]))
        self.ratio = self.quotient(self.sums[0], self.sums[1])
        self.d = [self.difference(x, y) for x, y in zip(x, y)]
        terms = [self.term(e, f, y) for e, f, y in zip(self.e, self.f, self.d)]
        value = self.quotient(pairs.of(*row_sum(terms, contract)), self.sums[0])
        self.value = value if math.isfinite(value) else INF

    def quotient(self, a, b):
        return add(*self.pairs.div(a, b))

    def difference(self, x, y):
        z, z_lo = two_difference(mul(0.5, x), mul(0.5, y))
        z, error = two_difference(z, self.max[0])
        z_lo = add(error, sub(z_lo, self.max[1]))
        a, a_lo = mul(2.0, self.scale.hi), mul(2.0, self.scale.lo)
        p = mul(z, a)
        p_lo = fma(z_lo, a, fma(z, a_lo, fma(z, a, sub(0.0, p))))
        y, error = two_difference(p, self.c[0])
        return y if math.isinf(y) else add(y, add(error, sub(p_lo, self.c[1])))

    @staticmethod
    def near(y):
        """exp(-y) - 1 + y, or None if y is not near 0."""
        if not -2 <= y <= 1:
            return None
        q = KL_P[-1]
        for c in KL_P[-2::-1]:
            q = fma(q, y, c)
        return mul(mul(y, y), q)

    def term(self, e, f, y):
        if e == 0:
            return mul(f, self.ratio)
        near = self.near(y)
        return mul(e, near) if near is not None else fma(e, sub(y, 1.0), mul(f, self.ratio))

    def gradients(self, upstream):
        factor = self.pairs.mul(self.pairs.of(self.scale.hi), self.pairs.of(upstream))
        of_p, of_q = (self.quotient(factor, total) for total in self.sums)
        value = NAN if math.isinf(self.value) else self.value

        def with_x(e, y):
            return 0.0 if e == 0 else fma(mul(e, sub(y, value)), of_p, 0.0)

        def with_y(e, f, y):
            if e == 0:
                return mul(f, of_q)
            near = self.near(y)
            if near is not None:
                return fma(mul(e, of_p), sub(near, y), 0.0)
            return fma(f, of_q, sub(0.0, mul(e, of_p)))

        of_x = [with_x(e, y) for e, y in zip(self.e, self.d)]
        return of_x, [with_y(e, f, y) for e, f, y in zip(self.e, self.f, self.d)]


def divergence(x, y, of, scale, masked, upstream):
    """The divergence, and the gradients."""
    of_x, of_y = special(x), special(y)
    if of_x is None and of_y is None:
        both = Divergence(x, y, of, scale)
        return both.value, *both.gradients(upstream)
    value = slope = NAN
    if of_x == -INF and (of_y is None or of_y == -INF) and masked == "zero":
        value = slope = 0.0
    elif of_x is None and of_y == -INF:
        value = INF
    return value, [slope] * len(x), [slope] * len(x)


class LossRow:
    """The sums of a row, and what its log-probabilities are made of."""

    def __init__(self, x, of, scale):
        self.x, self.row = x, Row(x, contract_of(of), scale)
        row = self.row
        self.is_double = row.contract.is_double
        self.pairs = Pairs(self.is_double)
        self.e_max = self.top = row.exp(row.max)
        hi, lo = two_sum(row.sum[0], -self.e_max)
        self.others = (hi, add(lo, row.sum[1]))
        lost = 2.0**-40 if self.is_double else 2.0**-27
        bound = mul(mul(float(260 + len(x) // BLOCK), lost), row.sum[0])
        if len(x) > 1 and add(*self.others) < bound:
            terms = [e if x < row.max else 0.0 for x, e in zip(x, row.e)]
            self.others = row_sum(terms, row.contract)
        self.log = row.log()
        if not self.is_double and mul(4.0, self.e_max) >= row.sum[0]:
            power = mul(sub(row.max, row.shift.subtract), mul(scale.l8, 0.125))
            self.top = mul(C_RATIO, power_of_two(sub(power, float(row.shift.m))))
            self.log.c = (ln1p(div(self.others[0], self.top)), 0.0)
        if self.is_double and self.others[0] < mul(2.0**-40, row.sum[0]):
            self.log.c = (ln1p(div(add(*self.others), self.e_max)), 0.0)

    def exactly(self):
        """The same of a row of f32 by exponentials of f64."""
        row = self.row
        shift = Shift(row.scale, row.max, DOUBLE.min_exp)
        e = [exp(x, DOUBLE, row.scale, shift) for x in self.x]
        e_max = exp(row.max, DOUBLE, row.scale, shift)
        return Log(row.max, e_max, shift, row_sum(e, row.contract), DOUBLE, row.scale)


def log_prob(x, log):
    row_max, hi, lo, c = log.max, log.scale.hi, log.scale.lo, log.c
    if log.far:
        x, row_max, hi, lo = mul(0.5, x), mul(0.5, row_max), mul(2.0, hi), mul(2.0, lo)
    e, e_lo = two_sum(x, -row_max)
    if e < LEAST or mul(e, hi) < LEAST:
        return mul(e, hi)
    p, p_lo = two_product(e, hi)
    y, y_lo = two_sum(p, sub(0.0, c[0]))
    rest = sub(add(mul(e_lo, hi), mul(e, lo)), c[1])
    return add(y, add(y_lo, add(p_lo, rest)))


class LossOptions:
    def __init__(self, case):
        self.s = d(case.get("smoothing", "0" * 16))
        self.z = d(case.get("z", "0" * 16))
        self.weights = numbers(case["weights"], F64) if "weights" in case else None
        self.divergence = case.get("divergence", False)


class Loss:
    """The loss of a row, and its gradient. Of `label` and `q`, probabilities, one is None."""

    def __init__(self, row, label, q, r, options):
        self.row, self.label, self.q, self.r, self.o = row, label, q, r, options
        self.n, self.weights = len(row.x), options.weights or [1.0] * len(row.x)
        self.spreads = q is not None or options.s != 0
        pairs, s = row.pairs, options.s
        self.own = pairs.of(*two_sum(1.0, -s))
        self.spread = pairs.div((s, 0.0), (float(self.n), 0.0))
        self.all = self.share = self.extra = (0.0, 0.0)
        below = 0.0
        if self.spreads:
            below = self.sums()
        if label is not None:
            weight = (self.weights[label], 0.0)
            self.share = pairs.mul(self.own, weight)
            self.extra = pairs.mul(self.spread, weight)
        exactly = not row.is_double and options.divergence and self.spreads
        log = row.exactly() if exactly else row.log
        c_1 = add(*log.c)
        loss = add(mul(add(*self.all), c_1), mul(2.0, mul(log.scale.hi, below)))
        information = 0.0
        if self.share[0] != 0:
            information = -log_prob(row.x[label], log)
            loss = add(loss, mul(add(*self.share), information))
        if options.divergence and self.spreads:
            loss = self.diverged(loss)
        self.mass = pairs.add(self.share, self.all)
        self.rest = pairs.add(self.all, pairs.minus(self.extra))
        if options.z != 0:
            loss = self.with_z(loss, log, c_1, exactly)
        self.result = mul(loss, r)
        if not self.spreads and options.z == 0 and abs(loss) < 2.0**-800:
            factor = mul(add(*self.share), r)
            if math.isfinite(factor):
                self.result = mul(factor, information)

    def sums(self):
        row, pairs, weights = self.row, self.row.pairs, self.weights
        labels = self.q is None
        self.own_1 = 0.0 if labels else sub(1.0, self.o.s)
        self.spread_1 = div(self.o.s, float(self.n))
        q = [0.0] * self.n if labels else self.q
        self.v = [fma(q, self.own_1, self.spread_1) for q in q]
        self.t = [mul(w, v) for w, v in zip(weights, self.v)]
        half, contract = mul(0.5, row.row.max), row.row.contract
        terms = [
            0.0 if t == 0 else mul(t, fma(x, -0.5, half)) for t, x in zip(self.t, row.x)
        ]
        of_probs = pairs.of(*row_sum([mul(w, q) for w, q in zip(weights, q)], contract))
        of_weights = pairs.of(*row_sum(weights, contract))
        self.all = pairs.add(pairs.mul(self.own, of_probs), pairs.mul(self.spread, of_weights))
        return row_sum(terms, contract)[0]

    def diverged(self, loss):
        if self.label is None:
            entropy = (0.0, 0.0)
            for t, v in zip(self.t, self.v):
                if t != 0:
                    entropy = pair_add(entropy, (mul(t, ln(v)), 0.0))
            entropy, in_all = entropy[0], add(*self.all)
        else:
            w, in_all = self.weights[self.label], 1.0
            own_2 = add(sub(1.0, self.o.s), self.spread_1)
            others = sub(add(*self.all), mul(w, self.spread_1))
            entropy = mul(mul(w, own_2), ln(own_2))
            entropy = add(entropy, mul(others, ln(self.spread_1)))
        loss = add(loss, entropy)
        if self.o.weights is None:
            counts = in_all > 1 or (in_all > 0 and sub(1.0, in_all) > 2.0**-50)
            least = mul(in_all, ln(in_all)) if counts else 0.0
            loss = least if loss < least else loss
        return loss

    def with_z(self, loss, log, c_1, exactly):
        z, row, pairs = self.o.z, self.row, self.row.pairs
        twice, lse = mul(2.0, z), log.logsumexp()
        if not row.is_double and not exactly:
            error = mul(min(c_1, 1.0), 2.0**-23)
            near = mul(abs(add(self.mass[0], mul(twice, lse))), 2.0**-30)
            square = mul(add(loss, mul(mul(z, lse), lse)), 2.0**-26)
            if mul(twice, error) > near or mul(mul(twice, abs(lse)), error) > square:
                lse = row.exactly().logsumexp()
        of_z = pairs.mul((twice, 0.0), (lse, 0.0))
        self.mass, self.rest = pairs.add(self.mass, of_z), pairs.add(self.rest, of_z)
        return add(loss, mul(mul(z, lse), lse))

    def gradient(self, factor):
        row, pairs, scale = self.row, self.row.pairs, self.row.row.scale
        w = pairs.mul((factor, 0.0), (self.r, 0.0))
        w = pairs.mul(w, pairs.of(scale.hi, scale.lo))
        if self.mass[0] == 0 and self.o.z == 0 and not math.isfinite(w[0]):
            w = (0.0, 0.0)
        m = pairs.mul(w, self.mass)
        q = pairs.div(m, row.row.sum)
        up, down = (UP, DOWN) if abs(m[0]) < 2.0**60 else (1.0, 1.0)
        e = row.row.e
        result = self.of_others(q, e, up, down)
        if self.spreads:
            result = self.of_spread(w, q, e, up, down)
        if self.label is not None:
            result[self.label] = self.at_label(w, e[self.label])
        return result

    def of_others(self, q, e, up, down):
        a = self.row.row.contract.a
        hi, lo = q
        if not self.row.is_double:
            hi = f32(q[0])
            lo = sub(q[0], hi)
            lo = f32(lo) if math.isfinite(lo) else 0.0
        result = []
        for e in e:
            if math.isfinite(hi):
                u = a.mul(e, up)
                result.append(a.mul(a.fma(u, hi, a.mul(u, lo)), down))
            else:
                result.append(mul(e, q[0]) if math.isfinite(q[0]) else NAN)
        return result

    def of_spread(self, w, q, e, up, down):
        pairs, result = self.row.pairs, []
        own, spread = add(*pairs.mul(w, self.own)), add(*pairs.mul(w, self.spread))
        for j, e in enumerate(e):
            if self.row.is_double:
                u = mul(e, up)
                p = mul(fma(u, q[0], mul(u, q[1])), down)
            else:
                p = mul(e, q[0])
            v = spread if self.q is None else fma(self.q[j], own, spread)
            if self.o.weights is None:
                result.append(sub(p, v))
            else:
                result.append(fma(sub(0.0, self.weights[j]), v, p))
        return result

    def at_label(self, w, e):
        row, pairs = self.row, self.row.pairs
        x, contract = row.x[self.label], row.row
        if x == contract.max and mul(2.0, row.e_max) >= contract.sum[0]:
            o = row.others if row.is_double else (add(*row.others), 0.0)
            part = pairs.div(o, pairs.add(o, (row.top, 0.0)))
            if self.rest[0] == 0 and part[0] < 2.0**-800:
                part = (mul(part[0], 2.0**300), mul(part[1], 2.0**300))
                v = pairs.minus(pairs.mul(self.mass, part))
                return mul(add(*pairs.mul(w, v)), 2.0**-300)
            v = pairs.add(self.rest, pairs.minus(pairs.mul(self.mass, part)))
        else:
            p = pairs.div((e, 0.0), contract.sum)
            target = pairs.add(self.share, self.extra)
            v = pairs.add(pairs.mul(self.mass, p), pairs.minus(target))
        return add(*pairs.mul(w, v))


def cross_entropy(x, case, of):
    """Losses, their reduction, and gradients."""
    cols, options = case["cols"], LossOptions(case)
    x, scale = without_sign(x, case)
    rows, ignored = len(x) // cols, case.get("ignore_index", -100)
    labels, q = case.get("labels"), None
    if "label_of_all" in case:
        labels = [case["label_of_all"]] * rows
    if "targets" in case:
        q, labels = numbers(case["targets"], of), [None] * rows
    row_factors = numbers(case["row_factors"], F64) if "row_factors" in case else [1.0] * rows
    divisor = 1.0
    if case["reduction"] == "mean":
        counted = [1.0 if q else label for label in labels if label != ignored]
        divisor = float(len(counted))
        if options.weights and not q:
            divisor = total(0.0, *(options.weights[label] for label in counted))
    factor = d(case.get("gradient_factor", "3ff0000000000000"))
    if d(case.get("scale", "3ff0000000000000")) < 0:
        factor = -factor
    factor = div(factor, divisor)
    losses, gradients, lanes = [], [], [0.0] * 8
    for i, label in enumerate(labels):
        row = x[i * cols : (i + 1) * cols]
        if label == ignored:
            loss, gradient = 0.0, [0.0] * cols
        elif special(row) is not None:
            loss, gradient = NAN, [NAN] * cols
        else:
            probs = q and q[i * cols : (i + 1) * cols]
            of_row = Loss(LossRow(row, of, scale), label, probs, row_factors[i], options)
            loss, gradient = of_row.result, of_row.gradient(factor)
        lanes[i % 8] = add(lanes[i % 8], loss)
        losses.append(loss)
        gradients += gradient
    return losses, div(total(*lanes), divisor), gradients


# --- The sampler.

MASK32 = (1 << 32) - 1


def philox(counter, key):
    a, b, c, e = counter
    k, l = key
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, e = q >> 32 ^ b ^ k, q & MASK32, p >> 32 ^ e ^ l, p & MASK32
        k, l = (k + 0x9E3779B9) & MASK32, (l + 0xBB67AE85) & MASK32
    return a, b, c, e


HALF_UNIT, ROUND = s("30000000"), s("3c400000")


def units(e):
    e = A32.sub(A32.add(A32.sub(e, HALF_UNIT), ROUND), ROUND)
    return int(math.ldexp(e, 30))


def rest(e):
    """In integers: e is a multiple of 2^-149."""
    if e >= 2.0**-8:
        return 0
    n, divisor = e.as_integer_ratio()
    return ((n << 30) - units(e) * divisor << 32) // divisor


def edited(x, of, case, row):
    a = contract_of(of).a
    for token, bias in case.get("bias", []):
        x[token] = a.round(add(x[token], s(bias)))
    repetition, presence, frequency = (
        d(case.get(name, usual))
        for name, usual in (
            ("repetition", "3ff0000000000000"),
            ("presence", "0000000000000000"),
            ("frequency", "0000000000000000"),
        )
    )
    history = case.get("history", [])
    if (repetition, presence, frequency) == (1, 0, 0) or not history:
        return
    tokens = history[0 if len(history) == 1 else row]
    for token in set(tokens):
        v = x[token]
        v = div(v, repetition) if v > 0 else mul(v, repetition)
        count = float(tokens.count(token))
        x[token] = a.round(sub(v, add(mul(count, frequency), presence)))


def masses(x, of, scale):
    contract = contract_of(of)
    shift = Shift(scale, max(x), contract.min_exp)
    return [f32(exp(x, contract, scale, shift)) for x in x]


LN_ODD = {i: div(2.0, float(i)) for i in range(3, 20, 2)}


def ln_f32(x):
    bits = int(F32.to_bits(x), 16)
    k = (bits - 0x3F3504F3) // 2**23
    m = s(f"{bits - k * 2**23:08x}")
    q = div(sub(m, 1.0), add(m, 1.0))
    z = mul(q, q)
    w = mul(z, z)

    def pair(i):
        return add(LN_ODD[i], mul(LN_ODD[i + 2], z))

    far = add(pair(11), mul(w, add(pair(15), mul(w, LN_ODD[19]))))
    tail = mul(mul(q, z), add(pair(3), mul(w, add(pair(7), mul(w, far)))))
    k = float(k)
    return add(mul(k, LN_2_FIRST), add(mul(2.0, q), add(tail, mul(k, LN_2_REST))))


def f64_of(n):
    return rounded(n, 1, F64) if n else 0.0


def first_with_share(p, left):
    """How many of the first of these tokens have this share of their units."""
    of_all = sum(units(e) for e, _ in left)
    need = max(1, min(math.ceil(mul(p, f64_of(of_all))), of_all))
    running = 0
    for n, (e, _) in enumerate(left):
        running += units(e)
        if running >= need:
            return n + 1
    return len(left)


def by_index(left):
    return sorted(left, key=lambda t: t[1])


def by_rank(left):
    return sorted(left, key=lambda t: (-t[0], t[1]))


def by_distance(left):
    lanes, of_all = [0.0] * 8, sum(units(e) for e, _ in left)
    logs = {token: ln_f32(e) for e, token in left}
    for e, token in by_index(left):
        term = mul(mul(f64_of(units(e)), 2.0**-30), logs[token])
        lanes[token % 8] = add(lanes[token % 8], term)
    mean = div(total(*lanes), mul(f64_of(of_all), 2.0**-30))
    return sorted(left, key=lambda t: (abs(sub(logs[t[1]], mean)), -t[0], t[1]))


def filtered(left, case):
    """Of pairs of exponentials and tokens, in the order of ranks."""
    min_keep = case.get("min_keep", 0)
    top_p, min_p = d(case.get("top_p", "3ff0000000000000")), d(case.get("min_p", "0" * 16))
    typical_p = d(case.get("typical_p", "3ff0000000000000"))
    if case.get("top_k", 0) > 0:
        left = left[: case["top_k"]]

    def by_top_p(left):
        return left[: max(min_keep, first_with_share(top_p, left))] if top_p < 1 else left

    def by_min_p(left):
        if min_p == 0:
            return left
        bound = mul(min_p, left[0][0])
        return left[: max(min_keep, sum(e >= bound for e, _ in left))]

    def by_typical_p(left):
        if typical_p == 1:
            return left
        left = by_distance(left)
        return by_rank(left[: max(min_keep, first_with_share(typical_p, left))])

    filters = [by_top_p, by_min_p, by_typical_p]
    if case.get("order") == "llama.cpp":
        filters = [by_typical_p, by_top_p, by_min_p]
    for each in filters:
        left = each(left)
    return left


def left_of_row(x, of, case):
    """Tokens that are left of a row that is not special, with their exponentials, by index."""
    temperature = d(case.get("temperature", "3ff0000000000000"))
    if temperature == 0:
        return [(1.0, x.index(max(x)))]
    names = ("top_k", "top_p", "min_p", "typical_p")
    after = case.get("order") == "llama.cpp" and any(name in case for name in names)

    def exponentials(x):
        if temperature == INF:
            return [1.0 if x > -INF else 0.0 for x in x]
        return masses(x, of, Scale.of_temperature(temperature))

    left = [(e, token) for token, e in enumerate(masses(x, of, ONE) if after else exponentials(x))]
    left = by_rank((e, token) for e, token in left if e >= 2.0**-62)
    left = by_index(filtered(left, case))
    if after and temperature != 1:
        left = list(zip(exponentials([x[token] for _, token in left]), (t for _, t in left)))
        left = [(e, token) for e, token in left if e >= 2.0**-62]
    return left


def edited_row(x, of, case, row):
    """A row with bias and penalties, and the tokens that are left of it, or None."""
    x = list(x)
    edited(x, of, case, row)
    return x, None if special(x) is not None else left_of_row(x, of, case)


def draws_of_row(left, case, row, draws):
    if left is None:
        return [-1] * draws
    if case.get("temperature") == "0" * 16:
        return [left[0][1]] * draws
    seed, step = case["seed"], case.get("step", 0)
    number = case.get("first_row", 0) + row
    upper_bits = (step >> 32) << 16 | number >> 32
    result = []
    for draw in range(draws):
        counter = [draw, number & MASK32, step & MASK32, upper_bits]
        bits = philox(counter, [seed & MASK32, seed >> 32])
        gumbel = case.get("method") == "gumbel-max"
        result.append((gumbel_max if gumbel else inverse)(left, bits))
    return result


def kept_of_row(x, left, of, case):
    """Tokens that are left and their probabilities, and the logarithms of these."""
    if left is None:
        return [], [], []
    tokens = [token for _, token in left]
    x, temperature = [x[token] for token in tokens], d(case.get("temperature", "3ff0000000000000"))
    if temperature in (0, INF):
        probs, logs = (limit(x, "nan", temperature == INF, log) for log in (False, True))
    else:
        arithmetic, scale = contract_of(of).a.of, Scale.of_temperature(temperature)
        probs = softmax(x, arithmetic, scale, "nan")
        logs = log_softmax(x, arithmetic, scale, "nan")
    order = sorted(zip(probs, tokens), key=lambda t: (-t[0], t[1]))
    return [t for _, t in order], [p for p, _ in order], sorted(logs, reverse=True)


def inverse(left, bits):
    u, w = bits[0] | bits[1] << 32, bits[2] | bits[3] << 32
    of = units
    all_units, all_rests = sum(units(e) for e, _ in left), sum(rest(e) for e, _ in left)
    t = u * all_units >> 64
    if w < (all_rests << 64) // ((all_units << 32) + all_rests):
        of, t = rest, u * all_rests >> 64
    running = 0
    for e, token in left:
        running += of(e)
        if running > t:
            return token
    return -1


def gumbel_max(left, bits):
    best = (INF, -1)
    for e, token in left:
        noise = philox([token // 2, 0, bits[2], bits[3]], [bits[0], bits[1]])
        z = noise[2] | noise[3] << 32 if token % 2 else noise[0] | noise[1] << 32
        v = math.ldexp(2 * (z >> 12) + 1, -53)
        best = min(best, (div(-ln1p(-v), e), token))
    return best[1]


# --- Vectors.

MASK64 = (1 << 64) - 1


def mix(seed, i):
    """Number i of the generator."""
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK64
    return z ^ z >> 31


def generated(how, of):
    digits = 53 if of is F64 else 24
    result = []
    for i in range(how["n"]):
        n = (mix(how["seed"], i) >> (64 - digits)) - (1 << (digits - 1))
        exponent = how["exponents"][i // BLOCK] if "exponents" in how else how["exponent"]
        x = -INF if exponent is None else math.ldexp(n, exponent - digits + 1)
        result.append(nearest(x, of))
    return result


def numbers(words, of):
    if isinstance(words, dict):
        return generated(words, of)
    return [of.from_bits(word) for word in words.split()]


def digest(words):
    h = 0xCBF29CE484222325
    for word in words:
        for byte in int(word, 16).to_bytes(8, "little"):
            h = (h ^ byte) * 0x100000001B3 & MASK64
    return f"{h:016x}"


class Difference(Exception):
    pass


def same(what, got, want):
    """Whether words are those of a case: in full, or their digest."""
    if isinstance(want, dict):
        got = digest(got)
        if got != want["digest"]:
            raise Difference(f"{what}: digest {got}, not {want['digest']}")
        return
    want = want.split()
    if len(got) != len(want):
        raise Difference(f"{what}: {len(got)} results, not {len(want)}")
    for i, (g, w) in enumerate(zip(got, want)):
        if g != w:
            raise Difference(f"{what}: number {i} is {g}, not {w}")


def scale_of(case):
    if "temperature" in case:
        return Scale.of_temperature(d(case["temperature"]))
    return Scale(d(case.get("scale", "3ff0000000000000")))


def without_sign(x, case):
    """Elements and their scale, both negated if that is below 0."""
    scale = d(case.get("scale", "3ff0000000000000"))
    return ([-x for x in x], Scale(-scale)) if scale < 0 else (x, scale_of(case))


def check_values(at, name, y, of, want):
    same(f"{at} {name}", [of.to_bits(nearest(y, of)) for y in y], want)


def check_rows(case, at):
    of = TYPES[case["type"]]
    x, scale, masked = numbers(case["x"], of), scale_of(case), case.get("masked", "nan")
    check_values(at, "softmax", softmax(x, of, scale, masked), of, case["softmax"])
    check_values(at, "log_softmax", log_softmax(x, of, scale, masked), of, case["log_softmax"])
    check_values(at, "logsumexp", [logsumexp(x, of, scale)], of, case["logsumexp"])


def check_limits(case, at):
    of = TYPES[case["type"]]
    x, masked = numbers(case["x"], of), case["masked"]
    a = contract_of(of).a

    def check(name, y):
        check_values(at, name, [a.round(y) for y in y], of, case[name])

    check("softmax_0", limit(x, masked, False, False))
    check("log_softmax_0", limit(x, masked, False, True))
    check("hardmax_first", hardmax_first(x, masked))
    check("softmax_inf", limit(x, masked, True, False))
    check("log_softmax_inf", limit(x, masked, True, True))


def check_elements(case, at):
    of = TYPES[case["type"]]
    x, scale = numbers(case["x"], of), scale_of(case)
    check_values(at, "sigmoid", [sigmoid(x, of, scale) for x in x], of, case["sigmoid"])
    check_values(at, "log_sigmoid", [log_sigmoid(x, of, scale) for x in x], of, case["log_sigmoid"])


def check_shards(case, at):
    of, scale = TYPES[case["type"]], scale_of(case)
    x, masked = numbers(case["x"], of), case.get("masked", "nan")
    blocks = [x[i : i + BLOCK] for i in range(0, len(x), BLOCK)]

    def told(name):
        return [[F64.from_bits(word) for word in words.split()] for words in case[name]]

    def bits(*values):
        return [F64.to_bits(value) for value in values]

    def check(name, row_max):
        mine = [partial(block, of, scale, row_max) for block in blocks]
        for i, (got, words) in enumerate(zip(mine, case[name], strict=True)):
            want = words.split()
            # `least` of a sum by the block's own shift may be lower.
            if row_max is None and got[2] > 0 and F64.from_bits(want[1]) <= got[1]:
                want[1] = bits(got[1])[0]
            same(f"{at} {name} {i}", bits(*got), " ".join(want))
        row, again = merge(told(name), of, scale)
        want = case.get("again", "") if row_max is None else ""
        same(f"{at} again", [] if again is None else bits(again), want)
        return row

    row = check("partials", None)
    if row is None:
        row = check("partials_again", F64.from_bits(case["again"]))
    same(f"{at} row", bits(*row), case["row"][0])
    check_values(at, "softmax", softmax_of_shard(x, row, of, scale, masked), of, case["softmax"])
    whole = softmax(x, of, scale, masked)
    check_values(at, "softmax in one piece", whole, of, case["softmax"])


def check_attention(case, at):
    of, to = TYPES[case["type"]], TYPES[case["to"]]
    probs, lse = attention(numbers(case["x"], of), case, to)
    check_values(at, "probs", probs, to, case["probs"])
    check_values(at, "lse", lse, contract_of(of).a.of, case["lse"])


def check_tiles(case, at):
    to, (batch, heads, queries, keys) = TYPES[case["to"]], case["shape"]
    x, scale = without_sign(numbers(case["x"], F32), case)
    cap = Cap(d(case["soft_cap"]), scale) if "soft_cap" in case else None
    rows = [Query(case, r) for r in range(batch * heads * queries)]
    states, others = [State() for _ in rows], [State() for _ in rows]
    weights, factors = [], []
    for i, (first, end) in enumerate(case["tiles"]):
        of_tile = others if i >= case.get("merge", i + 1) else states
        for r, query in enumerate(rows):
            part = x[r * keys + first : r * keys + end]
            row, factor = weigh(of_tile[r], part, first, query, cap, scale)
            weights += row
            factors.append(factor)
    check_values(at, "weights", weights, to, case["weights"])
    check_values(at, "factors", factors, F32, case["factors"])
    if "merge" in case:
        both = [merge_states(a, b) for a, b in zip(states, others)]
        merged = [a for a, _ in both] + [b for _, b in both]
        check_values(at, "merge_factors", merged, F32, case["merge_factors"])
    all_numbers = [n for state in states for n in state.numbers()]
    check_values(at, "states", all_numbers, F64, case["states"])
    ends = [finish(state, q.sink, case.get("masked", "nan")) for state, q in zip(states, rows)]
    check_values(at, "reciprocals", [end[0] for end in ends], F32, case["reciprocals"])
    check_values(at, "lse", [end[1] for end in ends], F32, case["lse"])


def check_outputs(case, at):
    rows, cols, masked = case["rows"], case["cols"], case.get("masked", "nan")
    x, logs = numbers(case["parts"], F32), numbers(case["logs"], F32)
    output, lse = [], []
    for r in range(rows):
        starts = range(r * cols, len(x), rows * cols)
        of_row, log = merged_outputs([x[i : i + cols] for i in starts], logs[r::rows], masked)
        # Without parts there is no length to be seen.
        output += of_row or [0.0 if masked == "zero" else NAN] * cols
        lse.append(log)
    check_values(at, "output", output, F32, case["output"])
    check_values(at, "lse", lse, F32, case["lse"])


def check_masked(case, at):
    of, cols, masked = TYPES[case["type"]], case["cols"], case.get("masked", "nan")
    all_x = numbers(case["x"], of)
    rows = len(all_x) // cols
    mask_rows = len(case["mask"].split() if "mask_type" in case else case["mask"]) // cols
    as_attention = case | {"shape": [1, 1, rows, cols], "mask_shape": [1, 1, mask_rows]}
    probs, _ = attention(all_x, as_attention, of)
    check_values(at, "softmax", probs, of, case["softmax"])
    logs, lse = [], []
    all_x, scale = without_sign(all_x, case)
    for r in range(rows):
        query, x = Query(as_attention, r), all_x[r * cols : (r + 1) * cols]
        x = [x if sees else -INF for x, sees in zip(x, query.seen)]
        row = with_mask(x, query.mask, of, scale)
        logs += log_softmax(*row, masked)
        lse.append(logsumexp(*row))
    check_values(at, "log_softmax", logs, of, case["log_softmax"])
    check_values(at, "logsumexp", lse, of, case["logsumexp"])


def check_weighted(case, at):
    of, cols, scale = TYPES[case["type"]], case["cols"], scale_of(case)
    x, weights = numbers(case["x"], of), numbers(case["weights"], F64)
    added = [0.0] * cols
    if "mask_type" in case:
        added = numbers(case["mask"], TYPES[case["mask_type"]])
    elif "mask" in case:
        added = [0.0 if sees else -INF for sees in case["mask"]]

    def of_row(values, r):
        return values[:cols] if len(values) == cols else values[r * cols : (r + 1) * cols]

    y = []
    for r in range(len(x) // cols):
        y.append(weighted_logsumexp(of_row(x, r), of_row(weights, r), of_row(added, r), scale))
    check_values(at, "logsumexp", y, of, case["logsumexp"])


def check_entropies(case, at):
    of = TYPES[case["type"]]
    x, masked, upstream = numbers(case["x"], of), case["masked"], numbers(case["upstream"], of)[0]
    negative = d(case.get("scale", "3ff0000000000000")) < 0
    x, scale = without_sign(x, case)
    value = special(x)
    if value is None:
        y = Entropy(x, of, scale, False).entropy
        gradient = Entropy(x, of, scale, True).gradient(-upstream if negative else upstream)
    else:
        y = entropy_of_special(value, masked)
        gradient = [y] * len(x)
    check_values(at, "entropy", [y], of, case["entropy"])
    check_values(at, "gradient", gradient, of, case["gradient"])


def check_divergences(case, at):
    of = TYPES[case["type"]]
    upstream = numbers(case["upstream"], of)[0]
    if d(case.get("scale", "3ff0000000000000")) < 0:
        upstream = -upstream
    x, scale = without_sign(numbers(case["x"], of), case)
    y, _ = without_sign(numbers(case["y"], of), case)
    value, of_x, of_y = divergence(x, y, of, scale, case["masked"], upstream)
    check_values(at, "divergence", [value], of, case["divergence"])
    check_values(at, "gradient_x", of_x, of, case["gradient_x"])
    check_values(at, "gradient_y", of_y, of, case["gradient_y"])


def check_perplexity(case, at):
    x = numbers(case["x"], TYPES[case["type"]])
    check_values(at, "perplexity", [perplexity(x)], F64, case["perplexity"])


def check_routes(case, at):
    of, cols = TYPES[case["type"]], case["cols"]
    x, experts, weights = numbers(case["x"], of), [], []
    for r in range(0, len(x), cols):
        of_row = route(x[r : r + cols], of, case)
        experts += of_row[0]
        weights += of_row[1]
    same(f"{at} experts", [str(i) for i in experts], " ".join(map(str, case["experts"])))
    check_values(at, "weights", weights, contract_of(of).a.of, case["weights"])


def check_backward(case, at):
    of, scale = TYPES[case["type"]], scale_of(case)
    u = numbers(case["upstream"], of)
    y = softmax_backward(numbers(case["probs"], of), u, of, scale)
    check_values(at, "softmax", y, of, case["softmax"])
    y = log_softmax_backward(numbers(case["log_probs"], of), u, of, scale)
    check_values(at, "log_softmax", y, of, case["log_softmax"])


def argmax(x):
    nan = [i for i, x in enumerate(x) if math.isnan(x)]
    return nan[0] if nan else x.index(max(x))


def top_k(x, k):
    order = range(len(x))
    if not any(map(math.isnan, x)):
        order = sorted(order, key=lambda i: (-x[i], i))
    return list(order)[:k]


def check_picks(case, at):
    of, scale = TYPES[case["type"]], scale_of(case)
    x, masked = numbers(case["x"], of), case.get("masked", "nan")
    arithmetic = contract_of(of).a.of
    order = [argmax(x)] + top_k(x, len(case["top_k"]))
    want = [case["argmax"]] + case["top_k"]
    same(f"{at} argmax, top_k", [str(i) for i in order], " ".join(map(str, want)))
    # Rows in the arithmetic type.
    log_probs = log_softmax(x, arithmetic, scale, masked)
    probs = softmax(x, arithmetic, scale, masked)
    for name, values, tokens in (
        ("log_probs", log_probs, order[1:]),
        ("probs", probs, order[1:]),
        ("log_probs_of_tokens", log_probs, case["tokens"]),
        ("lse", [logsumexp(x, arithmetic, scale)], [0]),
    ):
        check_values(at, name, [values[i] for i in tokens], arithmetic, case[name])


def check_losses(case, at):
    of = TYPES[case["type"]]
    losses, loss, gradient = cross_entropy(numbers(case["x"], of), case, of)
    check_values(at, "losses", losses, F64, case["losses"])
    check_values(at, "loss", [loss], F64, case["loss"])
    check_values(at, "gradient", gradient, of, case["gradient"])


def check_samples(case, at):
    of, rows = TYPES[case["type"]], case["rows"]
    x, want = numbers(case["x"], of), case["draws"]
    cols, draws = len(x) // rows, len(want) // rows
    got = []
    for row in range(rows):
        _, left = edited_row(x[row * cols : (row + 1) * cols], of, case, row)
        got += draws_of_row(left, case, row, draws)
    same(f"{at} draws", [str(token) for token in got], " ".join(map(str, want)))


def check_filters(case, at):
    of = TYPES[case["type"]]
    arithmetic, want = contract_of(of).a.of, case["draws"]
    x, left = edited_row(numbers(case["x"], of), of, case, 0)
    draws = draws_of_row(left, case, 0, len(want))
    same(f"{at} draws", [str(token) for token in draws], " ".join(map(str, want)))
    tokens, probs, logs = kept_of_row(x, left, of, case)
    if "kept" in case:
        same(f"{at} kept", [str(token) for token in tokens], " ".join(map(str, case["kept"])))
    check_values(at, "probs", probs, arithmetic, case["probs"])
    check_values(at, "log_probs", logs, arithmetic, case["log_probs"])


CHECKS = {
    "rows": check_rows,
    "limits": check_limits,
    "elements": check_elements,
    "shards": check_shards,
    "attention": check_attention,
    "biased": check_attention,
    "tiles": check_tiles,
    "outputs": check_outputs,
    "masked": check_masked,
    "weighted": check_weighted,
    "entropies": check_entropies,
    "divergences": check_divergences,
    "perplexity": check_perplexity,
    "routes": check_routes,
    "backward": check_backward,
    "losses": check_losses,
    "targets": check_losses,
    "picks": check_picks,
    "samples": check_samples,
    "filters": check_filters,
}


def main(names):
    names = names or sorted(f"{name}.json" for name in CHECKS)
    for name in names:
        with open(os.path.join(HERE, name), encoding="utf-8") as file:
            cases = json.load(file)["cases"]
        for i, case in enumerate(cases):
            about = f"{name} case {i} ({case.get('type', '')})"
            try:
                CHECKS[name.removesuffix(".json")](case, about)
            except Difference as difference:
                sys.exit(f"DIFFERENT: {difference}")
        print(f"{name}: {len(cases)} cases are the same bits")


if __name__ == "__main__":
    main(sys.argv[1:])
