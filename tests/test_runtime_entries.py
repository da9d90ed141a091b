"""Batches whose rows are the entries of a list, such as pictures: whatever sizes these have, they are no rows."""

import pytest
from one_device import plain, same_run
from test_runtime_parallel import HEAD

# As many channels as a rank has rows, boxes of all numbers, a last batch of 4 rows: of entries no size tells.
PICTURES = (
    HEAD
    + """
from torch.utils.data import Dataset
class Pictures(Dataset):
    def __len__(self):
        return 14
    def __getitem__(self, place):
        chance = torch.Generator().manual_seed(place)
        boxes = torch.rand(place % 3 + 1, 4, generator=chance)
        return torch.randn(CHANNELS, 4, 4, generator=chance), {"boxes": boxes, "label": torch.tensor(place % 3)}
def apart(samples):
    return [picture for picture, _ in samples], [target for _, target in samples]
def zipped(samples):
    return tuple(zip(*samples))
model = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 16, 4)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.01)
seen = 0
for batch in DataLoader(Pictures(), batch_size=5, shuffle=True, collate_fn=COLLATE):
    rows = len(batch if COLLATE is list else batch[1])
    if COLLATE is list:
        batch = [picture for picture, _ in batch], [target for _, target in batch]
    pictures, targets = batch
    x = torch.stack([picture.clone().cuda() for picture in pictures])
    centers = torch.stack([target["boxes"].mean(0) for target in targets]).cuda()
    out = model(x)
    loss = F.mse_loss(out, centers)
    optim.zero_grad()
    loss.backward()
    optim.step()
    seen += rows
    print(loss.item(), seen)
torch.save(model.state_dict(), sys.argv[1])
"""
)


@pytest.mark.parametrize("collate", ["apart", "zipped", "list"])
@pytest.mark.parametrize("channels", [3, 2, 7])
def test_entries_are_taken_for_no_rows(work, collate, channels):
    script = PICTURES.replace("COLLATE", collate).replace("CHANNELS", str(channels))
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "self-check of the first step: loss" in ranks[0].err
    assert ranks[0].err.count("the script stacks the rows of a batch that are in a list") == 1


def test_entries_are_taken_for_no_rows_where_each_rank_has_one(work):
    script = PICTURES.replace("COLLATE", "apart").replace("CHANNELS", "1").replace("batch_size=5", "batch_size=2")
    same_run(work, script, *plain(work, script), 2)


ONE_BY_ONE = (
    HEAD
    + """
x, y = torch.randn(14, 6), torch.randn(14)
model = nn.Linear(6, 1).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.01)
for a, b in DataLoader(TensorDataset(x, y), batch_size=5):
    count = BEFORE
    loss = F.mse_loss(model(a.cuda()).squeeze(1), b.cuda())
    optim.zero_grad()
    loss.backward()
    optim.step()
    count = sum(1 for _ in a)
    print(loss.item(), count)
torch.save(model.state_dict(), sys.argv[1])
"""
)


@pytest.mark.parametrize(
    ("before", "is_said"),
    [
        ("torch.tensor([each.sum().item() for each in a])", True),
        ("sum(1 for _ in a); print(count)", False),
        ("len(a)", False),
    ],
)
def test_rows_that_are_gone_through_before_backward_are_said_to_be_a_ranks(work, before, is_said):
    """Unless they are only counted."""
    script = ONE_BY_ONE.replace("BEFORE", before)
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert ranks[0].err.count("goes through the rows of a batch one by one before backward()") == is_said


@pytest.mark.parametrize(
    ("before", "is_said"), [("torch.tensor(b.numpy())", True), ("len(b.numpy())", False), ("len(b.float())", False)]
)
def test_an_array_of_rows_ahead_of_backward_is_said_to_be_a_ranks(work, before, is_said):
    """Unless it is only counted: what is for a tensor is of the rank's rows, without the self-check too."""
    script = ONE_BY_ONE.replace("count = BEFORE", f"ahead = {before}" + ("" if is_said else "; print(ahead)"))
    _, ranks = same_run(work, script, *plain(work, script), 2, self_check=False)
    assert ranks[0].err.count("takes a list or an array of the rows of a batch before backward()") == is_said
