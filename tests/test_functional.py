"""The algebra of one kernel: inverses, volume and condition, over sizes, dtypes and conditions."""

import pytest
import torch
from cases import kernel_of
from hypothesis import given
from hypothesis import strategies as st
from torch.func import vmap

from wic_layers import functional
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.functional import (
    condition_number,
    constrained_inverse,
    gram_logdet,
    left_inverse,
    log_volume,
    right_inverse,
    square_inverse,
)

# Every function with what makes its argument from a tall kernel of at least two columns.
FUNCTIONS = {
    "left_inverse": (left_inverse, lambda kernel: kernel),
    "right_inverse": (right_inverse, lambda kernel: kernel.mT),
    "constrained_inverse": (lambda kernel: constrained_inverse(kernel, 2), lambda kernel: kernel),
    "square_inverse": (square_inverse, lambda kernel: kernel[..., : kernel.shape[-1], :]),
    "log_volume": (log_volume, lambda kernel: kernel),
    "log_volume, square": (log_volume, lambda kernel: kernel[..., : kernel.shape[-1], :]),
    "log_volume, wide": (log_volume, lambda kernel: kernel.mT),
    "gram_logdet": (gram_logdet, lambda kernel: kernel),
    "condition_number": (condition_number, lambda kernel: kernel),
    "condition_number, wide": (condition_number, lambda kernel: kernel.mT),
}


@st.composite
def tall(draw, most=64):
    """A kernel with at least as many rows as columns and a condition number up to 1e6."""
    columns = draw(st.integers(1, most), label="columns")
    rows = draw(st.integers(columns, most), label="rows")
    condition = 10 ** draw(st.floats(0, 6), label="log10 of the condition number")
    spread = draw(st.sampled_from(["even", "small", "large"]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    torch.manual_seed(draw(st.integers(0, 1000), label="seed"))
    return kernel_of(rows, columns, condition, dtype=dtype, spread=spread)


def limit(kernel, condition=None):
    """c * eps * condition, in the entries of products with an inverse.

    The inverse is computed in float64 and rounded once to the kernel's dtype. Each entry of it is
    off by eps/2 of itself, which makes at most eps/2 * sqrt(n) * condition in an entry of a
    product; it was below eps/2 * condition in everything seen, so c is 4. In float64 the
    factorisation rounds as much as the result does: 9 was seen, growing slowly with the rows.
    """
    factor = 8 + kernel.shape[0] / 8 if kernel.dtype == torch.float64 else 4
    condition = condition_number(kernel.double()) if condition is None else condition
    return float(factor * torch.finfo(kernel.dtype).eps * condition)


def off(a, b):
    """Largest difference, computed in float64."""
    return float((a.double() - b.double()).abs().max())


@given(tall())
def test_left_and_right_inverse(kernel):
    plus = left_inverse(kernel)
    eye = torch.eye(kernel.shape[1])
    assert plus.dtype == kernel.dtype
    assert off(plus.double() @ kernel.double(), eye) <= limit(kernel)
    wide = right_inverse(kernel.mT)
    assert off(kernel.mT.double() @ wide.double(), eye) <= limit(kernel)


@given(tall(), st.booleans())
def test_penrose(kernel, is_wide):
    matrix = kernel.mT if is_wide else kernel
    plus = (right_inverse(matrix) if is_wide else left_inverse(matrix)).double()
    matrix = matrix.double()
    norm, inverse_norm = (float(torch.linalg.matrix_norm(part, 2)) for part in (matrix, plus))
    bound = limit(kernel)
    assert off(matrix @ plus @ matrix, matrix) <= bound * norm
    assert off(plus @ matrix @ plus, plus) <= bound * inverse_norm
    first, second = matrix @ plus, plus @ matrix
    assert off(first, first.mT) <= bound
    assert off(second, second.mT) <= bound


@given(tall(), st.data())
def test_constrained_inverse_is_a_left_inverse_that_keeps_rows(kernel, data):
    rows, columns = kernel.shape
    exact = data.draw(st.integers(1, columns), label="exact rows")
    # the exact rows are inverted by themselves, on the scale of all rows
    smallest = torch.linalg.svdvals(kernel[:exact].double())[-1]
    held = torch.linalg.matrix_norm(kernel.double(), 2) / smallest
    bound = limit(kernel, condition_number(kernel.double()) * held)
    p = constrained_inverse(kernel, exact).double()
    assert off(p @ kernel.double(), torch.eye(columns)) <= bound
    kept = torch.eye(exact, rows)
    if rows == columns:
        bound = limit(kernel)
    assert off(kernel[:exact].double() @ p, kept) <= bound


@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 12), st.integers(0, 100))
def test_constrained_inverse_solves_its_least_squares_problem(columns, more, exact, seed):
    exact = min(max(exact, 1), columns)
    torch.manual_seed(seed)
    kernel = kernel_of(columns + more, columns, 10.0)
    y = torch.randn(exact, dtype=torch.float64)
    c = torch.randn(columns + more - exact, dtype=torch.float64)
    x = constrained_inverse(kernel, exact) @ torch.cat((y, c))
    # the conditions of Karush, Kuhn and Tucker, solved as one symmetric system
    w, inc = kernel[:exact], kernel[exact:]
    system = torch.zeros(columns + exact, columns + exact, dtype=torch.float64)
    system[:columns, :columns] = inc.mT @ inc
    system[:columns, columns:] = w.mT
    system[columns:, :columns] = w
    solution = torch.linalg.solve(system, torch.cat((inc.mT @ c, y)))[:columns]
    condition = float(torch.linalg.cond(system))
    assert off(x, solution) <= 100 * 2.3e-16 * condition * max(1.0, float(x.abs().max()))


@pytest.mark.parametrize("name", ["left", "right", "constrained"])
@pytest.mark.parametrize("zeros", [1, 8, 17])
def test_no_product_sees_the_square_of_the_condition(name, zeros):
    """Back substitution of R x = Q^T is right for K x alone where R starts with large rows."""
    for condition in (1e2, 1e4, 1e6):
        direction = torch.randn(34, 34, dtype=torch.float64)
        direction[:zeros, 0] /= condition
        v = torch.linalg.qr(direction)[0]
        values = torch.full((34,), 1 / condition, dtype=torch.float64)
        values[0] = 1
        kernel = torch.linalg.qr(torch.randn(40, 34, dtype=torch.float64))[0] * values @ v.mT
        eye = torch.eye(34, dtype=torch.float64)
        if name == "right":
            error = off(kernel.mT @ right_inverse(kernel.mT), eye)
        elif name == "left":
            error = off(left_inverse(kernel) @ kernel, eye)
        else:
            error = off(constrained_inverse(kernel, 1) @ kernel, eye)
        assert error <= limit(kernel)
        square = kernel[:34]
        inverse = left_inverse(square)
        for product in (inverse @ square, square @ inverse):
            assert off(product, eye) <= limit(square)
        # by LU one of the two does, of a float64 kernel; rounding to float32 hides it
        assert off(square @ square_inverse(square), eye) <= limit(square)
        stored = square.float()
        inverse = square_inverse(stored).double()
        for product in (inverse @ stored.double(), stored.double() @ inverse):
            assert off(product, eye) <= limit(stored)


def test_constrained_inverse_of_a_square_kernel_is_the_inverse():
    kernel = kernel_of(9, 9, 100.0)
    for rows in (1, 4, 9):
        torch.testing.assert_close(constrained_inverse(kernel, rows), torch.linalg.inv(kernel))


@given(tall())
def test_volume_and_condition_against_singular_values(kernel):
    values = torch.linalg.svdvals(kernel.double())
    condition = float(values[0] / values[-1])
    eps = torch.finfo(kernel.dtype).eps
    # singular values themselves are good to 64 * 2.2e-16 of the largest
    relative = 4 * eps + 64 * 2.3e-16 * condition
    for matrix in (kernel, kernel.mT):
        assert float(condition_number(matrix)) == pytest.approx(condition, rel=relative)
        expected = float(values.log().sum())
        slack = relative * len(values) + eps * abs(expected)
        assert float(log_volume(matrix)) == pytest.approx(expected, abs=slack)
        assert float(gram_logdet(matrix)) == pytest.approx(2 * expected, abs=4 * slack)


def test_float32_at_condition_ten_thousand():
    worst = 0.0
    for rows, columns in ((3, 3), (12, 12), (32, 24), (64, 64), (96, 96)):
        for spread in ("even", "small", "large"):
            kernel = kernel_of(rows, columns, 1e4, dtype=torch.float32, spread=spread)
            product = left_inverse(kernel) @ kernel
            worst = max(worst, off(product, torch.eye(columns)))
    assert worst <= 1e-3


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_no_scale_over_or_underflows(scale):
    kernel = torch.randn(200, 150, dtype=torch.float64) * scale
    assert torch.isfinite(log_volume(kernel))
    assert float(condition_number(kernel)) == pytest.approx(float(torch.linalg.cond(kernel)))
    assert off(left_inverse(kernel) @ kernel, torch.eye(150)) < 1e-11


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (2, 5, 3)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name, shape):
    function, argument = FUNCTIONS[name]
    kernel = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: function(argument(k)), kernel)


@pytest.mark.parametrize("name", ["left_inverse", "constrained_inverse", "log_volume"])
def test_second_gradients(name):
    function, argument = FUNCTIONS[name]
    kernel = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda k: function(argument(k)), kernel)


@pytest.mark.parametrize("shape", [(5, 3), (4, 4)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_and_leading_dimensions_equal_a_loop(name, shape):
    function, argument = FUNCTIONS[name]
    kernels = torch.randn(4, *shape)
    loop = torch.stack([function(argument(kernel)) for kernel in kernels])
    torch.testing.assert_close(vmap(lambda kernel: function(argument(kernel)))(kernels), loop)
    torch.testing.assert_close(function(argument(kernels)), loop)


@pytest.mark.parametrize("fault", ["nan", "infinite", "zero", "equal columns", "zero row"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_never_raise_and_never_spoil_neighbours(name, fault):
    function, argument = FUNCTIONS[name]
    good, bad = torch.randn(2, 5, 3).unbind(0)
    if fault == "nan":
        bad[1, 1] = torch.nan
    elif fault == "infinite":
        bad[1, 1] = torch.inf
    elif fault == "zero":
        bad.zero_()
    elif fault == "equal columns":
        bad[:, 2] = bad[:, 0]
    else:
        bad[0] = 0
    kernels = torch.stack((bad, good))
    alone = function(argument(good))
    for result in (function(argument(kernels)), vmap(lambda k: function(argument(k)))(kernels)):
        torch.testing.assert_close(result[1], alone)
    singular = function(argument(bad))
    if fault in ("nan", "infinite"):
        assert not torch.isfinite(singular).all()
    if fault == "equal columns" and name.startswith("condition"):
        assert not singular < 1e12
    if fault in ("nan", "infinite", "zero") and name.startswith("condition"):
        assert not torch.isfinite(singular)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_matrices_keep_the_dtype_and_numbers_are_at_least_float32(name, dtype):
    function, argument = FUNCTIONS[name]
    kernel = torch.randn(5, 3).to(dtype)
    result = function(argument(kernel))
    assert result.dtype == (dtype if result.ndim else torch.promote_types(dtype, torch.float32))
    expected = function(argument(kernel.double()))
    scale = float(expected.abs().max())
    assert off(result, expected) <= torch.finfo(dtype).eps * scale * 20


KERNEL = torch.eye(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: left_inverse(KERNEL.mT), WICShapeError, r"as many rows.*\(3, 4\).*right_inverse"),
        (lambda: right_inverse(KERNEL), WICShapeError, r"at most.*\(4, 3\).*left_inverse"),
        (lambda: left_inverse(torch.ones(3)), WICShapeError, r"2 dimensions.*\(3,\)"),
        (lambda: square_inverse(KERNEL), WICShapeError, r"square kernel.*\(4, 3\)"),
        (lambda: log_volume(torch.ones(())), WICShapeError, r"2 dimensions.*\(\)"),
        (lambda: condition_number(torch.ones(3)), WICShapeError, r"2 dimensions"),
        (lambda: left_inverse(torch.ones(0, 0)), WICShapeError, r"at least one row.*\(0, 0\)"),
        (lambda: left_inverse(KERNEL.long()), WICArgumentError, r"real floating.*int64"),
        (lambda: left_inverse(KERNEL.cfloat()), WICArgumentError, r"real floating.*complex64"),
        (lambda: constrained_inverse(KERNEL, 0), WICArgumentError, r"1\.\.3.*got 0"),
        (lambda: constrained_inverse(KERNEL, 4), WICArgumentError, r"1\.\.3.*got 4"),
        (lambda: constrained_inverse(KERNEL.mT, 1), WICShapeError, r"\(3, 4\).*right_inverse"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, (WICError, ValueError))


def test_every_public_function_is_tested():
    tested = {name.split(",")[0] for name in FUNCTIONS}
    assert tested == set(functional.__all__)
