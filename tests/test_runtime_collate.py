"""Batches that a collate function of the script's own puts together: objects with fields, rows filled up to the longest."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
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


# Pictures and their boxes, as many as there are, in lists; every batch is one that ranks share out equally.
BOXES = (
    HEAD
    + """
torch.manual_seed(5)
ROWS = [(torch.randn(6), {"boxes": torch.rand(1 + i % 4, 4), "labels": torch.randint(3, (1 + i % 4,))}) for i in range(20)]
model = nn.Linear(6, 7)
optim = torch.optim.SGD(model.parameters(), 0.05)
for images, targets in DataLoader(ROWS, 4, shuffle=True, collate_fn=lambda rows: tuple(zip(*rows))):
    out = model(torch.stack(images))
    LOSS
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"loss {loss.item():.6f} {len(images)}")
torch.save(model.state_dict(), sys.argv[1])
"""
)
AT_ONCE = """
    of = torch.cat([torch.full((len(each["boxes"]),), place) for place, each in enumerate(targets)])
    boxes, labels = (torch.cat([each[name] for each in targets]) for name in ("boxes", "labels"))
    loss = F.l1_loss(out[of, :4], boxes) + F.cross_entropy(out[of, 4:], labels)
"""
COUNTED = """
    loss = 0
    for place, each in enumerate(targets):
        loss = loss + F.l1_loss(out[place, :4].expand_as(each["boxes"]), each["boxes"], reduction="sum")
    loss = loss / sum(len(each["boxes"]) for each in targets)
"""
AVERAGED = """
    loss = 0
    for place, each in enumerate(targets):
        loss = loss + F.l1_loss(out[place, :4].expand_as(each["boxes"]), each["boxes"])
    loss = loss / len(images)
"""


@pytest.mark.parametrize("stacked", [False, True], ids=["list", "stacked"])
def test_losses_of_all_boxes_are_those_of_one_device(work, stacked):
    script = BOXES.replace("LOSS", AT_ONCE)
    if stacked:  # a rank has as many boxes as the batch has rows, by chance
        script = script.replace("tuple(zip(*rows))", "(torch.stack([r[0] for r in rows]), [r[1] for r in rows])")
        script = script.replace("torch.stack(images)", "images")
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "self-check of the first step: loss" in ranks[0].err


@pytest.mark.parametrize("losses", [COUNTED, AVERAGED], ids=["counted", "averaged"])
def test_losses_of_each_picture_s_boxes_do_not_train_otherwise_without_a_word(work, losses):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(BOXES.replace("LOSS", losses)), str(work / "weights.pt"))
    assert [rank.code for rank in ranks] == [1, 1], ranks[0].out
    assert not any(rank.out for rank in ranks)
    (said,) = [rank.err for rank in ranks if "the self-check of the first step failed" in rank.err]
    assert "picture by picture" in said


# Answers of each word, behind the backward, in batches that each rank pads to the longest of its own rows.
PADDED = (
    HEAD
    + """
from torch.nn.utils.rnn import pad_sequence
torch.manual_seed(5)
ROWS = [(torch.randn(2 + i % 5, 6), torch.randint(3, (2 + i % 5,))) for i in range(20)]
def collate(rows):
    words, labels = zip(*rows)
    return pad_sequence(words, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=-100)
model = nn.Linear(6, 3)
optim = torch.optim.SGD(model.parameters(), 0.05)
right = 0
for words, labels in DataLoader(ROWS, 4, collate_fn=collate):
    out = model(words)
    loss = F.cross_entropy(out.transpose(1, 2), labels, ignore_index=-100)
    optim.zero_grad()
    loss.backward()
    optim.step()
    READ
    print(f"loss {loss.item():.6f} {right}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_rows_that_are_padded_by_each_rank_are_read_as_one_table(work):
    counted = PADDED.replace("READ", "right += (out.argmax(2) == labels).sum().item()")
    same_run(work, counted, *plain(work, counted), 2)
    read = "right += sum(p == y for found, goal in zip(out.argmax(2).tolist(), labels.tolist()) for p, y in zip(found, goal))"
    read = PADDED.replace("READ", read)
    same_run(work / "read", read, *plain(work, read), 2)


FLAT = (
    HEAD
    + """
torch.manual_seed(5)
ROWS = [(torch.randn(9, 6), torch.randint(1, 5, (1 + i * 3 % 4,))) for i in range(18)]
def collate(rows):
    frames, labels = zip(*rows)
    return torch.stack(frames), torch.cat(labels), torch.tensor([len(each) for each in labels]), torch.ones(4)
model = nn.Linear(6, 5)
optim = torch.optim.SGD(model.parameters(), 0.05)
letters = 0
for frames, labels, lengths, weights in DataLoader(ROWS, 5, collate_fn=collate):
    heard = model(frames).log_softmax(-1).transpose(0, 1)
    loss = F.ctc_loss(heard, labels, torch.full((len(frames),), 9), lengths)
    optim.zero_grad()
    loss.backward()
    optim.step()
    letters += lengths.sum().item()
    print(f"loss {loss.item():.6f} {letters}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_labels_one_after_the_other_are_named_since_no_rank_counts_those_of_all(work):
    _, ranks = same_run(work, FLAT, *plain(work, FLAT), 2)
    assert "part 1 of a batch has the entries of all rows one after the other" in ranks[0].err
    assert "part 3" not in ranks[0].err


def test_rows_that_stay_of_other_widths_are_not_read_as_one_table(work):
    """A worker and a script with an open file share the place in it, so no samples are fetched to see what is filled."""
    text = PADDED.replace("READ", "right += len(labels.tolist())").replace("fn=collate)", "fn=collate, num_workers=1)")
    run = Run(work, launch(2))
    ranks = run.ranks(
        submitit(2), run.script(f"{text}\n".replace("right = 0", "right, file = 0, open(__file__)")), "w.pt"
    )
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("these are of different widths, since each rank pads" in rank.err for rank in ranks)
    assert any("since their samples cannot be fetched again" in rank.err for rank in ranks)
