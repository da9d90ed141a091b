"""Batches that a collate function of the script's own puts together: objects with fields, rows filled up to the longest."""

from one_device import plain, same_run
from test_runtime_parallel import HEAD

ROWS = """
chance = random.Random(0)
ROWS = [([chance.randrange(1, 20) for _ in range(chance.randrange(2, 12))], [chance.randrange(1, 9) for _ in range(chance.randrange(1, 5))]) for _ in range(29)]
"""

# A dataclass with a method that gives it back; a mean over rows that the length of its texts weighs.
FIELDS = (
    HEAD
    + ROWS
    + """
from dataclasses import dataclass
@dataclass
class Batch:
    words: torch.Tensor
    texts: list
    def to(self, device):
        self.words = self.words.to(device)
        return self
def collate(rows):
    return Batch(torch.tensor([[row[0][0], row[1][0]] for row in rows]), [str(row) for row in rows])
model = nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(12, 1))
optim = torch.optim.Adam(model.parameters(), 0.02)
total = rows = 0
for batch in DataLoader(ROWS, 7, collate_fn=collate):
    batch = batch.to("cpu")
    loss = F.l1_loss(model(batch.words)[:, 0], batch.words[:, 0] / 20)
    optim.zero_grad()
    loss.backward()
    optim.step()
    total, rows = total + loss.item() * len(batch.texts), rows + len(batch.texts)
    print(f"loss {total / rows} {rows}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_the_fields_of_a_batch_are_checked_and_counted(work):
    lines, weights = plain(work, FIELDS)
    _, ranks = same_run(work, FIELDS, lines, weights, 2)
    assert "self-check of the first step: loss" in ranks[0].err
