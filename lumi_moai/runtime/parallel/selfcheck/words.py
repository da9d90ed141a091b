"""What the self-check says beside its numbers."""

REASONS = (
    "; a loss that is a sum over rows written by hand inside of a model, that compares rows with each other"
    " (contrastive), a norm over the nodes of all graphs, a mean over unequal masks written by hand, or what Python"
    " counts or averages picture by picture does this: use the losses of torch.nn.functional or a mean over rows, of"
    " all rows at once, give a norm of graphs their `batch`, compare rows in the script's own loop, or train on one"
    " device; --self-check off goes on as it is"
)
ROW_BY_ROW = (
    "; the step draws single random numbers, and fewer of them for the rows of a rank: drawn row by row they are alike"
    " on all ranks; draw them for all rows at once (torch.rand(x.size(0)), beta.sample((len(x),))), or train on one"
    " device; --self-check off goes on as it is"
)
WIDTHS = (
    "; each rank pads its rows to the longest of its own, and the result depends on how far rows are padded: pad all"
    ' batches to one length (padding="max_length", a fixed length in the collate function), or mask or pack the'
    " padding; --self-check off goes on as it is"
)
IN_WHOLE = (
    "the result depends on how far rows are padded, so each rank puts whole batches together, as one device does, and"
    " takes its rows from them, which reads all samples on every rank"
)
DRAWN = ", but random or numpy draws another number of times"
DRAWS = "the step draws random numbers that cannot be steadied (dropout of its own kind)"
