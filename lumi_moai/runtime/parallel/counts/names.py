"""What the functions of torch do with the rows of a batch, by their names."""

_COMPARED = {"eq", "ne", "lt", "le", "gt", "ge", "not_equal", "greater", "less"}
_ARITHMETIC = {
    *("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "truediv", "floordiv"),
    *("floor_divide", "pow", "remainder", "mod"),
}
ARITHMETIC = _COMPARED | _ARITHMETIC | {f"{mark}{name}" for name in _ARITHMETIC for mark in "ri"}
"""In which a number of rows is a number, no size."""
EACH = ARITHMETIC | {
    *("neg", "abs", "square", "sqrt", "exp", "log", "sign", "round", "isin", "isnan", "isinf", "isfinite"),
    *("and", "or", "xor", "invert", "logical_and", "logical_or", "logical_not", "logical_xor", "where", "masked_fill"),
    *("to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "short", "bool"),
    *("cpu", "cuda", "clone", "detach", "data", "contiguous", "expand", "expand_as"),
}
"""What works on each element for itself."""
LIKE = {"view_as", "reshape_as"}
"""What gives a tensor the shape of another."""
SWAPS = {"transpose", "swapaxes", "swapdims"}
TURNS = {"t", "T", "mT", "H", "mH", "adjoint"}
VIEW = (
    LIKE
    | SWAPS
    | TURNS
    | {"view", "reshape", "flatten", "unsqueeze", "squeeze", "ravel", "permute", "movedim", "moveaxis"}
)
ADDED = {"sum", "nansum", "count_nonzero", "mean", "any", "all"}
"""What is added up over the ranks."""
AS_ONE = {
    *("max", "min", "amax", "amin", "aminmax", "argmax", "argmin", "std", "var", "std_mean", "var_mean", "median"),
    *("nanmedian", "quantile", "mode", "prod", "norm", "logsumexp", "softmax", "log_softmax", "cumsum", "cumprod"),
    *("sort", "argsort", "topk", "kthvalue", "unique", "bincount", "histc", "vector_norm", "cov", "corrcoef"),
    *("_unique2", "return_output", "return_counts", "return_inverse", "unique_consecutive", "diff", "flip", "roll"),
    *("normalize", "cosine_similarity", "softmin", "logcumsumexp", "nanmean", "equal", "allclose"),
    *("msort", "vander", "diag", "diagflat", "block_diag"),
}
"""What needs the rows of all ranks when it goes over the dimension of the rows, or over all elements."""
OF_MATRIX = {
    *("matrix_norm", "svd", "svdvals", "qr", "pinv", "pinverse", "matrix_rank", "cond", "lstsq", "eigh", "eigvalsh"),
    *(
        "tril",
        "triu",
        "diagonal",
        "eig",
        "eigvals",
        "inv",
        "inverse",
        "det",
        "slogdet",
        "logdet",
        "cholesky",
        "lu",
        "svd_lowrank",
        "pca_lowrank",
    ),
}
"""The same of a matrix: goes over the last two dimensions."""
AS_ONE |= OF_MATRIX
OVER_ALL = {
    *("unique", "_unique2", "return_output", "return_counts", "return_inverse", "bincount", "histc", "corrcoef"),
    *("equal", "allclose", "msort", "vander", "diag", "diagflat", "block_diag"),
}
"""What goes over all elements, whatever else it is given."""
DIM_AT = {
    name: 2
    for name in ("quantile", "norm", "topk", "kthvalue", "roll", "vector_norm", "normalize", "cosine_similarity")
}
"""Where the dimension stands among the arguments, if it is not the second."""
SECOND_DIM = {"normalize", "cosine_similarity"}
"""What goes over the second dimension unless it is told."""
LAST_DIM = {"sort", "argsort", "topk", "kthvalue", "diff", "mode"}
"""What goes over the last dimension unless it is told."""
SORTED_IN = {"index_add": 2, "scatter_add": 2, "index_put": 1}
"""What adds rows up where an index of theirs says, and where that stands among the arguments."""
PRODUCTS = {"matmul", "rmatmul", "mm", "bmm", "cdist", "pdist"}
CROSSED = {"inner", "outer", "ger", "kron", "tensordot", "linear", "addmm", "addr"}
"""Other products, in which rows of one tensor meet those of another."""
PAIRED = {"cosine_similarity", "pairwise_distance"}
READS = {"tolist", "numpy", "array", "unbind"}
"""What gives the script all numbers at once."""
